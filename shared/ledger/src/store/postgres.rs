//! PostgreSQL: a transaction per write, and the database's own time.

mod address;
mod session;

use crate::Error;
use crate::sql::{CLOCK, one, timestamp};
use futures_util::future::BoxFuture;
use herald_domain::time::{Clock, Timestamp};
use sea_orm::sqlx::PgPool;
use sea_orm::{DatabaseConnection, DatabaseTransaction, SqlxPostgresConnector, TransactionTrait};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

pub(crate) use address::Address;
pub(crate) use session::{ESTIMATED, Plans, Trust};

/// No time limit for a statement: PostgreSQL reads 0 as none.
pub(crate) const WITHOUT_LIMIT: Duration = Duration::ZERO;

/// How many writes at a time: dispatch, outcomes, leases, and the API's changes.
const WRITERS: u32 = 8;

/// How long anything on the delivery path may take. The server cuts off a process that is frozen in the middle of a
/// transaction a little sooner, so that its locks are not in the way of a takeover.
pub(super) const PATIENCE: Duration = Duration::from_secs(8);

/// How long a query that is in no hurry, such as an audit, may take.
pub(super) const SLOW: Duration = Duration::from_mins(10);

/// The connections that write and those that deliveries wait for.
#[derive(Debug, Clone)]
pub(super) struct Pool {
    write: DatabaseConnection,
    read: DatabaseConnection,
    address: Address,
    trust: Trust,
    clock: Arc<DatabaseClock>,
}

impl Pool {
    pub(super) async fn connect(address: Address, trust: &Trust) -> Result<Self, Error> {
        check(&address).await?;
        let pool = Self {
            write: connect(&address, WRITERS, (PATIENCE, Plans::Indexed), trust).await?,
            read: connect(&address, super::READERS, (PATIENCE, Plans::Indexed), trust).await?,
            address,
            trust: trust.clone(),
            clock: Arc::default(),
        };
        pool.tell_time(clock(&pool.read)).await?;
        Ok(pool)
    }

    pub(super) fn reading(&self) -> &DatabaseConnection {
        &self.read
    }

    pub(super) fn writing(&self) -> &DatabaseConnection {
        &self.write
    }

    /// Has the clock take note of the database's time, which is read along with a query.
    pub(super) async fn tell_time(&self, asking: impl Future<Output = Result<Timestamp, Error>>) -> Result<(), Error> {
        let asked = self.clock.started.elapsed();
        let told = asking.await?;
        self.clock.observe(told, asked, self.clock.started.elapsed());
        Ok(())
    }

    /// A pool of one connection for listening, so that a half-open one takes none from those that read.
    pub(super) fn listening(&self) -> PgPool {
        session::listening(&self.address)
    }

    /// Makes a connection and closes it. Returns the reason in words if there is none.
    pub(super) async fn try_to_connect(&self) -> Result<(), String> {
        Box::pin(session::try_to_connect(&self.address)).await
    }

    pub(super) fn clock(&self) -> Arc<DatabaseClock> {
        Arc::clone(&self.clock)
    }

    /// Runs a write in a transaction of its own. After an error or a timeout it is unknown whether it was
    /// committed, as with every commit whose answer is lost.
    pub(super) async fn write<T, F>(&self, write: F) -> Result<T, Error>
    where
        F: for<'t> FnOnce(&'t DatabaseTransaction, Timestamp) -> BoxFuture<'t, Result<T, Error>> + Send + 'static,
    {
        let run = async {
            let txn = self.write.begin().await?;
            let value = write(&txn, self.clock.now()).await?;
            txn.commit().await?;
            Ok(value)
        };
        self.trust.watch(PATIENCE, run).await
    }
}

/// Whether a ledger can be in that database, without changing anything.
pub(crate) async fn check(address: &Address) -> Result<(), Error> {
    Box::pin(session::check(address)).await
}

/// Connects a pool. Its statements may take as long as `patience` says, and are planned as `plans` says.
pub(crate) async fn connect(
    address: &Address,
    connections: u32,
    (patience, plans): (Duration, Plans),
    trust: &Trust,
) -> Result<DatabaseConnection, Error> {
    let (pool, session) = session::pool(address, connections, (patience, plans), trust);
    let pool = Box::pin(pool.connect_with(session))
        .await
        .map_err(session::of_connection)?;
    Ok(SqlxPostgresConnector::from_sqlx_postgres_pool(pool))
}

async fn clock(connection: &DatabaseConnection) -> Result<Timestamp, Error> {
    let row = one(connection, &format!("SELECT {CLOCK} AS now"), []).await?;
    timestamp(&row.ok_or(Error::Corrupt("no time"))?, "now")
}

/// The database's clock, as this process can tell it. All processes that share a ledger go by this one clock, whatever
/// their machines' clocks say.
///
/// The database's time is observed several times a second (see [`crate::Ledger::registry_version`]) and compared with
/// this process's monotonic clock. An answer arrives after it was given. So this clock is behind the database's by the
/// shortest time that an answer took of late, but never before a time that this process was told.
#[derive(Debug)]
pub struct DatabaseClock {
    started: Instant,
    /// The greatest offsets of this window and the one before, in microseconds since `started`.
    offsets: Mutex<Offsets>,
}

#[derive(Debug, Default)]
struct Offsets {
    window_began: Duration,
    before: Option<i64>,
    current: Option<i64>,
    /// When the database's clock was last found to have been set, forward or back.
    stepped: Option<Duration>,
}

