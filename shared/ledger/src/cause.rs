//! Telling apart why the ledger refused: because of what was to be written, or for another reason.

use crate::Error;
use crate::sql::IS_THERE;
use sea_orm::sqlx::error::DatabaseError;
use sea_orm::{ConnAcquireErr, DbErr, RuntimeErr, SqlxError};
use std::io;

/// What a failure is due to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// The data: they will be refused again, however often they are tried.
    Data,
    /// The ledger is away, busy or full: that passes, and says nothing of the data.
    Away,
    /// The code does not tell: a missing right or table, for instance, or a defect. Whether it is the data needs a
    /// proof, see [`Ledger::records_the_like`](crate::Ledger::records_the_like).
    Unknown,
}

impl Cause {
    /// Every cause.
    pub const ALL: [Self; 3] = [Self::Data, Self::Away, Self::Unknown];

    /// The name in metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Data => "data",
            Self::Away => "away",
            Self::Unknown => "unknown",
        }
    }
}

impl Error {
    /// What the failure is due to.
    pub fn cause(&self) -> Cause {
        if self.lacks_a_day() {
            return Cause::Away;
        }
        let Self::Database(error) = self else {
            return match self {
                Self::Corrupt(IS_THERE) => Cause::Data,
                Self::Corrupt(_) => Cause::Unknown,
                _ => Cause::Away,
            };
        };
        match &**error {
            // Our own words for a transaction that could not begin are custom ones.
            DbErr::Conn(_) | DbErr::ConnectionAcquire(_) | DbErr::Custom(_) => Cause::Away,
            DbErr::Exec(error) | DbErr::Query(error) => of_runtime(error),
            _ => Cause::Unknown,
        }
    }
}

impl Error {
    /// Whether there is no partition for the day of what was to be written. PostgreSQL tells it as a violated CHECK
    /// without a name.
    pub fn lacks_a_day(&self) -> bool {
        let code = self.of_database(|error| error.code().as_deref() == Some("23514") && error.constraint().is_none());
        code.unwrap_or(false)
    }

    /// Whether the server takes no writes.
    pub(crate) fn is_read_only(&self) -> bool {
        let code = self.of_database(|error| error.code().as_deref() == Some("25006"));
        matches!(self, Self::ReadOnly) || code.unwrap_or(false)
    }

    /// Whether others kept a lock for longer than the statement was to wait for it, or in a circle.
    pub(crate) fn is_kept_waiting(&self) -> bool {
        self.of_database(|error| matches!(error.code().as_deref(), Some("55P03" | "40P01")))
            .unwrap_or(false)
    }

    /// Whether there was no connection, for whatever reason: a pool waited for one, a file or a socket could not be
    /// opened.
    pub(crate) fn lacks_a_connection(&self) -> bool {
        let of_file = self.of_database(|error| {
            error
                .code()
                .is_some_and(|code| code.len() < 5 && class(&code) == Some(CANNOT_OPEN))
        });
        let of_socket = matches!(self.of_sqlx(), Some(SqlxError::Io(error)) if of_descriptors(error).is_some());
        self.is_of_a_pool() || of_file.unwrap_or(false) || of_socket
    }

    /// Whether a pool waited for a connection in vain.
    pub(crate) fn is_of_a_pool(&self) -> bool {
        let Self::Database(error) = self else { return false };
        matches!(**error, DbErr::ConnectionAcquire(ConnAcquireErr::Timeout))
            || matches!(self.of_sqlx(), Some(SqlxError::PoolTimedOut))
    }

    /// What `ask` finds in the database's own error, if it is one.
    fn of_database<T>(&self, ask: impl FnOnce(&dyn DatabaseError) -> T) -> Option<T> {
        match self.of_sqlx()? {
            SqlxError::Database(error) => Some(ask(&**error)),
            _ => None,
        }
    }

    /// The error of the library below, if it is one.
    fn of_sqlx(&self) -> Option<&SqlxError> {
        let Self::Database(error) = self else { return None };
        match &**error {
            DbErr::Conn(RuntimeErr::SqlxError(error))
            | DbErr::Exec(RuntimeErr::SqlxError(error))
            | DbErr::Query(RuntimeErr::SqlxError(error)) => Some(&**error),
            _ => None,
        }
    }
}

