//! The window: how many bytes are received ahead of what is recorded. RabbitMQ itself can only bound the number of
//! messages.
//!
//! A subscription begins with few messages. It is widened to as many as fit into the budget, by the size of the last
//! ones. When the bytes in hand reach the budget, the subscription is ended until half of them are recorded. Messages
//! that RabbitMQ was about to send then go back into its queue, and may come behind others. Messages that it has sent
//! still come. If these are as much again, as may happen when large messages follow small ones, all messages are given
//! back and received in smaller portions.

/// The most messages of any size that are received ahead, about a batch of dispatch.
const MOST: u16 = 500;

/// How many are received ahead while their size is not known. So many of the largest messages of ingest fill the limit.
const FIRST: u16 = 16;

/// How many times wider a subscription may be than the one before.
const STEP: u16 = 8;

/// What to do after a message has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Advice {
    /// Go on receiving.
    GoOn,
    /// Subscribe anew: now more messages may be on their way, or none before there is room.
    Anew,
    /// Give back all messages in hand.
    GiveBack,
}

/// The window of one consumer.
#[derive(Debug)]
pub(super) struct Window {
    /// The number of bytes in hand at which no more messages are asked for.
    budget: usize,
    prefetch: u16,
    /// How many messages have come with this prefetch.
    received: u16,
    /// The mean of the last few messages' sizes.
    typical: usize,
}

impl Window {
    pub(super) fn new(budget: usize) -> Self {
        Self {
            budget,
            prefetch: FIRST,
            received: 0,
            typical: 0,
        }
    }

    /// The most bytes that may be in hand when a subscription begins.
    pub(super) fn room(&self) -> usize {
        self.budget / 2
    }

    /// How many messages a subscription that begins now is to have on their way.
    pub(super) fn subscribe(&mut self) -> u16 {
        if self.received > 0 {
            self.prefetch = self.fitting().min(self.prefetch.saturating_mul(STEP));
        }
        self.received = 0;
        self.prefetch
    }

    /// Takes note of a message of that size. `in_hand` is the number of bytes in hand with it.
    pub(super) fn received(&mut self, bytes: usize, in_hand: usize) -> Advice {
        self.received = self.received.saturating_add(1);
        self.typical = self.typical - self.typical / 8 + bytes / 8;
        if in_hand > 2 * self.budget {
            Advice::GiveBack
        } else if in_hand >= self.budget || (self.received >= self.prefetch && self.fitting() / 2 >= self.prefetch) {
            Advice::Anew
        } else {
            Advice::GoOn
        }
    }

    fn fitting(&self) -> u16 {
        let fitting = self.budget / self.typical.max(1);
        u16::try_from(fitting).unwrap_or(MOST).clamp(1, MOST)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BUDGET: usize = 64 << 20;
    const LARGE: usize = 8 << 20;

    /// Takes messages of those sizes from a broker that sends as many as the window lets it, all of them before
    /// one is recorded; how often they were given back, and the most that was in hand.
    fn run(window: &mut Window, sizes: impl IntoIterator<Item = usize>) -> (usize, usize) {
        let (mut given_back, mut most) = (0, 0);
        let mut sizes = sizes.into_iter().peekable();
        while sizes.peek().is_some() {
            let prefetch = window.subscribe();
            let mut in_hand = 0;
            for size in sizes.by_ref().take(prefetch.into()) {
                in_hand += size;
                most = most.max(in_hand);
                if window.received(size, in_hand) == Advice::GiveBack {
                    given_back += 1;
                    break;
                }
            }
        }
        (given_back, most)
    }

    #[test]
    fn small_messages_are_soon_received_by_the_batch() {
        let mut window = Window::new(BUDGET);
        let advice: Vec<_> = (1..=16).map(|n| window.received(700, 700 * n)).collect();
        assert_eq!(advice.iter().position(|advice| *advice == Advice::Anew), Some(15));
        assert_eq!(window.subscribe(), 128);
        run(&mut window, vec![700; 1000]);
        assert_eq!(window.subscribe(), MOST);
        assert!((0..1000).all(|_| window.received(700, 700) == Advice::GoOn));
    }

    #[test]
    fn the_largest_messages_never_exceed_the_limit() {
        let mut window = Window::new(BUDGET);
        let (given_back, most) = run(&mut window, vec![LARGE; 1000]);
        assert_eq!(given_back, 0);
        assert!(most <= 2 * BUDGET, "{most}");
        assert!(window.subscribe() <= 10);
    }

    #[test]
    fn large_ones_behind_small_ones_are_given_back_once() {
        let mut window = Window::new(BUDGET);
        run(&mut window, vec![700; 2000]);
        let (given_back, most) = run(&mut window, vec![LARGE; 500]);
        assert_eq!(given_back, 1);
        assert!(most <= 2 * BUDGET + LARGE, "{most}");
    }

    #[test]
    fn a_large_one_now_and_then_is_no_reason_to_give_back() {
        let mut window = Window::new(BUDGET);
        run(&mut window, vec![700; 2000]);
        let mixed = (0..5000).map(|n| if n % 100 == 50 { LARGE } else { 700 });
        let (given_back, most) = run(&mut window, mixed);
        assert_eq!(given_back, 0);
        assert!(most < BUDGET, "{most}");
    }

    #[test]
    fn what_fills_the_budget_waits_for_room() {
        let mut window = Window::new(BUDGET);
        assert_eq!(window.received(700, BUDGET - 1), Advice::GoOn);
        assert_eq!(window.received(700, BUDGET), Advice::Anew);
        assert_eq!(window.received(700, 2 * BUDGET), Advice::Anew);
        assert_eq!(window.received(700, 2 * BUDGET + 1), Advice::GiveBack);
        assert_eq!(window.room(), BUDGET / 2);
    }
}