/// How many microseconds this clock must be ahead of the possible time before it is set back at once.
const STEP: i64 = 100_000;

/// How many microseconds the database's clock must be ahead of its known time to count as set forward. By less, earlier
/// answers may only have come late.
const LEAP: i64 = 2_000_000;

/// How many microseconds the time that a statement told may be behind when the statement has ended.
const LATE: i64 = 20_000_000;

/// The least time for which an observation counts. Clocks drift apart by less than a millisecond in it.
const WINDOW: Duration = Duration::from_secs(30);

impl Default for DatabaseClock {
    fn default() -> Self {
        Self {
            started: Instant::now(),
            offsets: Mutex::default(),
        }
    }
}

impl DatabaseClock {
    /// Takes note of what the database's clock said between those two moments.
    fn observe(&self, told: Timestamp, asked: Duration, elapsed: Duration) {
        let offset = told.as_micros() - micros(elapsed);
        let most = told.as_micros() - micros(asked);
        let mut offsets = self.offsets.lock().unwrap_or_else(PoisonError::into_inner);
        let known = offsets.current.max(offsets.before);
        if known.is_some_and(|known| known > most + STEP) {
            // The clock was set back, or another database stands in its place.
            *offsets = Offsets {
                stepped: Some(elapsed),
                ..Offsets::default()
            };
        } else if known.is_some_and(|known| offset > known + LEAP) {
            offsets.stepped = Some(elapsed);
        }
        if elapsed.saturating_sub(offsets.window_began) > WINDOW {
            offsets.window_began = elapsed;
            offsets.before = offsets.current.take();
        }
        offsets.current = offsets.current.max(Some(offset));
    }

    /// Whether the database's clock was found to have been set within that time, or is found so now by the time `told`.
    /// Times that others wrote before that must not be compared with the present one.
    pub(crate) fn stepped(&self, within: Duration, told: Timestamp) -> bool {
        self.stepped_at(within, told, self.started.elapsed())
    }

    fn stepped_at(&self, within: Duration, told: Timestamp, elapsed: Duration) -> bool {
        let mut offsets = self.offsets.lock().unwrap_or_else(PoisonError::into_inner);
        let offset = told.as_micros() - micros(elapsed);
        // `told` is from a while ago, but no longer ago than a statement may take.
        let near = |known: i64| (known - LATE..=known + LEAP).contains(&offset);
        if offsets.current.max(offsets.before).is_some_and(|known| !near(known)) {
            offsets.stepped = Some(elapsed);
        }
        offsets.stepped.is_some_and(|at| elapsed.saturating_sub(at) < within)
    }

    fn at(&self, elapsed: Duration) -> Timestamp {
        let offsets = self.offsets.lock().unwrap_or_else(PoisonError::into_inner);
        let offset = offsets.current.max(offsets.before).unwrap_or_default();
        Timestamp::from_micros(offset + micros(elapsed))
    }
}

impl Clock for DatabaseClock {
    fn now(&self) -> Timestamp {
        self.at(self.started.elapsed())
    }
}

fn micros(duration: Duration) -> i64 {
    i64::try_from(duration.as_micros()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_clock_is_never_before_what_it_was_told_and_follows_a_drift() {
        let clock = DatabaseClock::default();
        let second = |n| Duration::from_secs(n);
        let told = |n: i64| Timestamp::from_micros(1_000_000_000 + n);
        // Each answer takes half a second.
        let observe = |time: i64, at: u64| {
            clock.observe(told(time), Duration::from_millis(at * 1000 - 500), second(at));
        };
        observe(1_000_000, 1);
        observe(1_999_000, 2);
        assert_eq!(clock.at(second(2)), told(2_000_000), "a slow answer changes nothing");
        observe(3_000_500, 3);
        assert_eq!(clock.at(second(3)), told(3_000_500));
        // The database's clock goes slower: after two windows that is what counts.
        observe(40_900_000, 41);
        observe(80_800_000, 81);
        assert_eq!(clock.at(second(81)), told(80_900_000));
        observe(120_700_000, 121);
        assert_eq!(clock.at(second(121)), told(120_800_000));
        // It is set forward, and back.
        observe(200_000_000, 122);
        assert_eq!(clock.at(second(122)), told(200_000_000));
        observe(123_000_000, 123);
        assert_eq!(clock.at(second(123)), told(123_000_000));
    }

    #[test]
    fn a_clock_that_was_set_is_noticed_and_a_slow_answer_is_none() {
        let clock = DatabaseClock::default();
        let second = |n| Duration::from_secs(n);
        let told = |n: i64| Timestamp::from_micros((1_000 + n) * 1_000_000);
        let lease = second(15);
        clock.observe(told(10), second(9), second(10));
        assert!(!clock.stepped_at(lease, told(11), second(11)));
        assert!(!clock.stepped_at(lease, told(11), second(19)), "it took 8 s");
        clock.observe(told(20), second(19), second(20));
        clock.observe(told(81), second(20), second(21));
        assert!(clock.stepped_at(lease, told(82), second(22)), "set forward by a minute");
        assert!(clock.stepped_at(lease, told(95), second(35)));
        assert!(!clock.stepped_at(lease, told(97), second(37)), "long ago");
        assert!(
            clock.stepped_at(lease, told(3700), second(40)),
            "told by this statement first"
        );
        clock.observe(told(3701), second(40), second(41));
        clock.observe(told(60), second(59), second(60));
        assert!(clock.stepped_at(lease, told(61), second(61)), "set back by an hour");
        assert_eq!(clock.at(second(61)), told(61));
    }
}
