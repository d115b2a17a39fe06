//! A watch on the broker's confirms.

use super::{MAX_WAIT, PUBLISHER};
use herald_telemetry::health::Health;
use tokio::time::Instant;

/// Watches whether confirms keep coming, and reports to the health when that changes.
#[derive(Debug)]
pub(super) struct Pulse<'a> {
    health: &'a Health,
    last: Instant,
    said: Option<&'static str>,
    /// Whether a message has waited for its confirm for longer than a caller does.
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

    /// Takes note that a confirm came, or that a message went out while no other was under way.
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
