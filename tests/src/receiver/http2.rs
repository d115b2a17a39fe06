//! HTTP/2: the same scripts, each request a stream of one connection.

use super::answer::{After, Manner};
use super::{Answer, Busy, Request, Shared};
use bytes::{Bytes, BytesMut};
use h2::server::SendResponse;
use h2::{Reason, RecvStream};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio_rustls::server::TlsStream;

/// How many headers are more than anybody takes: some megabytes.
const ENDLESS: usize = 50_000;

pub(super) async fn serve(wire: TlsStream<TcpStream>, connection: u64, shared: Arc<Shared>) {
    let mut builder = h2::server::Builder::new();
    match shared.streams.load(Ordering::Relaxed) {
        0 => {}
        streams => drop(builder.max_concurrent_streams(streams)),
    }
    let Ok(mut streams) = builder.handshake(wire).await else {
        return;
    };
    let (ask, mut asked) = mpsc::unbounded_channel();
    loop {
        tokio::select! {
            stream = streams.accept() => {
                // An error means that the other side went away, which is its right.
                let Some(Ok((request, respond))) = stream else { return };
                let (shared, ask) = (Arc::clone(&shared), ask.clone());
                tokio::spawn(async move {
                    if let Some(answer) = serve_stream(request, connection, &shared).await {
                        drop(answer.give_stream(respond, &ask).await);
                    }
                });
            }
            Some(after) = asked.recv() => match after {
                // Says so, and ends once all answers are out.
                After::Close => streams.graceful_shutdown(),
                After::Freeze => std::future::pending().await,
                After::NextRequest | After::Reset => {}
            }
        }
    }
}

/// Reads a request and records it.
async fn serve_stream(
    request: http::Request<RecvStream>,
    connection: u64,
    shared: &Arc<Shared>,
) -> Option<RecordedRequest> {
    let (head, mut incoming) = request.into_parts();
    let mut body = BytesMut::new();
    while let Some(data) = incoming.data().await {
        let data = data.ok()?;
        incoming.flow_control().release_capacity(data.len()).ok()?;
        body.extend_from_slice(&data);
    }
    let path = head.uri.path_and_query().map_or("/", http::uri::PathAndQuery::as_str);
    let request = Request {
        method: head.method.to_string(),
        path: path.to_owned(),
        headers: head.headers,
        body: body.freeze(),
        at: Instant::now(),
        version: head.version,
        connection,
        repeat: 0,
    };
    let (answer, busy) = shared.record(request);
    Some(RecordedRequest { answer, busy })
}

/// A request that was recorded and is to be answered.
struct RecordedRequest {
    answer: Answer,
    busy: Busy,
}

impl RecordedRequest {
    /// Gives the answer, and asks for what is to become of the connection.
    async fn give_stream(
        self,
        mut respond: SendResponse<Bytes>,
        ask: &mpsc::UnboundedSender<After>,
    ) -> Result<(), h2::Error> {
        let Self { answer, busy } = self;
        answer.until_due().await;
        match answer.manner {
            Manner::Freeze => {
                drop(ask.send(After::Freeze));
                // The stream would be reset if its handle were dropped.
                std::future::pending::<()>().await;
            }
            Manner::Reset => respond.send_reset(Reason::INTERNAL_ERROR),
            Manner::Refuse => respond.send_reset(Reason::REFUSED_STREAM),
            Manner::WantHttp1 => respond.send_reset(Reason::HTTP_1_1_REQUIRED),
            // Until the other side has enough.
            Manner::Hang | Manner::DripHead | Manner::EndlessInterim => {
                std::future::poll_fn(|context| respond.poll_reset(context)).await?;
            }
            Manner::AtOnce | Manner::DripBody | Manner::Close | Manner::EndlessHeaders | Manner::EndlessBody => {
                drop(busy);
                let mut stream = respond.send_response(answer.stream_head(), answer.body.is_empty())?;
                if answer.manner == Manner::Close {
                    drop(ask.send(After::Close));
                }
                if !answer.body.is_empty() {
                    stream.send_data(Bytes::from(answer.body), true)?;
                }
            }
        }
        Ok(())
    }
}

impl Answer {
    fn stream_head(&self) -> http::Response<()> {
        let mut head = http::Response::builder().status(self.status);
        for (name, value) in &self.headers {
            head = head.header(name, value);
        }
        if self.manner == Manner::EndlessHeaders {
            for number in 0..ENDLESS {
                head = head.header(
                    format!("x-filling-{}", number % 1000),
                    "0123456789012345678901234567890123456789",
                );
            }
        }
        head.body(()).expect("a well-formed head")
    }
}
