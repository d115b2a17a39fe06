//! Whether the broker keeps confirming.

use super::{MAX_WAIT, PUBLISHER};
use herald_telemetry::health::Health;
use tokio::time::Instant;

/// Whether confirms keep coming; tells health when that changes.
#[derive(Debug)]
pub(super) struct Pulse<'a> {
    health: &'a Health,
    last: Instant,
    said: Option<&'static str>,
    /// Something waits for its confirm longer than a caller would.
    pub(super) stopped: bool,
}

impl<'a> Pulse<'a> {
    pub(super) fn new(health: &'a Health) -> Self {
        Self {
            health,
            last: Instant::now(),
            said: None,
            stopped: false,
        }
    }

    /// A confirm came, or the first message since all were confirmed went out.
    pub(super) fn beat(&mut self) {
        self.last = Instant::now();
    }

    pub(super) fn look(&mut self, blocked: bool, idle: bool) {
        self.stopped = !idle && self.last.elapsed() > MAX_WAIT;
        let say = if blocked {
            Some("RabbitMQ blocks publishers: it is low on memory or disk")
        } else if self.stopped {
            Some("RabbitMQ does not confirm what is published")
        } else {
            None
        };
        if say != self.said {
            match say {
                Some(why) => self.health.failing(PUBLISHER, why),
                None => self.health.ok(PUBLISHER),
            }
            self.said = say;
        }
    }
}
