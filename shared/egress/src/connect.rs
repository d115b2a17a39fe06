//! The making of a connection: the first address that answers, TLS, and the version of HTTP that both sides speak.

use super::failure::SendError;
use super::tls::Tls;
use super::want;
use crate::target::Origin;
use bytes::Bytes;
use futures_util::stream::{FuturesUnordered, StreamExt};
use http_body_util::Full;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use rustls::pki_types::ServerName;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::sleep;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_util::sync::{CancellationToken, DropGuard};

/// The time without an answer after which the next address is tried beside those before it (RFC 8305, 5).
const NEXT_ADDRESS: Duration = Duration::from_millis(250);

/// The most addresses that are tried for one connection.
const MAX_ADDRESSES: usize = 10;

/// How often an HTTP/2 connection with requests under way is asked whether it is alive, and how long it has to answer.
/// An attempt has 15 s by default, so its request ends before that, and the next attempt finds another connection.
const PING_INTERVAL: Duration = Duration::from_secs(5);
const PING_TIMEOUT: Duration = Duration::from_secs(5);

/// How much of one answer a receiver may send over HTTP/2 before it is read. Herald reads no more of it.
const WINDOW_BYTES: u32 = 16 * 1024;

/// The largest head of an answer over HTTP/2. Over HTTP/1.1 hyper has bounds of its own: 100 headers, and about
/// 400 KiB.
const MAX_HEAD_BYTES: u32 = 64 * 1024;

/// A request's body.
pub(super) type Body = Full<Bytes>;

/// A new connection.
pub(super) enum Connection {
    /// HTTP/1.1, for one request at a time.
    Http1 {
        sender: http1::SendRequest<Body>,
        /// The number of bytes that were read so far.
        read: Arc<AtomicU64>,
        ended: CancellationToken,
    },
    /// HTTP/2, for several requests at a time.
    Http2 {
        sender: http2::SendRequest<Body>,
        /// How many the receiver allows; 0 before it has said so.
        limit: Arc<AtomicUsize>,
        ended: CancellationToken,
    },
}

/// Connects to one of these addresses. `changed` is notified when an HTTP/2 receiver allows another number of requests
/// at a time.
pub(super) async fn connect(
    origin: &Origin,
    addresses: &[IpAddr],
    tls: &Tls,
    http1_only: bool,
    changed: watch::Sender<()>,
) -> Result<Connection, SendError> {
    let tcp = dial(addresses, origin.port).await.map_err(SendError::connect)?;
    if !origin.tls {
        return over_http1(Wire::new(Stream::Plain(tcp))).await;
    }
    let config = if http1_only { &tls.http1 } else { &tls.both };
    let stream = TlsConnector::from(Arc::clone(config))
        .connect(server_name(origin)?, tcp)
        .await
        .map_err(SendError::Tls)?;
    let is_http2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
    let wire = Wire::new(Stream::Tls(Box::new(stream)));
    if is_http2 {
        over_http2(wire, changed).await
    } else {
        over_http1(wire).await
    }
}

/// The name that the certificate must have, without a dot at its end: names in certificates have none.
fn server_name(origin: &Origin) -> Result<ServerName<'static>, SendError> {
    Ok(match &origin.host {
        url::Host::Domain(name) => ServerName::try_from(name.trim_end_matches('.').to_owned())
            .map_err(|error| SendError::Tls(io::Error::new(io::ErrorKind::InvalidInput, error)))?,
        url::Host::Ipv4(address) => ServerName::IpAddress(IpAddr::from(*address).into()),
        url::Host::Ipv6(address) => ServerName::IpAddress(IpAddr::from(*address).into()),
    })
}

/// The first connection that is made. Addresses are tried in turn. One that does not answer soon goes on beside the
/// next.
async fn dial(addresses: &[IpAddr], port: u16) -> io::Result<TcpStream> {
    let mut waiting = in_turn(addresses).into_iter();
    let mut trying = FuturesUnordered::new();
    let mut failed = None;
    loop {
        if let Some(address) = waiting.next() {
            trying.push(one(SocketAddr::new(address, port)));
        }
        tokio::select! {
            ended = trying.next() => match ended {
                Some(Ok(stream)) => return Ok(stream),
                Some(Err(error)) if want::is(&error) => return Err(error),
                Some(Err(error)) => drop(failed.get_or_insert(error)),
                None => return Err(failed.unwrap_or_else(|| io::ErrorKind::AddrNotAvailable.into())),
            },
            () = sleep(NEXT_ADDRESS), if waiting.len() > 0 => {}
        }
    }
}

