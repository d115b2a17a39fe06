//! Messages that are no events, or none that the ledger can hold.

use crate::sql::{all, execute, get, timestamp, uuid};
use crate::{Error, Ledger};
use herald_domain::time::Timestamp;
use std::sync::Arc;
use uuid::Uuid;

/// How much of a rejected message is kept.
pub const MAX_REJECTED_BYTES: usize = 1 << 20;

/// A message that is no event, kept whole.
#[derive(Debug, Clone)]
pub struct Rejected {
    /// In whose scope it came.
    pub account: Arc<str>,
    /// Why, as the problem answer's `errors`.
    pub faults: String,
    /// What came, up to [`MAX_REJECTED_BYTES`].
    pub body: Vec<u8>,
    /// How long it was.
    pub body_bytes: usize,
}

/// A message that was no event.
#[derive(Debug, Clone)]
pub struct RejectedView {
    /// The id of the record.
    pub id: Uuid,
    /// In whose scope it came.
    pub account: String,
    /// When it was rejected.
    pub received_at: Timestamp,
    /// Why, as JSON: the `errors` of a problem answer.
    pub faults: String,
    /// What came, up to 1 MiB.
    pub body: Vec<u8>,
    /// How long it was.
    pub body_bytes: i64,
}

impl Ledger {
    /// Keeps a message that is no event, once for each `id`, a `UUIDv7`. Whoever tries it again, because nobody knows
    /// whether it was written, does so by the same.
    pub async fn reject(&self, id: Uuid, rejected: Rejected) -> Result<(), Error> {
        self.store
            .write(move |txn, now| {
                Box::pin(async move {
                    let size = i64::try_from(rejected.body_bytes).unwrap_or(i64::MAX);
                    let mut body = rejected.body;
                    // What is kept for people to read must not be refused in its turn.
                    let text = |text: &str| text.replace('\0', "\u{fffd}");
                    body.truncate(MAX_REJECTED_BYTES);
                    execute(
                        txn,
                        "INSERT INTO rejected_events (id, account, received_at, faults, body, body_bytes) \
                         VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT DO NOTHING",
                        [
                            id.into(),
                            text(&rejected.account).into(),
                            now.as_micros().into(),
                            text(&rejected.faults).into(),
                            body.into(),
                            size.into(),
                        ],
                    )
                    .await?;
                    Ok(())
                })
            })
            .await
    }

    /// Messages that were no events, newest first, those before `before`; one scope's only, if one is
    /// given.
    pub async fn rejected(
        &self,
        account: Option<&str>,
        before: Option<Uuid>,
        limit: u64,
    ) -> Result<Vec<RejectedView>, Error> {
        let before = before.unwrap_or(Uuid::max());
        // Two texts, so that each finds its index.
        let of_account = account.map_or("", |_| "AND account = $3");
        let mut values = vec![before.into(), limit.into()];
        values.extend(account.map(|account| account.to_owned().into()));
        let sql = format!("SELECT * FROM rejected_events WHERE id < $1 {of_account} ORDER BY id DESC LIMIT $2");
        let rows = self.store.ask(all(self.store.api(), &sql, values)).await?;
        rows.iter()
            .map(|row| {
                Ok(RejectedView {
                    id: uuid(row, "id")?,
                    account: get(row, "account")?,
                    received_at: timestamp(row, "received_at")?,
                    faults: get(row, "faults")?,
                    body: get(row, "body")?,
                    body_bytes: get(row, "body_bytes")?,
                })
            })
            .collect()
    }
}
