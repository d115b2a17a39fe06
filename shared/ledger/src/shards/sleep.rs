//! How long the machine has slept. An [`Instant`] stands still while a machine is suspended, and a lease runs out.

use herald_domain::worker::Uptime;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// How long a reading is used again. An attempt that begins so soon after the machine woke counts as one that had
/// begun before.
const FRESH: Duration = Duration::from_millis(50);

/// The kernel tells its time in hundredths of a second, so a difference of that much need not be sleep.
const LEAST: Duration = Duration::from_millis(200);

/// When this was first asked, and how long the machine had been up then, sleep included.
static BEGAN: LazyLock<(Instant, Option<Duration>)> = LazyLock::new(|| (Instant::now(), up()));

/// What was read last, in milliseconds, and when, in milliseconds since [`BEGAN`].
static SLEPT: AtomicU64 = AtomicU64::new(0);
static READ_AT: AtomicU64 = AtomicU64::new(0);

/// The moment now, on a clock that goes on while the machine sleeps.
pub fn uptime() -> Uptime {
    Uptime {
        instant: Instant::now(),
        slept: slept(),
    }
}

/// For how long the machine has slept since this was first asked. Only Linux tells; elsewhere a machine is taken not to
/// sleep.
fn slept() -> Duration {
    let (began, up_before) = *BEGAN;
    let Some(up_before) = up_before else {
        return Duration::ZERO;
    };
    let awake = began.elapsed();
    let now = millis(awake);
    if now.saturating_sub(READ_AT.load(Ordering::Relaxed)) >= millis(FRESH)
        && let Some(up) = up()
    {
        SLEPT.store(
            millis(difference(up.saturating_sub(up_before), awake)),
            Ordering::Relaxed,
        );
        READ_AT.store(now, Ordering::Relaxed);
    }
    Duration::from_millis(SLEPT.load(Ordering::Relaxed))
}

/// The part of the time that passed for which an [`Instant`] stood still.
fn difference(passed: Duration, awake: Duration) -> Duration {
    let slept = passed.saturating_sub(awake);
    if slept < LEAST { Duration::ZERO } else { slept }
}

/// How long the machine has been up, sleep included.
fn up() -> Option<Duration> {
    seconds(&std::fs::read_to_string("/proc/uptime").ok()?)
}

/// The first of the numbers in `/proc/uptime`.
fn seconds(text: &str) -> Option<Duration> {
    let seconds: f64 = text.split_whitespace().next()?.parse().ok()?;
    Duration::try_from_secs_f64(seconds).ok()
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sleep_is_what_passed_and_was_not_lived_through() {
        let second = Duration::from_secs;
        assert_eq!(difference(second(70), second(10)), second(60));
        assert_eq!(difference(second(10), second(70)), Duration::ZERO);
        assert_eq!(difference(Duration::from_millis(10_010), second(10)), Duration::ZERO);
        assert_eq!(
            seconds("350735.47 234388.90\n"),
            Some(Duration::from_millis(350_735_470))
        );
        assert_eq!(seconds("-1 0"), None);
        assert_eq!(seconds(""), None);
        assert_eq!(slept(), Duration::ZERO, "a test is over sooner than a machine sleeps");
    }
}
