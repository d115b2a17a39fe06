//! Statements over many rows, and rows read into types, on either database.
//!
//! Both databases take the same text, with `$1` for parameters. This module has the places where they differ.

use crate::Error;
use herald_domain::time::Timestamp;
use herald_domain::trace::TraceContext;
use sea_orm::sea_query::ArrayType;
use sea_orm::{
    AccessMode, ConnectionTrait, DatabaseConnection, DatabaseTransaction, DbBackend, IsolationLevel, QueryResult,
    Statement, TransactionOptions, TransactionTrait, TryGetable, Value,
};
use uuid::Uuid;

/// The numbers of rows in one statement on SQLite, which prepares a statement once for each number.
const LENGTHS: [usize; 9] = [256, 128, 64, 32, 16, 8, 4, 2, 1];

/// The numbers of rows in statements in which a row may stand twice. One statement then takes all rows, which is
/// faster, because on SQLite each statement is a question to another thread.
const FILLED: [usize; 17] = [1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384];

/// Values that stand for NULL in arrays, see [`arrays`]. No column that may be null has them as a value.
const NULL_UUID: Uuid = Uuid::max();
const NULL_TEXT: &str = "\u{1}NULL\u{1}";

/// Runs `before <rows> after` for all rows, a few statements at most, and collects what they return.
/// The rows stand where `VALUES (..),(..)` may stand.
pub async fn for_rows<const N: usize, C: ConnectionTrait>(
    connection: &C,
    before: &str,
    rows: Vec<[Value; N]>,
    after: &str,
) -> Result<Vec<QueryResult>, Error> {
    if connection.get_database_backend() == DbBackend::Postgres {
        if rows.is_empty() {
            return Ok(Vec::new());
        }
        let (columns, values) = arrays(rows);
        return all(connection, &format!("{before} {columns} {after}"), values).await;
    }
    let mut rows = rows.into_iter();
    let mut returned = Vec::new();
    for length in LENGTHS {
        while rows.len() >= length {
            let values: Vec<Value> = rows.by_ref().take(length).flatten().collect();
            let sql = format!("{before} VALUES {} {after}", tuples(length, N));
            returned.extend(all(connection, &sql, values).await?);
        }
    }
    Ok(returned)
}

/// Does the same as [`for_rows`] for statements in which a row may come twice, because `after` passes over a row that
/// is there already.
pub async fn for_repeatable_rows<const N: usize, C: ConnectionTrait>(
    connection: &C,
    before: &str,
    rows: Vec<[Value; N]>,
    after: &str,
) -> Result<Vec<QueryResult>, Error> {
    if connection.get_database_backend() == DbBackend::Postgres {
        return for_rows(connection, before, rows, after).await;
    }
    let mut returned = Vec::new();
    for (sql, values) in filled(before, rows, after) {
        returned.extend(all(connection, &sql, values).await?);
    }
    Ok(returned)
}

/// Inserts rows that are not there yet; an error if one of them is.
pub async fn insert_rows<const N: usize, C: ConnectionTrait>(
    connection: &C,
    before: &str,
    rows: Vec<[Value; N]>,
) -> Result<(), Error> {
    if connection.get_database_backend() == DbBackend::Postgres {
        for_rows(connection, before, rows, "").await?;
        return Ok(());
    }
    let new = u64::try_from(rows.len()).unwrap_or(u64::MAX);
    let mut inserted = 0;
    for (sql, values) in filled(before, rows, "ON CONFLICT DO NOTHING") {
        inserted += execute(connection, &sql, values).await?;
    }
    if inserted == new {
        Ok(())
    } else {
        Err(corrupt(IS_THERE))
    }
}

/// Statements for all of the rows, each filled up with its last one to a length of [`FILLED`].
fn filled<const N: usize>(before: &str, mut rows: Vec<[Value; N]>, after: &str) -> Vec<(String, Vec<Value>)> {
    let most = FILLED[FILLED.len() - 1];
    let mut statements = Vec::with_capacity(rows.len().div_ceil(most));
    while !rows.is_empty() {
        let rest = rows.split_off(rows.len().min(most));
        let length = FILLED.into_iter().find(|length| *length >= rows.len()).unwrap_or(most);
        let mut values = Vec::with_capacity(length * N);
        values.extend(rows.into_iter().flatten());
        let last = values.len() - N;
        while values.len() < length * N {
            values.extend_from_within(last..last + N);
        }
        statements.push((format!("{before} VALUES {} {after}", tuples(length, N)), values));
        rows = rest;
    }
    statements
}

/// The reason for which [`insert_rows`] refuses. As with any other constraint, the data are at fault.
pub(crate) const IS_THERE: &str = "a row that was to be new is there already";

