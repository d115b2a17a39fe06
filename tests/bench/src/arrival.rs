//! Waiting until what was accepted has arrived.

use crate::receiver::Receiver;
use crate::stack::Stack;
use anyhow::ensure;
use std::time::{Duration, Instant};

/// How long nothing may move before what is missing is given up.
pub(crate) const STANDSTILL: Duration = Duration::from_secs(30);

const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// Waits until all subscriptions have so many events.
pub(crate) async fn arrival(stack: &mut Stack, receiver: &Receiver, accepted: u64) -> anyhow::Result<()> {
    arrival_seen(stack, receiver, accepted, |_complete| {}).await
}

/// [`arrival`], and `see` is told at every look how many events are complete.
pub(crate) async fn arrival_seen(
    stack: &mut Stack,
    receiver: &Receiver,
    accepted: u64,
    mut see: impl FnMut(u64),
) -> anyhow::Result<()> {
    let (mut last, mut moved) = (receiver.tally(), Instant::now());
    see(last.complete);
    while last.complete < accepted {
        stack.check()?;
        tokio::time::sleep(LOOK_AGAIN).await;
        let tally = receiver.tally();
        if tally.delivered > last.delivered {
            moved = Instant::now();
        }
        last = tally;
        see(last.complete);
        ensure!(
            moved.elapsed() < STANDSTILL,
            "{} of {accepted} accepted events are missing, and nothing has arrived for {} s",
            accepted - last.complete,
            STANDSTILL.as_secs()
        );
    }
    ensure!(
        last.complete == accepted,
        "{} events arrived, and only {accepted} were accepted",
        last.complete
    );
    Ok(())
}

/// Has the disk write what was left to be written, so that what is measured next need not wait for it.
pub(crate) fn settle() {
    rustix::fs::sync();
}
