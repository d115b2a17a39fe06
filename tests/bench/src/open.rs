//! The open loop: events at times that are fixed beforehand, whatever has become of those before.

use crate::arrival::{STANDSTILL, arrival};
use crate::event::Template;
use crate::generator::{Generator, Schedule};
use crate::quantiles::Quantiles;
use crate::receiver::Receiver;
use crate::stack::Stack;
use crate::to_usize;
use anyhow::{Context, ensure};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::Semaphore;

/// An open loop: events are sent at a fixed rate, whether or not they arrive.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Open {
    /// When the first event is meant to be sent; now, if it is not given.
    pub(crate) begins: Option<Instant>,
    /// Events a second.
    pub(crate) rate: u32,
    /// How long it runs before it is measured, in seconds.
    pub(crate) warm_up: u32,
    /// How long it is measured, in seconds.
    pub(crate) measured: u32,
    /// How many events the receiver has had before.
    pub(crate) first: usize,
}

impl Open {
    /// How many events there are.
    pub(crate) fn count(&self) -> usize {
        to_usize(self.rate * (self.warm_up + self.measured))
    }

    /// Runs it until everything has arrived: how long each message took from when its event was meant to
    /// be sent.
    pub(crate) async fn run(
        self,
        stack: &mut Stack,
        receiver: &Receiver,
        template: Template,
    ) -> anyhow::Result<Quantiles> {
        let (skipped, count) = (to_usize(self.rate * self.warm_up), self.count());
        let permits = Arc::new(Semaphore::new(0));
        let generator = Generator::start(stack.entrance()?, template, Arc::clone(&permits), self.first).await?;
        receiver.keep_arrivals();
        let begins = self.begins.unwrap_or_else(Instant::now);
        let late = Instant::now().saturating_duration_since(begins);
        ensure!(
            late < Duration::from_secs(1),
            "it was to begin {} s ago",
            late.as_secs()
        );
        let schedule = Schedule {
            begins,
            rate: self.rate,
        };
        schedule.keep(count, permits);
        all_sent(stack, generator, schedule, count).await?;
        arrival(stack, receiver, u64::try_from(self.first + count)?).await?;
        let arrivals = receiver.arrivals().into_iter();
        let positions = arrivals.filter_map(|(number, at)| Some((number.checked_sub(self.first)?, at)));
        let measured = positions.filter(|(position, _)| *position >= skipped);
        let times = measured.map(|(position, at)| at.saturating_duration_since(schedule.at(position)));
        Quantiles::of(times.collect()).context("nothing was measured")
    }
}

/// Waits until the schedule is over and everything of it is accepted.
async fn all_sent(stack: &mut Stack, mut generator: Generator, schedule: Schedule, count: usize) -> anyhow::Result<()> {
    tokio::time::sleep_until(schedule.at(count).into()).await;
    let count = u64::try_from(count)?;
    let given_up = Instant::now() + STANDSTILL;
    while generator.sent().accepted < count {
        stack.check()?;
        generator.check()?;
        ensure!(
            Instant::now() < given_up,
            "only {} of {count} events are accepted",
            generator.sent().accepted
        );
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    generator.finish().await?;
    Ok(())
}