/// `(?,?),(?,?)` for two rows of two. It has no `$1`, because SQLite would take that for a name, and look each one up
/// among all the others.
fn tuples(rows: usize, columns: usize) -> String {
    let row = format!("({})", vec!["?"; columns].join(","));
    vec![row; rows].join(",")
}

/// Rows as one array for each column, which PostgreSQL takes as one parameter, and the query that makes rows of them
/// again. An array that goes through `sea_orm` cannot hold NULL. So in a column with NULL a value stands for it that
/// does not occur there.
fn arrays<const N: usize>(rows: Vec<[Value; N]>) -> (String, Vec<Value>) {
    let mut columns: [Vec<Value>; N] = std::array::from_fn(|_| Vec::with_capacity(rows.len()));
    for row in rows {
        for (column, value) in columns.iter_mut().zip(row) {
            column.push(value);
        }
    }
    let mut selected = Vec::with_capacity(N);
    let mut unnested = Vec::with_capacity(N);
    let mut values = Vec::with_capacity(N);
    for (n, column) in columns.into_iter().enumerate() {
        let kind = column.first().map_or(ArrayType::BigInt, Value::array_type);
        let (sql_type, null) = sql_type(&kind);
        let any_null = column.iter().any(is_null);
        selected.push(match null {
            Some((_, literal)) if any_null => format!("nullif(c{n}, {literal})"),
            _ => format!("c{n}"),
        });
        unnested.push(format!("${}::{sql_type}[]", n + 1));
        values.push(array(kind, column.into_iter()));
    }
    let names: Vec<_> = (0..N).map(|n| format!("c{n}")).collect();
    let sql = format!(
        "SELECT {} FROM unnest({}) AS r ({})",
        selected.join(","),
        unnested.join(","),
        names.join(",")
    );
    (sql, values)
}

/// One array for PostgreSQL; where a value is NULL, what stands for it.
pub(crate) fn array(kind: ArrayType, values: impl Iterator<Item = Value>) -> Value {
    let (_, null) = sql_type(&kind);
    let present = values.map(|value| match &null {
        Some((absent, _)) if is_null(&value) => absent.clone(),
        _ => value,
    });
    let present = present.collect();
    Value::Array(kind, Some(Box::new(present)))
}

/// The column type of an array's elements, and what stands for NULL among them: the value, and how SQL
/// writes it.
fn sql_type(kind: &ArrayType) -> (&'static str, Option<(Value, String)>) {
    match kind {
        ArrayType::Bool => ("boolean", None),
        ArrayType::SmallInt => ("smallint", None),
        ArrayType::Int => ("integer", Some((i32::MIN.into(), format!("({})", i32::MIN)))),
        ArrayType::BigInt => ("bigint", Some((i64::MIN.into(), format!("({})", i64::MIN)))),
        ArrayType::Uuid => ("uuid", Some((NULL_UUID.into(), format!("'{NULL_UUID}'::uuid")))),
        ArrayType::Bytes => ("bytea", None),
        _ => ("text", Some((NULL_TEXT.into(), format!("'{NULL_TEXT}'")))),
    }
}

fn is_null(value: &Value) -> bool {
    *value == value.as_null()
}

/// Runs `before IN (..) after`, for a list of values, in a few statements at most; `before` ends with the
/// column.
pub async fn for_values<C: ConnectionTrait>(
    connection: &C,
    before: &str,
    values: Vec<Value>,
    after: &str,
) -> Result<Vec<QueryResult>, Error> {
    if connection.get_database_backend() == DbBackend::Postgres {
        let Some(kind) = values.first().map(Value::array_type) else {
            return Ok(Vec::new());
        };
        let array = Value::Array(kind, Some(Box::new(values)));
        return all(connection, &format!("{before} = ANY ($1) {after}"), [array]).await;
    }
    let mut returned = Vec::new();
    for chunk in values.chunks(LENGTHS[0]) {
        // Named twice is found once.
        let length = chunk.len().next_power_of_two();
        let sql = format!("{before} IN {} {after}", tuples(1, length));
        let repeated: Vec<Value> = chunk.iter().cycle().take(length).cloned().collect();
        returned.extend(all(connection, &sql, repeated).await?);
    }
    Ok(returned)
}

/// The time by the database's own clock, at this point of the transaction, after all that it has waited for. On SQLite
/// a write that runs waits for nothing, and `now` is the time.
pub(crate) async fn time<C: ConnectionTrait>(connection: &C, now: Timestamp) -> Result<Timestamp, Error> {
    if connection.get_database_backend() != DbBackend::Postgres {
        return Ok(now);
    }
    let row = one(connection, &format!("SELECT {CLOCK} AS now"), []).await?;
    timestamp(&row.ok_or_else(|| corrupt("no time"))?, "now")
}

