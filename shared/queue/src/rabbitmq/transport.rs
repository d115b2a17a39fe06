//! The transport of a connection, which reads its bytes so that no message can end the connection.
//!
//! In AMQP short strings must be UTF-8, but no broker checks that. The client takes a short string that is not for a
//! broken frame and closes the connection. When it has connected again it gets the same message, and so for ever. It
//! also reads tables in tables by recursion, however deep. So frames are checked before the client sees them, and parts
//! that it could not read are changed in place, see [`mend`].

mod mend;

use async_rs::traits::{Executor, Reactor, RuntimeKit};
use async_rs::util::Task;
use async_rs::{Runtime, Tokio};
use futures_util::{AsyncRead, AsyncWrite, Stream};
use lapin::tcp::{AMQPUriTcpExt, AsyncTcpStream, OwnedTLSConfig};
use lapin::uri::AMQPUri;
use lapin::{Connection, ConnectionProperties};
use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

/// How much is read at a time, about a frame.
const CHUNK: usize = 128 * 1024;

/// The largest frame that is checked. RabbitMQ's own bound is 128 KiB unless it is configured otherwise.
const MAX_FRAME: usize = 1 << 20;

const HEADER: usize = 7;
const END: usize = 1;

/// Ends a connection from this side at once: nothing more is read.
#[derive(Debug, Clone, Default)]
pub(super) struct Valve(Arc<AtomicBool>);

impl Valve {
    pub(super) fn close(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    fn is_closed(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// Connects to the broker, over TLS if its URL says so.
pub(super) async fn connect(
    valve: Valve,
    uri: AMQPUri,
    properties: ConnectionProperties,
    tls: OwnedTLSConfig,
) -> lapin::Result<Connection> {
    let tokio = Tokio::current();
    let runtime = Runtime::new(Kit(tokio.clone()));
    let plain = Runtime::new(tokio);
    let connect = async move |uri: AMQPUri, _runtime: Runtime<Kit>| {
        let connected = uri.connect_with_config_async(tls.as_ref(), &plain).await;
        Ok(AsyncTcpStream::Plain(Readable::new(connected?, valve.clone())))
    };
    Connection::connector(uri, runtime, connect, properties).await
}

type Transport = AsyncTcpStream<<Tokio as Reactor>::TcpStream>;

/// A stream whose frames the client can read.
struct Readable<S> {
    inner: S,
    valve: Valve,
    frames: Frames,
    chunk: Vec<u8>,
}

impl<S> Readable<S> {
    fn new(inner: S, valve: Valve) -> Self {
        Self {
            inner,
            valve,
            frames: Frames::default(),
            chunk: vec![0; CHUNK],
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Readable<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        loop {
            if this.valve.is_closed() {
                return Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into()));
            }
            let given = this.frames.give(buffer);
            if given > 0 || buffer.is_empty() {
                return Poll::Ready(Ok(given));
            }
            let read = ready!(Pin::new(&mut this.inner).poll_read(cx, &mut this.chunk))?;
            if read == 0 {
                // The rest is a part of a frame, which the client cannot use either.
                return Poll::Ready(Ok(0));
            }
            this.frames.take(this.chunk.get(..read).unwrap_or_default());
        }
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Readable<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().inner).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().inner).poll_write_vectored(cx, slices)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().inner).poll_flush(cx)
    }

    fn poll_close(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().inner).poll_close(cx)
    }
}

/// The bytes that have come, cut into frames.
#[derive(Debug, Default)]
struct Frames {
    bytes: Vec<u8>,
    given: usize,
    /// The position up to which the client may read.
    seen: usize,
    /// How many bytes of a frame that is not checked are still to come.
    passing: usize,
}

impl Frames {
    /// Takes in bytes that were read.
    fn take(&mut self, read: &[u8]) {
        self.bytes.drain(..self.given);
        self.seen -= self.given;
        self.given = 0;
        self.bytes.extend_from_slice(read);
        while self.look() {}
    }

    /// Gives the client as many bytes as are ready for it.
    fn give(&mut self, buffer: &mut [u8]) -> usize {
        let there = self.bytes.get(self.given..self.seen).unwrap_or_default();
        let length = there.len().min(buffer.len());
        if let (Some(to), Some(from)) = (buffer.get_mut(..length), there.get(..length)) {
            to.copy_from_slice(from);
        }
        self.given += length;
        length
    }

    /// Checks the next frame, if it has come.
    fn look(&mut self) -> bool {
        let rest = self.bytes.get_mut(self.seen..).unwrap_or_default();
        if self.passing > 0 {
            let passed = self.passing.min(rest.len());
            self.passing -= passed;
            self.seen += passed;
            return passed > 0;
        }
        let Some((&mut [kind, _, _, a, b, c, d], after)) = rest.split_first_chunk_mut::<HEADER>() else {
            return false;
        };
        let length = usize::try_from(u32::from_be_bytes([a, b, c, d])).unwrap_or(usize::MAX);
        let whole = length.saturating_add(HEADER + END);
        if !mend::concerns(kind) || length > MAX_FRAME {
            self.passing = whole;
            return true;
        }
        if after.len() < length + END {
            return false;
        }
        if let Some(payload) = after.get_mut(..length) {
            mend::frame(kind, payload);
        }
        self.seen += whole;
        true
    }
}

/// Tokio, with these streams.
#[derive(Debug, Clone)]
struct Kit(Tokio);

impl RuntimeKit for Kit {}

impl Executor for Kit {
    type Task<T: Send + 'static> = <Tokio as Executor>::Task<T>;

    fn block_on<T, F: Future<Output = T>>(&self, future: F) -> T {
        self.0.block_on(future)
    }

    fn spawn<T: Send + 'static, F: Future<Output = T> + Send + 'static>(&self, future: F) -> Task<Self::Task<T>> {
        self.0.spawn(future)
    }

    fn spawn_blocking<T: Send + 'static, F: FnOnce() -> T + Send + 'static>(&self, work: F) -> Task<Self::Task<T>> {
        self.0.spawn_blocking(work)
    }
}

impl Reactor for Kit {
    type TcpStream = Readable<Transport>;
    type Sleep = <Tokio as Reactor>::Sleep;

    fn register<H: Read + Write + AsFd + AsRawFd + Send + 'static>(
        &self,
        socket: H,
    ) -> io::Result<impl AsyncRead + AsyncWrite + Send + Unpin + 'static> {
        self.0.register(socket)
    }

    fn sleep(&self, duration: Duration) -> Self::Sleep {
        self.0.sleep(duration)
    }

    fn interval(&self, duration: Duration) -> impl Stream<Item = Instant> + Send + 'static {
        self.0.interval(duration)
    }

    fn tcp_connect_addr(
        &self,
        address: SocketAddr,
    ) -> impl Future<Output = io::Result<Self::TcpStream>> + Send + 'static {
        let connecting = self.0.tcp_connect_addr(address);
        async move {
            Ok(Readable::new(
                AsyncTcpStream::Plain(connecting.await?),
                Valve::default(),
            ))
        }
    }
}

#[cfg(test)]
mod tests;
