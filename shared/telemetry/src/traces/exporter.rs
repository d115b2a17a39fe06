//! The task that sends spans to the collector.

use super::metrics::{Dropped, Metrics};
use super::{Error, Settings, Span, otlp};
use bytes::Bytes;
use opentelemetry_proto::tonic::resource::v1::Resource;
use reqwest::header::CONTENT_TYPE;
use reqwest::{Client, StatusCode, Url, redirect};
use std::pin::Pin;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

/// The most spans in one request: some 600 KB, made in a millisecond or two, in which a thread does nothing else.
const MAX_BATCH: usize = 1024;

/// How long the first span of a batch waits for others.
const LINGER: Duration = Duration::from_millis(500);

/// How long the collector may take for a request, OpenTelemetry's own default.
const TIMEOUT: Duration = Duration::from_secs(10);

/// The pauses before a batch that was not taken is sent again; after the last it is dropped.
const RETRY_AFTER: [Duration; 3] = [Duration::from_secs(1), Duration::from_secs(2), Duration::from_secs(4)];

/// How long the last spans may take once the process stops: less than it waits for its last tasks.
const FLUSH: Duration = Duration::from_secs(3);

/// Sends recorded spans to the collector.
#[derive(Debug)]
pub struct Exporter {
    spans: mpsc::Receiver<Span>,
    client: Client,
    url: Url,
    resource: Resource,
    metrics: Metrics,
    /// The last request was not taken, and the log says so.
    failing: bool,
}

/// Why the collector did not take a request.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error("the collector cannot be reached")]
    Transport(#[source] reqwest::Error),
    #[error("the collector answered {0}")]
    Status(StatusCode),
}

impl Failure {
    /// Whether the same request may be taken later, as OTLP has it.
    fn is_transient(&self) -> bool {
        match self {
            Self::Transport(_) => true,
            Self::Status(status) => matches!(status.as_u16(), 429 | 502 | 503 | 504),
        }
    }
}

impl Exporter {
    pub(super) fn new(settings: &Settings, spans: mpsc::Receiver<Span>, metrics: Metrics) -> Result<Self, Error> {
        let mut url = settings.endpoint.clone();
        url.path_segments_mut()
            .map_err(|()| Error::Endpoint)?
            .pop_if_empty()
            .extend(["v1", "traces"]);
        let client = Client::builder()
            .user_agent(concat!("Herald/", env!("CARGO_PKG_VERSION")))
            .redirect(redirect::Policy::none())
            .no_proxy()
            .timeout(TIMEOUT)
            .build()?;
        Ok(Self {
            spans,
            client,
            url,
            resource: otlp::resource(settings),
            metrics,
            failing: false,
        })
    }

    /// Exports until `stop`, and then what is left, for as long as there is time for that.
    ///
    /// The future is boxed, so that it is compiled here and not where it is spawned.
    pub fn run(self, stop: CancellationToken) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        Box::pin(self.export_until(stop))
    }

    async fn export_until(mut self, stop: CancellationToken) {
        let overdue = async {
            stop.cancelled().await;
            tokio::time::sleep(FLUSH).await;
        };
        tokio::select! {
            () = self.export_all(&stop) => {}
            () = overdue => tracing::warn!("the last spans were not exported: the collector took too long"),
        }
    }

    async fn export_all(&mut self, stop: &CancellationToken) {
        let mut batch = Vec::new();
        while self.spans.recv_many(&mut batch, MAX_BATCH).await > 0 {
            if batch.len() < MAX_BATCH {
                self.wait_for_more(&mut batch, stop).await;
            }
            let spans = batch.len();
            let body = Bytes::from(otlp::encode(&self.resource, batch.drain(..)));
            self.export(body, spans).await;
        }
        // Who recorded is gone, or there never was anybody: a process of one role may have nothing to tell.
        stop.cancelled().await;
    }

    async fn wait_for_more(&mut self, batch: &mut Vec<Span>, stop: &CancellationToken) {
        tokio::select! {
            () = tokio::time::sleep(LINGER) => {}
            () = stop.cancelled() => {}
        }
        while batch.len() < MAX_BATCH
            && let Ok(span) = self.spans.try_recv()
        {
            batch.push(span);
        }
    }

    async fn export(&mut self, body: Bytes, spans: usize) {
        for pause in RETRY_AFTER.map(Some).into_iter().chain([None]) {
            match self.send(body.clone()).await {
                Ok(rejected) => {
                    self.succeeded();
                    let rejected = rejected.min(spans);
                    self.metrics.exported(spans - rejected);
                    self.metrics.dropped(Dropped::ExportFailed, rejected);
                    return;
                }
                Err(failure) => {
                    self.failed(&failure);
                    match pause {
                        Some(pause) if failure.is_transient() => tokio::time::sleep(pause).await,
                        Some(_) | None => break,
                    }
                }
            }
        }
        self.metrics.dropped(Dropped::ExportFailed, spans);
    }

    /// How many spans the collector refused of those that it was sent.
    async fn send(&self, body: Bytes) -> Result<usize, Failure> {
        let transport = |error: reqwest::Error| Failure::Transport(error.without_url());
        let request = self
            .client
            .post(self.url.clone())
            .header(CONTENT_TYPE, "application/x-protobuf")
            .body(body);
        let answer = request.send().await.map_err(transport)?;
        let status = answer.status();
        let said = answer.bytes().await.map_err(transport)?;
        if status.is_success() {
            Ok(otlp::rejected(&said))
        } else {
            Err(Failure::Status(status))
        }
    }

    /// Said once, not with every batch.
    fn failed(&mut self, failure: &Failure) {
        if !std::mem::replace(&mut self.failing, true) {
            tracing::warn!(
                error = failure as &dyn std::error::Error,
                "spans cannot be exported; deliveries go on"
            );
        }
    }

    fn succeeded(&mut self) {
        if std::mem::take(&mut self.failing) {
            tracing::info!("spans are exported again");
        }
    }
}
