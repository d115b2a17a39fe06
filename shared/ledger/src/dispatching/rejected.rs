//! Messages that are no events, or none that the ledger can hold.

use super::count;
use crate::sql::execute;
use crate::{Error, Ledger};
use std::sync::Arc;
use uuid::Uuid;

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

/// How much of a rejected message is kept.
pub const MAX_REJECTED_BYTES: usize = 1 << 20;

impl Ledger {
    /// Keeps a message that is no event, once for each `id`, a `UUIDv7`. Whoever tries it again, because nobody knows
    /// whether it was written, does so by the same.
    pub async fn reject(&self, id: Uuid, rejected: Rejected) -> Result<(), Error> {
        self.store
            .write(move |txn, now| {
                Box::pin(async move {
                    let size = count(rejected.body_bytes);
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
                            size,
                        ],
                    )
                    .await?;
                    Ok(())
                })
            })
            .await
    }
}
