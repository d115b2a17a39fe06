//! Shares of what all lanes have in common: attempts, buffer and bytes.
//!
//! No limit is ever exceeded. Within the limits no lane and no account gets everything:
//! - a lane takes more only while it has less than a quarter of what is free;
//! - an eighth is reserved for lanes that answered fast of late, and another eighth for these and the lanes whose
//!   speed is not known: so the slow ones have at most three quarters, however many they are;
//! - the lanes of one account that are not fast take more only while they have less than three times what is
//!   free: at most three quarters, so that other accounts find room at once.

use super::speed::{Speed, Speeds};
use crate::id::{AccountId, SubscriptionId};
use std::collections::HashMap;

/// How much all lanes together may hold.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Attempts at a time beyond the first of each lane. A lane that is alone gets a fifth of them.
    pub in_flight: usize,
    /// Lanes that have an attempt under way: first attempts at a time.
    pub lanes_in_flight: usize,
    /// Fetched deliveries that wait in one lane, at least 1, and as many again that were just recorded.
    pub lane_buffer: usize,
    /// Deliveries that wait in all lanes, or are being read.
    pub buffered: usize,
    /// Bytes of payload that wait, are in flight or are being read: at least twice the largest payload.
    /// Every delivery counts by itself. Deliveries of one event share its payload while they wait, but the
    /// request of each is a copy.
    pub bytes: usize,
    /// Attempts whose outcome is not in the ledger yet; at this number no attempt begins.
    pub recording: usize,
    /// Reads of the ledger at a time.
    pub fetches: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            in_flight: 1024,
            lanes_in_flight: 1024,
            lane_buffer: 128,
            buffered: 8192,
            bytes: 64 << 20,
            recording: 8192,
            fetches: 4,
        }
    }
}

impl Limits {
    /// How many retries may be in flight.
    pub(super) fn retries(&self) -> usize {
        let smaller = self.in_flight.min(self.lanes_in_flight);
        (smaller - smaller / 4).max(1)
    }

    /// How much the lanes of that speed and the slower ones may have together.
    fn for_speed(&self, speed: Speed) -> Use {
        let most = |limit: usize| limit - limit / 8 * speed as usize;
        Use {
            first: most(self.lanes_in_flight),
            more: most(self.in_flight),
            waiting: most(self.buffered),
            bytes: most(self.bytes),
        }
    }
}

/// How much one lane may have of something common of which `free` is left.
pub(super) fn share(free: usize) -> usize {
    free.div_ceil(4)
}

/// An amount of what is common: how much a lane or a group has, or may have.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Use {
    /// First attempts of lanes.
    pub(super) first: usize,
    /// Attempts beyond these.
    pub(super) more: usize,
    /// Deliveries that wait.
    pub(super) waiting: usize,
    /// Bytes of what waits and what is in flight.
    pub(super) bytes: usize,
}

impl Use {
    fn with(self, other: Self, both: impl Fn(usize, usize) -> usize) -> Self {
        Self {
            first: both(self.first, other.first),
            more: both(self.more, other.more),
            waiting: both(self.waiting, other.waiting),
            bytes: both(self.bytes, other.bytes),
        }
    }

    fn plus(self, other: Self) -> Self {
        self.with(other, |one, other| one + other)
    }

    fn minus(self, other: Self) -> Self {
        self.with(other, usize::saturating_sub)
    }
}

/// The lanes with which a lane shares: those of its group, and those of its speed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Member {
    /// The number of its account's group.
    pub(super) group: usize,
    pub(super) speed: Speed,
}

/// The lanes of one account.
#[derive(Debug, Default)]
struct Group {
    /// The account; none for the group of lanes whose account is not known yet.
    owner: Option<AccountId>,
    lanes: usize,
    /// What the lanes of the group have that are not fast.
    used: Use,
}

/// The group of lanes whose account is not known yet.
const STRANGERS: usize = 0;

/// How much each group and each speed has.
#[derive(Debug)]
pub(super) struct Shares {
    /// For each speed, what lanes as slow as that or slower may have.
    most: [Use; 3],
    by_speed: [Use; 3],
    /// What is being read.
    coming: Use,
    groups: Vec<Group>,
    by_owner: HashMap<AccountId, usize>,
    vacant: Vec<usize>,
    speeds: Speeds,
}

