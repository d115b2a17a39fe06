//! The memory for requests, which take it as their bytes come and give it back when they are answered.
//!
//! The length that a request announces takes no memory. No account has more than [`SHARES`] times what is left free. So
//! an account that sends as much as it can leaves room for others, and several accounts share the memory.

use herald_domain::id::AccountId;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

/// How much memory requests may take together; a request is in memory about twice, as it came and as it
/// goes to the queue.
const MAX_BYTES: usize = 64 << 20;

/// An account alone may have three quarters, two may have three sevenths each, and so on.
const SHARES: usize = 3;

/// The memory for requests; cheap to clone.
#[derive(Debug, Clone, Default)]
pub(crate) struct Room(Arc<Mutex<Taken>>);

#[derive(Debug, Default)]
struct Taken {
    all: usize,
    /// The bytes of each account that has taken some.
    by_account: HashMap<AccountId, usize>,
}

/// The memory that one request has taken; it is given back on drop.
#[derive(Debug)]
pub(crate) struct Reservation {
    room: Room,
    account: AccountId,
    bytes: usize,
}

/// The error that there is no room left, at least for this account.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Full;

impl Room {
    /// The memory of a new request of that account: nothing yet.
    pub(crate) fn reserve(&self, account: AccountId) -> Reservation {
        Reservation {
            room: self.clone(),
            account,
            bytes: 0,
        }
    }
}

impl Reservation {
    /// Takes memory for so many more bytes.
    pub(crate) fn take(&mut self, bytes: usize) -> Result<(), Full> {
        let mut taken = self.room.0.lock().unwrap_or_else(PoisonError::into_inner);
        let own = taken.by_account.get(&self.account).copied().unwrap_or(0);
        let (all, own) = (taken.all + bytes, own + bytes);
        if !fits(all, own) {
            return Err(Full);
        }
        taken.all = all;
        taken.by_account.insert(self.account, own);
        self.bytes += bytes;
        Ok(())
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        if self.bytes == 0 {
            return;
        }
        let mut taken = self.room.0.lock().unwrap_or_else(PoisonError::into_inner);
        taken.all -= self.bytes;
        let own = taken.by_account.get(&self.account).copied().unwrap_or(0);
        if own == self.bytes {
            taken.by_account.remove(&self.account);
        } else {
            taken.by_account.insert(self.account, own - self.bytes);
        }
    }
}

/// Whether all may have taken `all`, and an account `own` of it.
fn fits(all: usize, own: usize) -> bool {
    all <= MAX_BYTES && own <= SHARES * (MAX_BYTES - all)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::MAX_REQUEST_BYTES;
    use uuid::Uuid;

    fn fill(room: &Room, account: AccountId) -> Vec<Reservation> {
        let mut all = Vec::new();
        loop {
            let mut reserved = room.reserve(account);
            if reserved.take(1 << 20).is_err() {
                return all;
            }
            all.push(reserved);
        }
    }

    #[test]
    fn one_account_leaves_a_whole_request_to_another() {
        let room = Room::default();
        let (greedy, other) = (AccountId(Uuid::from_u128(1)), AccountId(Uuid::from_u128(2)));
        let reserved = fill(&room, greedy);
        assert_eq!(reserved.len(), 48, "three quarters of 64 MiB");
        let mut request = room.reserve(other);
        assert_eq!(request.take(MAX_REQUEST_BYTES), Ok(()));
        assert_eq!(
            room.reserve(greedy).take(1),
            Err(Full),
            "it has more than its share now"
        );
        drop((reserved, request));
        let taken = room.0.lock().unwrap();
        assert_eq!((taken.all, taken.by_account.len()), (0, 0), "all of it is given back");
    }

    #[test]
    fn however_many_accounts_there_are_a_newcomer_has_room() {
        let room = Room::default();
        let accounts = (1..=20_u128).map(|n| AccountId(Uuid::from_u128(n)));
        let reserved: Vec<_> = accounts.map(|account| fill(&room, account)).collect();
        assert!(room.0.lock().unwrap().all < MAX_BYTES);
        assert_eq!(room.reserve(AccountId(Uuid::from_u128(99))).take(1024), Ok(()));
        drop(reserved);
    }

    #[test]
    fn what_is_only_said_takes_nothing() {
        let room = Room::default();
        let account = AccountId(Uuid::from_u128(1));
        let silent: Vec<_> = (0..1000).map(|_| room.reserve(account)).collect();
        assert_eq!(room.reserve(account).take(MAX_REQUEST_BYTES), Ok(()));
        drop(silent);
    }
}
