//! The keeper of a process's leases. It does one thing at a time.

use super::Move;
use crate::ledger::{Epochs, LEASE, Ledger, ProcessId};
use herald_domain::id::{DeliveryId, Shard};
use herald_domain::time::Timestamp;
use std::collections::BTreeSet;
use std::time::Duration;

#[derive(Debug)]
pub(super) struct Keeper {
    /// The leases as they are published.
    pub(super) epochs: Epochs,
    pub(super) until: Timestamp,
    /// Whether the worker has not heard of them yet.
    pub(super) unheard: bool,
    /// The leases as they will be when the reply to their renewal comes.
    renewing: Option<(Epochs, Timestamp)>,
    /// Shards that are given up here, and perhaps not yet in the ledger.
    pub(super) giving: BTreeSet<Shard>,
    /// What the worker said is in flight of them, and until when.
    pub(super) asked: Option<Vec<(DeliveryId, Timestamp)>>,
}

impl Keeper {
    /// A keeper that is counted among the workers, and has nothing yet.
    pub(super) fn new(process: ProcessId, ledger: &mut Ledger) -> Self {
        let until = ledger.now.plus(LEASE);
        Self {
            epochs: ledger.renew(process),
            until,
            unheard: true,
            renewing: None,
            giving: BTreeSet::new(),
            asked: None,
        }
    }

    /// What it can begin.
    pub(super) fn moves(&self, ledger: &Ledger, faults: bool) -> Vec<Move> {
        if self.renewing.is_some() || self.asked.is_some() {
            return Vec::new();
        }
        // It is due 5 seconds after the last one. Then there is nothing more urgent.
        let is_due = self.until.since(ledger.now) <= Duration::from_secs(10);
        let mut moves = vec![Move::Renew; if is_due { 30 } else { 1 }];
        moves.extend(faults.then_some(Move::RenewUnheard));
        // A release that failed before is tried again first.
        if ledger.now < self.until && self.giving.is_empty() {
            for shard in ledger.free_shards() {
                moves.push(Move::TakeOver(shard));
                moves.extend(faults.then_some(Move::TakeOverUnheard(shard)));
            }
            moves.extend(self.epochs.keys().copied().map(Move::GiveBack));
        }
        moves
    }

    /// What it has begun and not ended.
    pub(super) fn pending(&self, faults: bool, worker_hears: bool) -> Vec<Move> {
        if self.renewing.is_some() {
            return vec![Move::Renewed];
        }
        if self.giving.is_empty() {
            return Vec::new();
        }
        match &self.asked {
            None => worker_hears.then_some(Move::Ask).into_iter().collect(),
            Some(_) if faults => vec![Move::Release, Move::ReleaseUnheard],
            Some(_) => vec![Move::Release],
        }
    }

    pub(super) fn make(&mut self, what: Move, process: ProcessId, ledger: &mut Ledger) {
        match what {
            Move::Renew | Move::RenewUnheard => {
                // Counted from before the renewal was sent, because the reply may come late.
                let until = ledger.now.plus(LEASE);
                let mut epochs = ledger.renew(process);
                epochs.retain(|shard, _| !self.giving.contains(shard));
                self.renewing = matches!(what, Move::Renew).then_some((epochs, until));
            }
            Move::Renewed => {
                if let Some((epochs, until)) = self.renewing.take() {
                    (self.epochs, self.until, self.unheard) = (epochs, until, true);
                }
            }
            Move::TakeOver(shard) | Move::TakeOverUnheard(shard) => {
                let epoch = ledger.take_over(process, shard);
                if let (Some(epoch), Move::TakeOver(_)) = (epoch, what) {
                    self.epochs.insert(shard, epoch);
                    self.unheard = true;
                }
            }
            Move::GiveBack(shard) => {
                self.epochs.remove(&shard);
                self.giving.insert(shard);
                self.unheard = true;
            }
            Move::Release | Move::ReleaseUnheard => {
                let in_flight = self.asked.take().unwrap_or_default();
                ledger.release(process, &self.giving, &in_flight);
                if matches!(what, Move::Release) {
                    self.giving.clear();
                }
            }
            _ => {}
        }
    }
}
