//! One lane: what it has in memory, and where each delivery is.

use super::Work;
use super::flow_control::FlowControl;
use super::read_history::{ReadHistory, ReadMark};
use super::shares::{Member, Use};
use super::speed::Speed;
use crate::id::DeliveryId;
use crate::in_flight_limit::Turn;
use crate::time::Timestamp;
use std::collections::{HashMap, HashSet, VecDeque};

/// The earliest time: a read from it on reads all rows.
pub(super) const EARLIEST: Timestamp = Timestamp::from_micros(i64::MIN);

/// Where a delivery of a lane is.
#[derive(Debug, Clone, Copy)]
pub(super) enum DeliveryState {
    /// It waits for its turn.
    Waiting,
    /// Its attempt is under way.
    InFlight { turn: Turn, began: Timestamp },
    /// Its outcome is on the way to the ledger.
    Recording {
        /// The due time at which a fetch showed it meanwhile, if one did.
        shown: Option<Timestamp>,
    },
}

/// Whether a lane's rows are being read.
#[derive(Debug, Default)]
pub(super) enum Fetch {
    #[default]
    None,
    /// The ledger was asked.
    UnderWay {
        /// When it was asked. A row that was not due then may have been in flight at a former worker, and be
        /// closed by now.
        asked_at: Timestamp,
        /// Deliveries forgotten since then, which the rows may still show.
        forgotten: HashSet<DeliveryId>,
    },
    /// The shard was released since then: another worker may have sent what the rows show.
    Void,
}

/// In which queue of lanes a lane stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Queued {
    /// In none.
    No,
    /// Among those that have nothing in flight, for their first attempt.
    First,
    /// Among those that may have more to send, under this number. An entry under another number is out of date.
    More(u64),
    /// Among those that wait until retries have room, under this number.
    ForRetry(u64),
}

/// Where a waiting delivery came from. The sources take turns, so that none waits until another is empty.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Source {
    /// Handed over as soon as it was recorded.
    Fresh,
    /// Fetched, and not attempted yet.
    Backlog,
    /// Fetched, and attempted before.
    Retry,
}

const SOURCES: [Source; 3] = [Source::Fresh, Source::Backlog, Source::Retry];

#[derive(Debug)]
pub(super) struct Lane<P> {
    waiting: [VecDeque<Work<P>>; 3],
    /// Whose turn it is, of [`SOURCES`].
    turn: usize,
    pub(super) known: HashMap<DeliveryId, DeliveryState>,
    pub(super) in_flight: usize,
    /// How many of those in flight are retries.
    pub(super) retries: usize,
    /// Bytes of what waits and what is in flight.
    pub(super) bytes: usize,
    /// About how many bytes a row takes; 0 while that is not known.
    pub(super) row_bytes: usize,
    /// When the ledger is to be read for due deliveries that are not known here.
    pub(super) ledger_due: Option<Timestamp>,
    /// The time before which none of these is due: rows before it are closed, and need not be read past.
    pub(super) ledger_from: Timestamp,
    pub(super) fetch: Fetch,
    /// The due time from which the fetch under way reads.
    pub(super) reading_from: Timestamp,
    /// The most rows and bytes that this fetch is to bring.
    pub(super) coming: Use,
    /// The group and the speed by which it shares with other lanes.
    pub(super) member: Member,
    pub(super) reads: ReadHistory,
    pub(super) flow: FlowControl,
    /// When a survey last found the lane held back by its subscriber or its settings.
    pub(super) held_back_at: Option<Timestamp>,
    /// When the lane is attended to at the latest.
    pub(super) timer: Option<Timestamp>,
    pub(super) queued: Queued,
    /// Whether the lane stands in the queue of those that may want to fetch.
    pub(super) hungry: bool,
    /// Whether the lane stands in the queue of those to be attended to.
    pub(super) touched: bool,
}

impl<P> Lane<P> {
    /// A lane without deliveries. It is not known what reads that ended up to `moment` have shown of it.
    pub(super) fn since(moment: ReadMark, member: Member) -> Self {
        Self {
            waiting: [VecDeque::new(), VecDeque::new(), VecDeque::new()],
            turn: 0,
            known: HashMap::new(),
            in_flight: 0,
            retries: 0,
            bytes: 0,
            row_bytes: 0,
            ledger_due: None,
            ledger_from: EARLIEST,
            fetch: Fetch::None,
            reading_from: EARLIEST,
            coming: Use::default(),
            member,
            reads: ReadHistory::since(moment),
            flow: FlowControl::default(),
            held_back_at: None,
            timer: None,
            queued: Queued::No,
            hungry: false,
            touched: false,
        }
    }

