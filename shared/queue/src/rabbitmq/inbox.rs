//! The inbox: messages that were received over one channel and are not acknowledged.
//!
//! A generation begins with each channel. Tags of an earlier generation mean nothing to the broker any more: it hands
//! their messages out again. So the inbox is emptied, and acknowledgements of these messages are void.

use crate::metrics::InHand;
use crate::{Received, Tag};
use futures_util::FutureExt;
use lapin::Channel;
use lapin::options::BasicAckOptions;
use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::{Notify, watch};

/// How long an acknowledgement may take to be written. A connection that takes longer is dead.
const ACKNOWLEDGE: Duration = Duration::from_secs(5);

/// The messages that have arrived and are not acknowledged, shared by dispatch and the connection's task.
#[derive(Debug, Default)]
pub(super) struct Inbox {
    state: Mutex<State>,
    arrived: Notify,
    acknowledged: Notify,
    /// An acknowledgement could not be sent.
    broken: Notify,
    /// Nothing is to be received.
    paused: watch::Sender<bool>,
    /// The mean number of events of the last messages.
    mean: Mutex<Mean>,
}

/// A mean in which a message counts for little after some hundred others.
#[derive(Debug)]
struct Mean(f64);

impl Default for Mean {
    fn default() -> Self {
        Self(1.0)
    }
}

impl Mean {
    #[expect(clippy::cast_precision_loss, reason = "a message has a few thousand at most")]
    fn add(&mut self, events: usize) {
        self.0 += (events as f64 - self.0) / 64.0;
    }
}

#[derive(Debug, Default)]
struct State {
    generation: u64,
    channel: Option<Channel>,
    arrived: VecDeque<Received>,
    /// Tags count from 1 with each generation, so these are also how many.
    received: i64,
    acknowledged: i64,
    /// The events and bytes of each that is not acknowledged, and of all.
    sizes: VecDeque<(usize, usize)>,
    events: usize,
    bytes: usize,
}

impl Inbox {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn begin(&self, channel: Channel) -> u64 {
        // A former connection may have left messages behind.
        let _former = self.broken.notified().now_or_never();
        let mut state = self.lock();
        state.channel = Some(channel);
        state.generation
    }

    /// Empties the inbox after the connection was lost: its messages come again.
    pub(super) fn end(&self) {
        let mut state = self.lock();
        *state = State {
            generation: state.generation + 1,
            ..State::default()
        };
    }

    /// Puts in a message that has come. Returns how many bytes are in hand with it.
    pub(super) fn put(&self, received: Received) -> usize {
        let (events, bytes) = (received.origins.events(), received.body.len());
        self.mean.lock().unwrap_or_else(PoisonError::into_inner).add(events);
        let mut state = self.lock();
        state.received = received.tag.place;
        state.sizes.push_back((events, bytes));
        state.events += events;
        state.bytes += bytes;
        state.arrived.push_back(received);
        let in_hand = state.bytes;
        drop(state);
        self.arrived.notify_one();
        in_hand
    }

    pub(super) fn take(&self, max_events: usize, max_bytes: usize) -> Vec<Received> {
        let mut state = self.lock();
        let (mut events, mut bytes) = (0, 0);
        let mut fits = 0;
        for received in &state.arrived {
            events += received.origins.events();
            bytes += received.body.len();
            if fits > 0 && (events > max_events || bytes > max_bytes) {
                break;
            }
            fits += 1;
        }
        state.arrived.drain(..fits).collect()
    }

    /// The messages that are received and not acknowledged.
    pub(super) fn in_hand(&self) -> InHand {
        let state = self.lock();
        InHand {
            messages: u64::try_from(state.received - state.acknowledged).unwrap_or(0),
            events: u64::try_from(state.events).unwrap_or(u64::MAX),
            bytes: u64::try_from(state.bytes).unwrap_or(u64::MAX),
        }
    }

    /// The mean number of events of the last messages.
    pub(super) fn mean_events(&self) -> f64 {
        self.mean.lock().unwrap_or_else(PoisonError::into_inner).0
    }

    fn in_hand_bytes(&self) -> usize {
        self.lock().bytes
    }

    pub(super) async fn arrived(&self) {
        self.arrived.notified().await;
    }

    pub(super) async fn broken(&self) {
        self.broken.notified().await;
    }

    /// Returns when no more than so many bytes are in hand.
    pub(super) async fn room(&self, bytes: usize) {
        while self.in_hand_bytes() > bytes {
            self.acknowledged.notified().await;
        }
    }

    pub(super) fn pause(&self, paused: bool) {
        self.paused
            .send_if_modified(|was| std::mem::replace(was, paused) != paused);
    }

    /// Returns when messages are to be received.
    pub(super) async fn wanted(&self) {
        self.until_paused(false).await;
    }

    /// Returns when no messages are to be received.
    pub(super) async fn unwanted(&self) {
        self.until_paused(true).await;
    }

    async fn until_paused(&self, wanted: bool) {
        let mut paused = self.paused.subscribe();
        drop(paused.wait_for(|paused| *paused == wanted).await);
    }

    pub(super) async fn acknowledge(&self, up_to: Tag) {
        let Some(channel) = self.acknowledging(up_to) else {
            return;
        };
        let multiple = BasicAckOptions { multiple: true };
        let tag = u64::try_from(up_to.place).unwrap_or(0);
        let sent = tokio::time::timeout(ACKNOWLEDGE, channel.basic_ack(tag, multiple)).await;
        if !matches!(sent, Ok(Ok(()))) && self.lock().generation == up_to.generation {
            self.broken.notify_one();
        }
    }

    /// The channel on which to acknowledge, if the tag belongs to it.
    fn acknowledging(&self, up_to: Tag) -> Option<Channel> {
        let mut state = self.lock();
        if state.generation != up_to.generation || up_to.place <= state.acknowledged {
            return None;
        }
        for _ in state.acknowledged..up_to.place {
            let (events, bytes) = state.sizes.pop_front().unwrap_or_default();
            state.events -= events;
            state.bytes -= bytes;
        }
        state.acknowledged = up_to.place;
        self.acknowledged.notify_one();
        state.channel.clone()
    }
}
