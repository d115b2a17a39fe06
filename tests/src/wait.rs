//! Level-triggered waiting: look at the state until it is what it should be, or say what was missing.

use std::time::{Duration, Instant};

/// How long anything may take that should be nearly immediate. Generous, because the machine may be
/// busy with other tests; nothing waits for longer than it must.
pub const PATIENCE: Duration = Duration::from_mins(1);

const INTERVAL: Duration = Duration::from_millis(20);

/// Looks until there is something, and panics at the deadline with `what` was waited for.
pub async fn wait_until<T, L>(what: &str, within: Duration, mut look: L) -> T
where
    L: AsyncFnMut() -> Option<T>,
{
    let deadline = Instant::now() + within;
    loop {
        if let Some(found) = look().await {
            return found;
        }
        assert!(Instant::now() < deadline, "after {within:?} still not: {what}");
        tokio::time::sleep(INTERVAL).await;
    }
}

/// [`wait_until`] a condition holds.
pub async fn wait_for<L>(what: &str, within: Duration, mut holds: L)
where
    L: AsyncFnMut() -> bool,
{
    wait_until(what, within, async || holds().await.then_some(())).await;
}
