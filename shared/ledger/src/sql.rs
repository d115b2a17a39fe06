//! Statements over many rows, and rows back into types.

use crate::Error;
use herald_domain::time::Timestamp;
use sea_orm::{ConnectionTrait, QueryResult, Statement, TryGetable, Value};
use uuid::Uuid;

/// Statements are prepared once per length, so rows go in lengths of these and no other.
const LENGTHS: [usize; 5] = [256, 64, 16, 4, 1];

/// Runs `before (..),(..) after` for all rows, a few statements at most, and collects what they return.
pub async fn for_rows<const N: usize, C: ConnectionTrait>(
    connection: &C,
    before: &str,
    rows: Vec<[Value; N]>,
    after: &str,
) -> Result<Vec<QueryResult>, Error> {
    let mut rows = rows.into_iter();
    let mut returned = Vec::new();
    for length in LENGTHS {
        while rows.len() >= length {
            let values: Vec<Value> = rows.by_ref().take(length).flatten().collect();
            let sql = format!("{before} {} {after}", tuples(length, N));
            let statement = Statement::from_sql_and_values(connection.get_database_backend(), sql, values);
            returned.extend(connection.query_all_raw(statement).await?);
        }
    }
    Ok(returned)
}

/// `(?,?),(?,?)` for two rows of two. Not `$1`, which SQLite would take for a name, and look every one
/// of them up among all the others.
fn tuples(rows: usize, columns: usize) -> String {
    let row = format!("({})", vec!["?"; columns].join(","));
    vec![row; rows].join(",")
}

/// Runs `before (?,..) after` over a list of values, in a few statements at most.
pub async fn for_values<C: ConnectionTrait>(
    connection: &C,
    before: &str,
    values: Vec<Value>,
    after: &str,
) -> Result<Vec<QueryResult>, Error> {
    let mut values = values.into_iter();
    let mut returned = Vec::new();
    for length in LENGTHS {
        while values.len() >= length {
            let chunk: Vec<Value> = values.by_ref().take(length).collect();
            let sql = format!("{before} {} {after}", tuples(1, length));
            let statement = Statement::from_sql_and_values(connection.get_database_backend(), sql, chunk);
            returned.extend(connection.query_all_raw(statement).await?);
        }
    }
    Ok(returned)
}

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

/// A code that the schema's CHECKs rule out.
pub fn corrupt(what: &'static str) -> Error {
    Error::Corrupt(what)
}