    pub(super) fn is_fetching(&self) -> bool {
        !matches!(self.fetch, Fetch::None)
    }

    /// Whether there is nothing in memory, nothing noted and nothing being read.
    pub(super) fn is_idle(&self) -> bool {
        self.known.is_empty() && self.ledger_due.is_none() && !self.is_fetching()
    }

    /// What the lane has of what all lanes share.
    pub(super) fn uses(&self) -> Use {
        Use {
            first: self.in_flight.min(1),
            more: self.in_flight.saturating_sub(1),
            waiting: self.waits(),
            bytes: self.bytes,
        }
    }

    /// How many more deliveries from that source may wait in the lane, without regard to what is free; fetched
    /// ones, if no source is given. For a slow subscriber only as many wait as soon find their turn: more would be
    /// in the way of other lanes for long, and a read costs little beside its slow answers.
    pub(super) fn appetite(&self, source: Option<Source>, buffer: usize) -> usize {
        let there = source.map_or_else(|| self.fetched(), |source| self.waits_from(source));
        // Behind an open breaker expired deliveries are closed, a buffer full at a time.
        if self.flow.is_shut() {
            return buffer.max(1).saturating_sub(there);
        }
        if self.member.speed == Speed::Slow {
            let limit = self.flow.limit();
            let at_once = limit.saturating_sub(self.in_flight);
            return limit.div_ceil(4).min(at_once).saturating_sub(self.waits());
        }
        match source {
            None if self.flow.is_rare() => 1usize.saturating_sub(self.waits()),
            _ => buffer.max(1).saturating_sub(there),
        }
    }

    /// Whether the lane asks for more: only when its buffer is half empty, so that reads stay few.
    pub(super) fn is_hungry(&self, buffer: usize) -> bool {
        let appetite = self.appetite(None, buffer);
        if self.member.speed == Speed::Slow && !self.flow.is_shut() {
            return self.waits() == 0 && appetite >= self.flow.limit().div_ceil(4);
        }
        appetite > 0 && self.fetched() <= buffer / 2
    }

    pub(super) fn waits_from(&self, source: Source) -> usize {
        self.waiting[source as usize].len()
    }

    /// How many fetched deliveries wait.
    pub(super) fn fetched(&self) -> usize {
        self.waits_from(Source::Backlog) + self.waits_from(Source::Retry)
    }

    /// Whether something waits for its first attempt.
    pub(super) fn waits_for_first(&self) -> bool {
        self.waits() > self.waits_from(Source::Retry)
    }

    pub(super) fn waits(&self) -> usize {
        self.waits_from(Source::Fresh) + self.fetched()
    }

    pub(super) fn waiting(&self) -> impl Iterator<Item = &Work<P>> {
        self.waiting.iter().flatten()
    }

    /// Whether the lane's own limits let it begin something that waits.
    pub(super) fn can_begin(&self) -> bool {
        let retry = self.waits_from(Source::Retry) > 0 && self.retries < self.flow.retry_limit();
        self.in_flight < self.flow.limit() && (self.waits_for_first() || retry)
    }

    pub(super) fn push(&mut self, work: Work<P>, source: Source) {
        self.bytes += work.bytes;
        self.row_bytes = match self.row_bytes {
            0 => work.bytes,
            about => (7 * about + work.bytes) / 8,
        };
        self.known.insert(work.delivery.id, DeliveryState::Waiting);
        self.waiting[source as usize].push_back(work);
    }

    /// Takes the waiting delivery whose turn is next. It stays counted and known as before.
    pub(super) fn pop(&mut self, may_retry: bool) -> Option<Work<P>> {
        for n in 0..SOURCES.len() {
            let turn = (self.turn + n) % SOURCES.len();
            if SOURCES[turn] == Source::Retry && !may_retry {
                continue;
            }
            if let Some(work) = self.waiting[turn].pop_front() {
                self.turn = turn + 1;
                return Some(work);
            }
        }
        None
    }

    /// Takes all that waits, in the order in which it is due. It stays counted and known as before.
    pub(super) fn pop_all(&mut self) -> Vec<Work<P>> {
        let mut all: Vec<_> = self.waiting.iter_mut().flat_map(std::mem::take).collect();
        all.sort_by_key(|work| work.delivery.due_at);
        all
    }

    /// Takes all that waits, in the order in which it is due, and forgets it.
    pub(super) fn drop_all(&mut self) -> Vec<Work<P>> {
        let all = self.pop_all();
        for work in &all {
            self.known.remove(&work.delivery.id);
            self.bytes -= work.bytes;
        }
        all
    }
}