impl Shares {
    pub(super) fn new(limits: &Limits) -> Self {
        Self {
            most: Speed::ALL.map(|speed| limits.for_speed(speed)),
            by_speed: Default::default(),
            coming: Use::default(),
            groups: vec![Group::default()],
            by_owner: HashMap::new(),
            vacant: Vec::new(),
            speeds: Speeds::default(),
        }
    }

    /// What all lanes have.
    pub(super) fn total(&self) -> Use {
        let [fast, unknown, slow] = self.by_speed;
        fast.plus(unknown).plus(slow)
    }

    /// What is being read.
    pub(super) fn coming(&self) -> Use {
        self.coming
    }

    /// Counts in a lane that is new.
    pub(super) fn enter(&mut self, subscription: SubscriptionId) -> Member {
        self.groups[STRANGERS].lanes += 1;
        Member {
            group: STRANGERS,
            speed: self.speeds.of(subscription),
        }
    }

    /// Counts out a lane that has nothing.
    pub(super) fn leave(&mut self, member: Member) {
        let group = &mut self.groups[member.group];
        group.lanes -= 1;
        if group.lanes == 0
            && let Some(owner) = group.owner.take()
        {
            self.by_owner.remove(&owner);
            self.vacant.push(member.group);
        }
    }

    /// Moves a lane into the group of its account. Returns its new membership, or nothing if it is there already.
    pub(super) fn of_owner(&mut self, member: Member, owner: AccountId) -> Option<Member> {
        if self.groups[member.group].owner == Some(owner) {
            return None;
        }
        let (groups, vacant) = (&mut self.groups, &mut self.vacant);
        let group = *self.by_owner.entry(owner).or_insert_with(|| {
            let group = vacant.pop().unwrap_or_else(|| {
                groups.push(Group::default());
                groups.len() - 1
            });
            groups[group].owner = Some(owner);
            group
        });
        self.groups[group].lanes += 1;
        Some(Member { group, ..member })
    }

    /// Whether a group that a lane has just joined has more than its part of the memory.
    pub(super) fn is_over(&self, member: Member) -> bool {
        let (most, used) = (self.most[member.speed as usize], self.groups[member.group].used);
        let over = |used: usize, most: usize| used * 4 > most * 3;
        member.speed != Speed::Fast && (over(used.waiting, most.waiting) || over(used.bytes, most.bytes))
    }

    /// Remembers how fast the subscriber answered.
    pub(super) fn heard(&mut self, subscription: SubscriptionId, speed: Speed) {
        self.speeds.heard(subscription, speed);
    }

    /// Counts what a lane has now in place of what it had before.
    pub(super) fn change(&mut self, member: Member, before: Use, now: Use) {
        let used = &mut self.by_speed[member.speed as usize];
        *used = used.plus(now).minus(before);
        if member.speed != Speed::Fast {
            let used = &mut self.groups[member.group].used;
            *used = used.plus(now).minus(before);
        }
    }

    /// Counts in the rows of a read that begins.
    pub(super) fn reserve(&mut self, coming: Use) {
        self.coming = self.coming.plus(coming);
    }

    /// Counts out the rows of a read that has ended or failed.
    pub(super) fn arrived(&mut self, coming: Use) {
        self.coming = self.coming.minus(coming);
    }

    /// What is free for lanes of that speed.
    pub(super) fn free(&self, speed: Speed) -> Use {
        let mut used = self.coming;
        let mut free = None;
        for slower in Speed::ALL.into_iter().rev() {
            used = used.plus(self.by_speed[slower as usize]);
            if slower <= speed {
                let here = self.most[slower as usize].minus(used);
                free = Some(free.map_or(here, |free: Use| free.with(here, usize::min)));
            }
        }
        free.unwrap_or_default()
    }

    /// What is free for that lane's group, at its speed.
    pub(super) fn free_for(&self, member: Member) -> Use {
        let free = self.free(member.speed);
        if member.speed == Speed::Fast {
            return free;
        }
        let used = self.groups[member.group].used;
        free.with(used, |free, used| free.min((3 * free).saturating_sub(used)))
    }
}