/// The end of a SELECT whose rows are changed next: a second transaction waits. SQLite has only one at a time.
pub(crate) fn for_update<C: ConnectionTrait>(connection: &C) -> &'static str {
    match connection.get_database_backend() {
        DbBackend::Postgres => " FOR UPDATE",
        _ => "",
    }
}

/// A transaction that sees one state of the database throughout.
pub(crate) async fn snapshot(connection: &DatabaseConnection) -> Result<DatabaseTransaction, Error> {
    let options = match connection.get_database_backend() {
        DbBackend::Postgres => TransactionOptions {
            isolation_level: Some(IsolationLevel::RepeatableRead),
            access_mode: Some(AccessMode::ReadOnly),
            ..TransactionOptions::default()
        },
        // Every transaction of SQLite does.
        _ => TransactionOptions::default(),
    };
    Ok(connection.begin_with_options(options).await?)
}

/// A [`snapshot`] for reads of events, deliveries and attempts. When a day is dropped, rows that stay move to another
/// table. A snapshot from before that, which reads after it, would find them in neither. So the tables are locked
/// first.
pub(crate) async fn history(connection: &DatabaseConnection) -> Result<DatabaseTransaction, Error> {
    let snapshot = snapshot(connection).await?;
    if snapshot.get_database_backend() == DbBackend::Postgres {
        let lock = "LOCK TABLE ONLY events, ONLY deliveries_closed, ONLY attempts IN ACCESS SHARE MODE";
        snapshot.execute_unprepared(lock).await?;
    }
    Ok(snapshot)
}

/// PostgreSQL's clock in microseconds. Unlike `now()` it is not the time at which the transaction began.
pub(crate) const CLOCK: &str = "(extract(epoch FROM clock_timestamp()) * 1000000)::bigint";

/// Runs a query; its rows.
pub async fn all<C: ConnectionTrait>(
    connection: &C,
    sql: &str,
    values: impl IntoIterator<Item = Value>,
) -> Result<Vec<QueryResult>, Error> {
    let statement = Statement::from_sql_and_values(connection.get_database_backend(), sql, values);
    Ok(connection.query_all_raw(statement).await?)
}

/// Runs a query; its first row.
pub async fn one<C: ConnectionTrait>(
    connection: &C,
    sql: &str,
    values: impl IntoIterator<Item = Value>,
) -> Result<Option<QueryResult>, Error> {
    let statement = Statement::from_sql_and_values(connection.get_database_backend(), sql, values);
    Ok(connection.query_one_raw(statement).await?)
}

/// Runs a statement; how many rows it touched.
pub async fn execute<C: ConnectionTrait>(
    connection: &C,
    sql: &str,
    values: impl IntoIterator<Item = Value>,
) -> Result<u64, Error> {
    let statement = Statement::from_sql_and_values(connection.get_database_backend(), sql, values);
    Ok(connection.execute_raw(statement).await?.rows_affected())
}

/// A column of a row.
pub fn get<T: TryGetable>(row: &QueryResult, column: &str) -> Result<T, Error> {
    Ok(row.try_get("", column)?)
}

/// A column that is an identifier.
pub fn uuid(row: &QueryResult, column: &str) -> Result<Uuid, Error> {
    get(row, column)
}

/// A column that is an instant.
pub fn timestamp(row: &QueryResult, column: &str) -> Result<Timestamp, Error> {
    Ok(Timestamp::from_micros(get(row, column)?))
}

/// A column that is an instant or null.
pub fn optional_timestamp(row: &QueryResult, column: &str) -> Result<Option<Timestamp>, Error> {
    Ok(get::<Option<i64>>(row, column)?.map(Timestamp::from_micros))
}

/// A column that is a trace context or null. One that an earlier version kept and that is none is left out: it led
/// nowhere.
pub fn trace_context(row: &QueryResult, column: &str) -> Result<Option<TraceContext>, Error> {
    Ok(get::<Option<String>>(row, column)?.and_then(|text| text.parse().ok()))
}

/// A code that the schema's CHECKs rule out.
pub fn corrupt(what: &'static str) -> Error {
    Error::Corrupt(what)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statements_are_filled_up_to_a_length_that_is_prepared_and_leave_out_no_row() {
        for count in (0..=800).chain([1500]) {
            let rows = (0..count).map(|n: i64| [n.into(), (-n).into()]).collect();
            let mut next = 0;
            for (sql, values) in filled("INSERT INTO t", rows, "ON CONFLICT DO NOTHING") {
                let length = values.len() / 2;
                assert!(FILLED.contains(&length), "{length} of {count}");
                assert_eq!(sql.matches("(?,?)").count(), length);
                let mut last = Vec::new();
                for row in values.chunks(2) {
                    if row != last.as_slice() {
                        assert_eq!(row, [next.into(), (-next).into()]);
                        next += 1;
                    }
                    last = row.to_vec();
                }
            }
            assert_eq!(next, count);
        }
    }
}
