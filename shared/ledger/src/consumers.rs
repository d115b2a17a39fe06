//! The messages that consumers of the event queue have in hand, as the consumers report them.
//!
//! A broker tells how many messages are ready, but not how many were handed out and are not acknowledged. So each
//! consumer writes that number down every second. An audit adds up the messages that were ready when it asked and those
//! that consumers reported after that: together they are everything that was in transit then.

use crate::sql::{all, execute, get, time};
use crate::{Error, Ledger};
use herald_domain::time::Timestamp;
use std::time::Duration;
use uuid::Uuid;

/// The time without a report after which a consumer is taken to be gone.
const GONE: Duration = Duration::from_mins(1);

/// The reports of consumers, added up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ConsumerReports {
    /// How many consumers have reported.
    pub consumers: u64,
    /// How many messages they have in hand, together.
    pub in_hand: u64,
}

impl Ledger {
    /// Writes down how many messages a consumer had in hand at that time, by the ledger's clock, which is
    /// never ahead of the database's.
    pub async fn report_in_hand(&self, consumer: Uuid, in_hand: u64, at: Timestamp) -> Result<(), Error> {
        let in_hand = i64::try_from(in_hand).unwrap_or(i64::MAX);
        self.store
            .write(move |txn, _now| {
                Box::pin(async move {
                    execute(
                        txn,
                        "INSERT INTO consumers (id, held, told_at) VALUES ($1, $2, $3) \
                         ON CONFLICT (id) DO UPDATE SET held = excluded.held, told_at = excluded.told_at",
                        [consumer.into(), in_hand.into(), at.as_micros().into()],
                    )
                    .await?;
                    Ok(())
                })
            })
            .await
    }

    /// Removes a consumer, and those that have been silent for long.
    pub async fn forget_consumer(&self, consumer: Uuid) -> Result<(), Error> {
        self.store
            .write(move |txn, now| {
                Box::pin(async move {
                    let silent_since = time(txn, now).await?.minus(GONE).as_micros();
                    let values = [consumer.into(), silent_since.into()];
                    execute(txn, "DELETE FROM consumers WHERE id = $1 OR told_at < $2", values).await?;
                    Ok(())
                })
            })
            .await
    }

    /// The reports that came after that moment, by the database's clock.
    pub async fn reports_since(&self, moment: Timestamp) -> Result<ConsumerReports, Error> {
        let rows = all(
            self.store.queries(),
            "SELECT count(*) AS consumers, CAST(coalesce(sum(held), 0) AS bigint) AS in_hand FROM consumers WHERE told_at > $1",
            [moment.as_micros().into()],
        )
        .await?;
        let number = |column| {
            let n: i64 = rows.first().map_or(Ok(0), |row| get(row, column))?;
            Ok::<_, Error>(u64::try_from(n).unwrap_or(0))
        };
        Ok(ConsumerReports {
            consumers: number("consumers")?,
            in_hand: number("in_hand")?,
        })
    }

    /// The time by the database's own clock.
    pub async fn database_time(&self) -> Result<Timestamp, Error> {
        time(self.store.queries(), self.now()).await
    }
}
