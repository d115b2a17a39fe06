//! The producer: keep-alive connections that publish as fast as they are allowed to.
//!
//! Every event needs a permit. In a closed loop the receiver gives one back for each event that has
//! arrived; in an open loop a clock gives them, whatever has become of the events before.

use crate::event::Template;
use anyhow::{Context, bail, ensure};
use bytes::Bytes;
use http::{HeaderValue, Request, StatusCode, header};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

/// How many requests are in flight at the most.
pub(crate) const CONNECTIONS: usize = 128;

/// How long to wait before an event that was refused is sent again.
const AGAIN: Duration = Duration::from_millis(20);

#[derive(Debug)]
pub(crate) struct Generator {
    work: Arc<Work>,
    workers: JoinSet<anyhow::Result<()>>,
}

/// What a generator has sent.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sent {
    /// Events that were answered with 202.
    pub(crate) accepted: u64,
    /// Answers 429 and 503; their events were sent again.
    pub(crate) refused: u64,
}

#[derive(Debug)]
struct Work {
    address: SocketAddr,
    authorization: HeaderValue,
    template: Template,
    permits: Arc<Semaphore>,
    next: AtomicUsize,
    accepted: AtomicU64,
    refused: AtomicU64,
}

impl Generator {
    /// Connects, and publishes with every permit, numbering the events from `first`.
    pub(crate) async fn start(
        (address, key): (SocketAddr, &str),
        template: Template,
        permits: Arc<Semaphore>,
        first: usize,
    ) -> anyhow::Result<Self> {
        let work = Arc::new(Work {
            address,
            authorization: format!("Bearer {key}").parse().context("a key")?,
            template,
            permits,
            next: AtomicUsize::new(first),
            accepted: AtomicU64::new(0),
            refused: AtomicU64::new(0),
        });
        let mut workers = JoinSet::new();
        for _ in 0..CONNECTIONS {
            let (work, connection) = (Arc::clone(&work), connect(address).await?);
            workers.spawn(async move { work.run(connection).await });
        }
        Ok(Self { work, workers })
    }

    /// What was sent so far.
    pub(crate) fn sent(&self) -> Sent {
        Sent {
            accepted: self.work.accepted.load(Ordering::Relaxed),
            refused: self.work.refused.load(Ordering::Relaxed),
        }
    }

    /// Sends nothing more, and returns when everything is answered.
    pub(crate) async fn finish(mut self) -> anyhow::Result<Sent> {
        self.work.permits.close();
        while let Some(ended) = self.workers.join_next().await {
            ended.context("a connection's task")??;
        }
        Ok(self.sent())
    }

    /// The first error of a connection, if there is one.
    pub(crate) fn check(&mut self) -> anyhow::Result<()> {
        // None ends by itself before the permits are closed, except by an error.
        match self.workers.try_join_next() {
            Some(ended) => ended.context("a connection's task")?,
            None => Ok(()),
        }
    }
}

impl Work {
    async fn run(&self, mut connection: SendRequest<Full<Bytes>>) -> anyhow::Result<()> {
        while let Ok(permit) = self.permits.acquire().await {
            permit.forget();
            let number = self.next.fetch_add(1, Ordering::Relaxed);
            let event = self.template.event(number);
            while !self.publish(&mut connection, event.clone()).await? {
                self.refused.fetch_add(1, Ordering::Relaxed);
                tokio::time::sleep(AGAIN).await;
            }
            self.accepted.fetch_add(1, Ordering::Relaxed);
        }
        Ok(())
    }

    /// Whether it was accepted.
    async fn publish(&self, connection: &mut SendRequest<Full<Bytes>>, event: Bytes) -> anyhow::Result<bool> {
        let request = Request::post("/v1/events")
            .header(header::HOST, "127.0.0.1")
            .header(header::AUTHORIZATION, &self.authorization)
            .header(header::CONTENT_TYPE, "application/json")
            .body(Full::new(event))?;
        let response = match connection.send_request(request).await {
            Ok(response) => response,
            Err(error) => bail!("publishing to {}: {error}", self.address),
        };
        let status = response.status();
        let body = response.into_body().collect().await?.to_bytes();
        if matches!(status, StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE) {
            connection.ready().await?;
            return Ok(false);
        }
        ensure!(
            status == StatusCode::ACCEPTED,
            "{status}: {}",
            String::from_utf8_lossy(&body)
        );
        connection.ready().await?;
        Ok(true)
    }
}

async fn connect(address: SocketAddr) -> anyhow::Result<SendRequest<Full<Bytes>>> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    let (sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    // Its errors reach whoever sends.
    tokio::spawn(connection);
    Ok(sender)
}

/// Times at which events are meant to be sent, evenly spread.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Schedule {
    /// When the first event is sent.
    pub(crate) begins: Instant,
    /// Events a second.
    pub(crate) rate: u32,
}

impl Schedule {
    /// When the event at that position is meant to be sent.
    pub(crate) fn at(&self, position: usize) -> Instant {
        let position = u32::try_from(position).expect("schedules are short");
        self.begins + Duration::from_secs(1) * position / self.rate
    }

    /// Gives so many permits, each at its time. On a thread of its own, because the runtime's clock
    /// counts whole milliseconds.
    pub(crate) fn keep(self, count: usize, permits: Arc<Semaphore>) {
        std::thread::spawn(move || {
            for position in 0..count {
                std::thread::sleep(self.at(position).saturating_duration_since(Instant::now()));
                permits.add_permits(1);
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_schedule_is_evenly_spread() {
        let begins = Instant::now();
        let schedule = Schedule { begins, rate: 300 };
        assert_eq!(schedule.at(0), begins);
        assert_eq!(schedule.at(600), begins + Duration::from_secs(2));
        assert_eq!(schedule.at(6_000_000), begins + Duration::from_secs(20_000));
    }
}