fn of_runtime(error: &RuntimeErr) -> Cause {
    let RuntimeErr::SqlxError(error) = error else {
        return Cause::Unknown;
    };
    match &**error {
        SqlxError::Database(error) => error.code().map_or(Cause::Unknown, |code| of_code(&code)),
        SqlxError::Encode(_) => Cause::Data,
        SqlxError::Io(_)
        | SqlxError::Tls(_)
        | SqlxError::Protocol(_)
        | SqlxError::PoolTimedOut
        | SqlxError::PoolClosed
        | SqlxError::WorkerCrashed => Cause::Away,
        _ => Cause::Unknown,
    }
}

const EMFILE: i32 = 24;
const ENFILE: i32 = 23;

/// What an error says of descriptors, if it is about those.
pub(crate) fn of_descriptors(error: &io::Error) -> Option<&'static str> {
    match error.raw_os_error()? {
        EMFILE => Some("this process has as many files and connections open as it may (ulimit -n)"),
        ENFILE => Some("this machine has as many files and connections open as it may (fs.file-max)"),
        _ => None,
    }
}

/// SQLite's class of a file that cannot be opened.
const CANNOT_OPEN: u16 = 14;

/// The class of one of SQLite's codes.
fn class(code: &str) -> Option<u16> {
    code.parse::<u16>().ok().map(|code| code & 0xff)
}

/// PostgreSQL's codes have five characters, of which the first two are the class; SQLite's are
/// numbers, of which the low byte is the class.
fn of_code(code: &str) -> Cause {
    const BUSY: u16 = 5;
    const LOCKED: u16 = 6;
    const READ_ONLY: u16 = 8;
    const IO: u16 = 10;
    const FULL: u16 = 13;
    const TOO_BIG: u16 = 18;
    const CONSTRAINT: u16 = 19;
    const MISMATCH: u16 = 20;
    if code.len() == 5 {
        return match code.get(..2) {
            // Data exceptions, and violated constraints.
            Some("22" | "23") => Cause::Data,
            // Connections, rolled back transactions, resources, intervention by an operator, the system.
            Some("08" | "25" | "40" | "53" | "55" | "57" | "58") => Cause::Away,
            _ => Cause::Unknown,
        };
    }
    match class(code) {
        Some(TOO_BIG | CONSTRAINT | MISMATCH) => Cause::Data,
        Some(BUSY | LOCKED | READ_ONLY | IO | FULL | CANNOT_OPEN) => Cause::Away,
        _ => Cause::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_of_both_databases_are_told_apart() {
        for data in ["22021", "23505", "22P05", "23514", "19", "275", "1299", "2067", "18"] {
            assert_eq!(of_code(data), Cause::Data, "{data}");
        }
        for away in [
            "08006", "25006", "57P01", "57P05", "53300", "40001", "5", "261", "778", "13",
        ] {
            assert_eq!(of_code(away), Cause::Away, "{away}");
        }
        let unknown = [
            "42P01", "42501", "42P05", "0A000", "26000", "54000", "F0000", "XX000", "1", "", "nonsense",
        ];
        for unknown in unknown {
            assert_eq!(of_code(unknown), Cause::Unknown, "{unknown}");
        }
    }

    #[test]
    fn a_closed_ledger_is_away() {
        assert_eq!(Error::Closed.cause(), Cause::Away);
        assert_eq!(Error::Corrupt("a row").cause(), Cause::Unknown);
        assert_eq!(Error::Corrupt(IS_THERE).cause(), Cause::Data);
        assert_eq!(Error::Unreachable("why".into()).cause(), Cause::Away);
    }

    #[test]
    fn only_a_want_of_descriptors_is_told_as_one() {
        for (code, limit) in [(EMFILE, "ulimit -n"), (ENFILE, "fs.file-max")] {
            assert!(
                of_descriptors(&io::Error::from_raw_os_error(code))
                    .unwrap()
                    .contains(limit)
            );
        }
        assert_eq!(of_descriptors(&io::ErrorKind::NotFound.into()), None);
    }
}
