//! Publishes batches, again and again if need be: every event has its `Id`, so a batch that was accepted
//! without our hearing of it is accepted once.

mod amqp;
mod http;

use super::input::Item;
use amqp::Amqp;
use herald_domain::id::EventId;
use http::Http;
use std::path::Path;
use std::time::Duration;
use tokio::time::Instant;

/// How long to go on without progress.
const PATIENCE: Duration = Duration::from_mins(1);
const MIN_REQUEST_TIME: Duration = Duration::from_secs(2);
/// How long one attempt may take.
const MAX_REQUEST_TIME: Duration = Duration::from_secs(30);
const FIRST_DELAY: Duration = Duration::from_millis(250);
const MAX_DELAY: Duration = Duration::from_secs(8);

/// Publishes to one Herald, in one of two ways.
#[derive(Debug)]
pub(super) enum Producer {
    Http(Http),
    Amqp(Box<Amqp>),
}

/// What became of an attempt.
enum Answer {
    Accepted(Vec<EventId>),
    Refused(String),
    TryAgain { reason: String, after: Option<Duration> },
}

impl Producer {
    pub(super) fn http(url: &str, key: &str) -> anyhow::Result<Self> {
        Http::new(url, key).map(Self::Http)
    }

    pub(super) fn amqp(url: &str, ca: Option<&Path>) -> anyhow::Result<Self> {
        Ok(Self::Amqp(Box::new(Amqp::new(url, ca)?)))
    }

    /// Publishes a batch, until it is accepted, refused, or patience ends. `waiting` is told why it takes
    /// longer. The error is for people, in several lines.
    pub(super) async fn publish(&self, batch: &[Item], waiting: impl Fn(&str)) -> Result<Vec<EventId>, String> {
        let began = Instant::now();
        let mut delay = FIRST_DELAY;
        loop {
            // However late it is, an attempt gets the time that one needs.
            let timeout = PATIENCE
                .saturating_sub(began.elapsed())
                .clamp(MIN_REQUEST_TIME, MAX_REQUEST_TIME);
            let (reason, after) = match self.attempt(batch, timeout).await {
                Answer::Accepted(ids) => return Ok(ids),
                Answer::Refused(why) => return Err(why),
                Answer::TryAgain { reason, after } => (reason, after),
            };
            let spent = began.elapsed();
            let left = PATIENCE.saturating_sub(spent);
            let wait = delay.min(left).max(after.unwrap_or_default());
            if left.is_zero() || wait > left {
                let asked = after
                    .filter(|after| *after > left)
                    .map(|after| format!(" and asked to wait {} s", after.as_secs()));
                return Err(format!(
                    "gave up after {} s without progress: {reason}{}",
                    spent.as_secs(),
                    asked.unwrap_or_default()
                ));
            }
            waiting(&format!("{reason}; trying again in {:.1} s", wait.as_secs_f64()));
            tokio::time::sleep(wait).await;
            delay = (delay * 2).min(MAX_DELAY);
        }
    }

    async fn attempt(&self, batch: &[Item], timeout: Duration) -> Answer {
        match self {
            Self::Http(http) => http.attempt(batch, timeout).await,
            Self::Amqp(amqp) => amqp.attempt(batch, timeout).await,
        }
    }
}

/// A fault on a line of its own, with where the event is in the input.
fn fault_line(item: Option<&Item>, pointer: &str, rule: &str, detail: &str) -> String {
    let line = item.map(|item| format!("line {}: ", item.line)).unwrap_or_default();
    let space = if pointer.is_empty() { "" } else { " " };
    format!("\n  {line}{pointer}{space}({rule}) {detail}")
}