async fn one(address: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect(address)
        .await
        .map_err(|error| want::of_ports(error, address))?;
    // Requests are written whole, so the last part of one should not wait for more.
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// The addresses of the two families by turns, in the order of each (RFC 8305, 4).
fn in_turn(addresses: &[IpAddr]) -> Vec<IpAddr> {
    let first = addresses.first().is_some_and(IpAddr::is_ipv4);
    let (one, other): (Vec<IpAddr>, Vec<IpAddr>) = addresses.iter().partition(|address| address.is_ipv4() == first);
    let (mut one, mut other) = (one.into_iter(), other.into_iter());
    let mut in_turn = Vec::with_capacity(addresses.len().min(MAX_ADDRESSES));
    while in_turn.len() < MAX_ADDRESSES {
        let before = in_turn.len();
        in_turn.extend(one.next());
        in_turn.extend(other.next());
        if in_turn.len() == before {
            break;
        }
    }
    in_turn
}

async fn over_http1(wire: Wire) -> Result<Connection, SendError> {
    let read = Arc::clone(&wire.read);
    let (sender, connection) = http1::Builder::new()
        // RFC 9112, 5.2: a user agent must take such line ends for spaces.
        .allow_obsolete_multiline_headers_in_responses(true)
        .handshake(TokioIo::new(wire))
        .await?;
    let ended = CancellationToken::new();
    let guard = ended.clone().drop_guard();
    tokio::spawn(async move {
        // The result is not needed: each request is told how it ended.
        drop(connection.await);
        drop(guard);
    });
    Ok(Connection::Http1 { sender, read, ended })
}

async fn over_http2(wire: Wire, changed: watch::Sender<()>) -> Result<Connection, SendError> {
    let (sender, connection) = http2::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .keep_alive_interval(PING_INTERVAL)
        .keep_alive_timeout(PING_TIMEOUT)
        .keep_alive_while_idle(false)
        .initial_stream_window_size(WINDOW_BYTES)
        .max_header_list_size(MAX_HEAD_BYTES)
        // The first request waits until the receiver has said how many it takes.
        .initial_max_send_streams(0)
        .handshake(TokioIo::new(wire))
        .await?;
    let (limit, ended) = (Arc::new(AtomicUsize::new(0)), CancellationToken::new());
    tokio::spawn(Driver {
        connection,
        limit: Arc::clone(&limit),
        changed,
        _ended: ended.clone().drop_guard(),
    });
    Ok(Connection::Http2 { sender, limit, ended })
}

/// Drives a connection over HTTP/2, and notes how many requests at a time its receiver allows.
struct Driver {
    connection: http2::Connection<TokioIo<Wire>, Body, TokioExecutor>,
    limit: Arc<AtomicUsize>,
    changed: watch::Sender<()>,
    /// Dropped after the connection.
    _ended: DropGuard,
}

impl Future for Driver {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let ended = Pin::new(&mut self.connection).poll(cx).map(drop);
        let limit = self.connection.current_max_send_streams();
        if self.limit.swap(limit, Ordering::Relaxed) != limit || ended.is_ready() {
            self.changed.send_replace(());
        }
        ended
    }
}

/// The bytes of a connection, counted.
struct Wire {
    stream: Stream,
    read: Arc<AtomicU64>,
    /// The error of a write that failed, while an earlier message of the other side may lie unread.
    failed: Option<io::Error>,
}

enum Stream {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

impl Wire {
    fn new(stream: Stream) -> Self {
        Self {
            stream,
            read: Arc::default(),
            failed: None,
        }
    }

    fn inner(&mut self) -> Pin<&mut (dyn AsyncWrite + Send + Unpin)> {
        match &mut self.stream {
            Stream::Plain(stream) => Pin::new(stream),
            Stream::Tls(stream) => Pin::new(stream),
        }
    }

