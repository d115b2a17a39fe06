//! Which connections are kept for the next request, where not all can be.
//!
//! A host that was sent `n` requests at a time may have `n` connections that wait for more, until they have
//! waited long enough. What all hosts may have so is bounded: what would go beyond that is sent over HTTP/1.1
//! with `Connection: close` (RFC 9112, 9.6), so its connection ends with it. Who comes first keeps his; whoever
//! is not sent to any more makes room for others.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Where a connection leads: scheme, host and port, and whether it is of those that are kept apart.
pub(super) type Host = (Arc<str>, bool);

/// How often room is looked for.
const SWEEP_EVERY: Duration = Duration::from_secs(1);

/// What may be kept, of each host.
#[derive(Debug)]
pub(super) struct Kept {
    /// The most connections, over all hosts.
    most: usize,
    /// The longest that one waits for its next request.
    wait: Duration,
    hosts: HashMap<Host, Use>,
    /// The sum of all hosts' `most`.
    total: usize,
    swept_at: Option<Instant>,
}

#[derive(Debug)]
struct Use {
    /// Requests under way whose connection may be kept.
    under_way: usize,
    /// The most there have been at a time: so many connections may be there.
    most: usize,
    /// When the last began or ended.
    last: Instant,
}

impl Kept {
    /// Keeps at most so many, each for that long without a request.
    pub(super) fn new(most: usize, wait: Duration) -> Self {
        Self {
            most,
            wait,
            hosts: HashMap::new(),
            total: 0,
            swept_at: None,
        }
    }

    /// A request begins; whether its connection may be kept. If it may, its end is to be told.
    pub(super) fn begin(&mut self, host: &Host, now: Instant) -> bool {
        let grows = self.hosts.get(host).is_none_or(|host| host.under_way == host.most);
        if grows && self.total >= self.most {
            self.sweep(now);
        }
        let room = self.total < self.most;
        if grows && !room {
            return false;
        }
        let entry = self.hosts.entry(host.clone()).or_insert(Use {
            under_way: 0,
            most: 0,
            last: now,
        });
        entry.under_way += 1;
        entry.last = now;
        if entry.under_way > entry.most {
            entry.most = entry.under_way;
            self.total += 1;
        }
        true
    }

    /// A request whose connection may be kept is over.
    pub(super) fn end(&mut self, host: &Host, now: Instant) {
        if let Some(entry) = self.hosts.get_mut(host) {
            entry.under_way = entry.under_way.saturating_sub(1);
            entry.last = now;
        }
    }

    /// Forgets hosts whose connections have waited too long.
    fn sweep(&mut self, now: Instant) {
        let lately = |at: Instant| now.saturating_duration_since(at) < SWEEP_EVERY;
        if self.swept_at.is_some_and(lately) {
            return;
        }
        self.swept_at = Some(now);
        let wait = self.wait;
        self.hosts
            .retain(|_, host| host.under_way > 0 || now.saturating_duration_since(host.last) < wait);
        self.total = self.hosts.values().map(|host| host.most).sum();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const WAIT: Duration = Duration::from_secs(30);

    fn host(number: u8) -> Host {
        (format!("https://{number}.example:443").into(), false)
    }

    proptest! {
        #[test]
        fn what_is_kept_never_goes_beyond_the_most(
            most in 1usize..20, steps in prop::collection::vec((any::<bool>(), 0u8..8, 0u64..20_000), 1..300),
        ) {
            let mut kept = Kept::new(most, WAIT);
            let mut under_way: Vec<Host> = Vec::new();
            let mut now = Instant::now();
            for (begins, number, millis) in steps {
                now += Duration::from_millis(millis);
                if begins {
                    let host = host(number);
                    if kept.begin(&host, now) {
                        under_way.push(host);
                    }
                } else if !under_way.is_empty() {
                    let over = under_way.swap_remove(usize::from(number) % under_way.len());
                    kept.end(&over, now);
                }
                prop_assert!(kept.total <= most);
                prop_assert_eq!(kept.total, kept.hosts.values().map(|host| host.most).sum::<usize>());
                for (host, entry) in &kept.hosts {
                    prop_assert_eq!(entry.under_way, under_way.iter().filter(|other| *other == host).count());
                    prop_assert!(entry.under_way <= entry.most);
                }
            }
        }
    }

    #[test]
    fn whoever_is_not_sent_to_any_more_makes_room() {
        let mut kept = Kept::new(1, WAIT);
        let began = Instant::now();
        assert!(kept.begin(&host(1), began));
        kept.end(&host(1), began);
        assert!(!kept.begin(&host(2), began));
        assert!(kept.begin(&host(1), began), "what is there is used again");
        kept.end(&host(1), began);
        assert!(!kept.begin(&host(2), began + WAIT / 2));
        assert!(kept.begin(&host(2), began + WAIT));
        assert!(!kept.begin(&host(1), began + WAIT));
    }
}
