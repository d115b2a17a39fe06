//! A subscriber that does not behave.

use anyhow::Context;
use bytes::Bytes;
use futures_util::stream;
use http::{Request, Response, StatusCode};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::task::AbortHandle;

/// How long one that hangs takes for its answer.
pub(crate) const HANG: Duration = Duration::from_secs(25);

/// How long one that drips waits before each byte.
const DRIP: Duration = Duration::from_millis(500);

/// How a bad endpoint misbehaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Fault {
    /// It answers 200 at once.
    None,
    /// It answers 200 after [`HANG`].
    Hangs,
    /// It answers 500 at once.
    Fails,
    /// It answers 200 at once, with a body that comes byte by byte and has no end.
    Drips,
    /// It reads the request and resets the connection.
    Resets,
}

impl Fault {
    /// Every one, the missing one first.
    pub(crate) const ALL: [Self; 5] = [Self::None, Self::Hangs, Self::Fails, Self::Drips, Self::Resets];
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::None => "healthy",
            Self::Hangs => "hangs 25 s",
            Self::Fails => "answers 500",
            Self::Drips => "drips its body",
            Self::Resets => "resets the connection",
        })
    }
}

/// A running one; dropping it closes its listener.
#[derive(Debug)]
pub(crate) struct BadReceiver {
    address: SocketAddr,
    listening: AbortHandle,
}

impl BadReceiver {
    pub(crate) async fn start(fault: Fault) -> anyhow::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await.context("a free port")?;
        let address = listener.local_addr()?;
        let listening = tokio::spawn(listen(listener, fault)).abort_handle();
        Ok(Self { address, listening })
    }

    /// Where its messages go.
    pub(crate) fn url(&self) -> String {
        format!("http://{}/", self.address)
    }
}

impl Drop for BadReceiver {
    fn drop(&mut self) {
        self.listening.abort();
    }
}

async fn listen(listener: TcpListener, fault: Fault) {
    while let Ok((stream, _)) = listener.accept().await {
        stream.set_nodelay(true).expect("a connected socket");
        if fault == Fault::Resets {
            // Closing it then discards what is unsent, and says so with a reset.
            stream.set_zero_linger().expect("a connected socket");
        }
        tokio::spawn(async move {
            let answer = service_fn(|request| answer(fault, request));
            // Connections end when their client does, or when the fault is to end them.
            drop(
                http1::Builder::new()
                    .serve_connection(TokioIo::new(stream), answer)
                    .await,
            );
        });
    }
}

type Body = UnsyncBoxBody<Bytes, io::Error>;

async fn answer(fault: Fault, request: Request<Incoming>) -> io::Result<Response<Body>> {
    let read = request.into_body().collect().await;
    read.map_err(io::Error::other)?;
    let mut response = Response::new(empty());
    match fault {
        Fault::None => {}
        Fault::Hangs => tokio::time::sleep(HANG).await,
        Fault::Fails => *response.status_mut() = StatusCode::INTERNAL_SERVER_ERROR,
        Fault::Drips => *response.body_mut() = dripping(),
        Fault::Resets => return Err(io::ErrorKind::ConnectionReset.into()),
    }
    Ok(response)
}

fn empty() -> Body {
    Full::default().map_err(|never| match never {}).boxed_unsync()
}

fn dripping() -> Body {
    let drops = stream::unfold((), async |()| {
        tokio::time::sleep(DRIP).await;
        Some((Ok(Frame::data(Bytes::from_static(b"."))), ()))
    });
    StreamBody::new(drops).boxed_unsync()
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpStream;

    /// What comes for a request, up to and with `end`, or how the connection ended before that.
    async fn ask(fault: Fault, end: &str) -> io::Result<String> {
        let receiver = BadReceiver::start(fault).await.unwrap();
        let mut stream = TcpStream::connect(receiver.address).await?;
        stream
            .write_all(b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\n\r\n{}")
            .await?;
        let mut answer = Vec::new();
        while !answer.ends_with(end.as_bytes()) {
            answer.push(stream.read_u8().await?);
        }
        Ok(String::from_utf8(answer).unwrap())
    }

    #[tokio::test]
    async fn each_fault_is_what_it_says() {
        for (fault, status) in [(Fault::None, "200"), (Fault::Fails, "500"), (Fault::Drips, "200")] {
            let head = ask(fault, "\r\n\r\n").await.unwrap();
            assert!(head.starts_with(&format!("HTTP/1.1 {status} ")), "{fault}: {head}");
        }
        assert!(ask(Fault::Drips, "\r\n\r\n1\r\n.\r\n1\r\n.\r\n").await.is_ok());
        let reset = ask(Fault::Resets, "H").await.unwrap_err();
        assert_eq!(reset.kind(), io::ErrorKind::ConnectionReset);
    }
}