    /// The reason why a write failed. Over TLS 1.3 a receiver refuses Herald after the handshake, when the request is
    /// being written already. The reset of the connection hides the TLS alert that came before it and that tells more.
    fn poll_reason<T>(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<T>> {
        if let Stream::Tls(stream) = &mut self.stream
            && self.read.load(Ordering::Relaxed) == 0
        {
            let (tcp, session) = stream.get_mut();
            let mut bytes = [0; 1024];
            loop {
                let mut buffer = ReadBuf::new(&mut bytes);
                match ready!(Pin::new(&mut *tcp).poll_read(cx, &mut buffer)) {
                    Ok(()) if !buffer.filled().is_empty() => {
                        let taken = session.read_tls(&mut buffer.filled());
                        if let Err(alert) = session.process_new_packets() {
                            return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, alert)));
                        }
                        if !taken.is_ok_and(|taken| taken == buffer.filled().len()) {
                            break;
                        }
                    }
                    Ok(()) | Err(_) => break,
                }
            }
        }
        Poll::Ready(Err(self
            .failed
            .take()
            .unwrap_or_else(|| io::ErrorKind::BrokenPipe.into())))
    }

    fn poll_written<T>(
        &mut self,
        cx: &mut Context<'_>,
        write: impl FnOnce(Pin<&mut (dyn AsyncWrite + Send + Unpin)>, &mut Context<'_>) -> Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if self.failed.is_none() {
            match ready!(write(self.inner(), cx)) {
                Ok(written) => return Poll::Ready(Ok(written)),
                Err(error) => self.failed = Some(error),
            }
        }
        self.poll_reason(cx)
    }
}

fn flush(stream: Pin<&mut (dyn AsyncWrite + Send + Unpin)>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
    stream.poll_flush(cx)
}

impl AsyncRead for Wire {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        ready!(match &mut self.stream {
            Stream::Plain(stream) => Pin::new(stream).poll_read(cx, buffer),
            Stream::Tls(stream) => Pin::new(stream).poll_read(cx, buffer),
        })?;
        let read = u64::try_from(buffer.filled().len() - before).unwrap_or(u64::MAX);
        self.read.fetch_add(read, Ordering::Relaxed);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Wire {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_written(cx, |stream, cx| stream.poll_write(cx, bytes))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.poll_written(cx, |stream, cx| stream.poll_write_vectored(cx, parts))
    }

    fn is_write_vectored(&self) -> bool {
        match &self.stream {
            Stream::Plain(stream) => stream.is_write_vectored(),
            Stream::Tls(stream) => stream.is_write_vectored(),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_written(cx, flush)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.inner().poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::net::TcpListener;

    fn addresses(all: &[&str]) -> Vec<IpAddr> {
        all.iter().map(|address| address.parse().unwrap()).collect()
    }

    #[test]
    fn the_two_families_take_turns() {
        let found = addresses(&["10.0.0.1", "10.0.0.2", "10.0.0.3", "::1", "::2"]);
        assert_eq!(
            in_turn(&found),
            addresses(&["10.0.0.1", "::1", "10.0.0.2", "::2", "10.0.0.3"])
        );
        assert_eq!(in_turn(&vec![found[0]; 100]).len(), MAX_ADDRESSES);
        assert!(in_turn(&[]).is_empty());
    }

    /// A listener that takes no connection any more, for all its backlog is full.
    async fn silent(at: SocketAddr) -> (TcpListener, Vec<TcpStream>) {
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.set_reuseaddr(true).unwrap();
        socket.bind(at).unwrap();
        let listener = socket.listen(1).unwrap();
        let mut waiting = Vec::new();
        while let Ok(stream) = tokio::time::timeout(Duration::from_millis(300), TcpStream::connect(at)).await {
            waiting.push(stream.unwrap());
            assert!(waiting.len() < 1000, "a backlog of one does not fill");
        }
        (listener, waiting)
    }

    #[tokio::test]
    async fn an_address_that_does_not_answer_is_passed_over() {
        let good = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = good.local_addr().unwrap().port();
        let _silent = silent(SocketAddr::new("127.0.0.9".parse().unwrap(), port)).await;
        // Nobody listens at the second, which says so at once.
        let found = addresses(&["127.0.0.9", "127.0.0.8", "127.0.0.1"]);
        let dialled = tokio::time::timeout(Duration::from_secs(2), dial(&found, port)).await;
        assert_eq!(
            dialled.unwrap().unwrap().peer_addr().unwrap(),
            good.local_addr().unwrap()
        );
    }

    #[tokio::test]
    async fn where_no_address_answers_the_first_failure_counts() {
        let port = TcpListener::bind("127.0.0.1:0")
            .await
            .unwrap()
            .local_addr()
            .unwrap()
            .port();
        let error = dial(&addresses(&["127.0.0.1", "::1"]), port).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
    }
}
