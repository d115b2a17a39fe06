//! The queue in the ledger's own file: a table whose rows are read in order, and deleted when acknowledged.
//!
//! Publishing goes through the ledger's writer, so one sync to disk covers everything that is published, dispatched and
//! delivered at the same moment. A single event need not go through the table; see [`direct`].

mod direct;

use crate::metrics::{Depths, LOOK_EVERY};
use crate::{Error, Message, Origin, Origins, QueueUse, Received, Route, Tag};
use direct::Direct;
use herald_domain::time::Timestamp;
use herald_ledger::sql::{self, for_rows, get};
use herald_ledger::store::Store;
use sea_orm::Value;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::{Notify, mpsc, oneshot};
use tokio::time::MissedTickBehavior;

/// The queue's name in metrics, the same as in RabbitMQ.
const EVENTS: &str = crate::NAME;

/// The most publications in one write. They come from as many requests.
const MAX_GROUP: usize = 1024;

/// The most bytes of publications in one write, which copies them in memory. A single one may be larger.
const MAX_GROUP_BYTES: usize = 4 << 20;

/// How long a publisher waits for its event to be recorded, if the event goes the direct way.
const PATIENCE: Duration = Duration::from_secs(2);

/// The queue in a [`Store`]; cheap to clone.
#[derive(Debug, Clone)]
pub struct Embedded {
    store: Store,
    publish: mpsc::Sender<Publication>,
    direct: Direct,
    table: Arc<Table>,
    depths: Arc<Depths>,
}

/// What publisher and consumer both know of the table.
#[derive(Debug, Default)]
struct Table {
    /// How often the table was written.
    writes: AtomicU64,
    /// Notified when it was written, or when an event goes the direct way.
    arrived: Notify,
}

#[derive(Debug)]
struct Publication {
    message: Message,
    answer: oneshot::Sender<Result<(), Error>>,
}

impl Embedded {
    /// The queue in that store, and its publisher, which the caller runs.
    pub fn open(store: Store) -> (Self, impl Future<Output = ()> + Send + use<>) {
        let (publish, publications) = mpsc::channel(MAX_GROUP);
        let table = Arc::<Table>::default();
        let publisher = run_publisher(store.clone(), publications, Arc::clone(&table));
        (
            Self {
                store,
                publish,
                direct: Direct::default(),
                table,
                depths: Arc::new(Depths::of(&[EVENTS])),
            },
            publisher,
        )
    }

    /// The queue in a store that another process writes, for reading only.
    pub fn read_only(store: Store) -> Self {
        let (publish, _closed) = mpsc::channel(1);
        Self {
            store,
            publish,
            direct: Direct::default(),
            table: Arc::default(),
            depths: Arc::new(Depths::of(&[EVENTS])),
        }
    }

    pub(crate) async fn publish(&self, message: Message, route: &Route) -> Result<(), Error> {
        let (answer, answered) = oneshot::channel();
        let closed = || Error::Storage(herald_ledger::Error::Closed);
        let mut publication = Publication { message, answer };
        if matches!(route, Route::Event(..)) {
            match self.direct.offer(publication) {
                Ok(()) => {
                    self.table.arrived.notify_one();
                    return match tokio::time::timeout(PATIENCE, answered).await {
                        Ok(answer) => answer.map_err(|_dropped| closed())?,
                        Err(_elapsed) => Err(Error::Storage(herald_ledger::Error::Slow(PATIENCE))),
                    };
                }
                Err(returned) => publication = returned,
            }
        }
        self.publish.send(publication).await.map_err(|_returned| closed())?;
        answered.await.map_err(|_dropped| closed())?
    }

    pub(crate) fn consumer(&self) -> Consumer {
        self.direct.attach();
        Consumer {
            store: self.store.clone(),
            direct: self.direct.clone(),
            table: Arc::clone(&self.table),
            position: 0,
            seen: None,
            tables_turn: false,
        }
    }

    pub(crate) async fn acknowledge(&self, up_to: Tag) -> Result<(), Error> {
        if self.direct.acknowledge(up_to) {
            return Ok(());
        }
        self.store
            .write(move |txn, _now| {
                Box::pin(async move {
                    sql::execute(txn, "DELETE FROM queue_messages WHERE seq <= $1", [up_to.place.into()]).await
                })
            })
            .await?;
        Ok(())
    }

    pub(crate) async fn in_transit(&self) -> Result<u64, Error> {
        let rows = sql::all(
            self.store.read(),
            "SELECT coalesce(sum(events), 0) AS n FROM queue_messages",
            [],
        )
        .await?;
        let count: i64 = rows.first().map_or(Ok(0), |row| get(row, "n"))?;
        Ok(u64::try_from(count).unwrap_or(0))
    }

    pub(crate) fn register_metrics(
        &self,
        queue_use: QueueUse,
        registry: &prometheus::Registry,
    ) -> Result<(), prometheus::Error> {
        match queue_use {
            QueueUse::Publish => Ok(()),
            QueueUse::Consume => self.depths.register(registry),
        }
    }

    pub(crate) async fn watch(&self) {
        let mut looks = tokio::time::interval(LOOK_EVERY);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            looks.tick().await;
            match self.depth().await {
                Ok((messages, mean)) => {
                    self.depths.set(EVENTS, messages, 1);
                    self.depths.estimate(messages, mean);
                }
                Err(error) => tracing::debug!(
                    error = &error as &dyn std::error::Error,
                    "the event queue's depth could not be looked at"
                ),
            }
        }
    }

    /// The number of messages in the table, and the mean number of events of the first ones. Messages are deleted in
    /// their order, so the positions of the first and the last tell the number.
    async fn depth(&self) -> Result<(u64, f64), Error> {
        let rows = sql::all(
            self.store.read(),
            "SELECT coalesce((SELECT max(seq) FROM queue_messages) - (SELECT min(seq) FROM queue_messages) + 1, 0) AS n, \
               coalesce((SELECT avg(events) FROM (SELECT events FROM queue_messages ORDER BY seq LIMIT 100)), 1.0) AS mean",
            [],
        )
        .await?;
        let (count, mean): (i64, f64) = match rows.first() {
            Some(row) => (get(row, "n")?, get(row, "mean")?),
            None => (0, 1.0),
        };
        Ok((u64::try_from(count).unwrap_or(0), mean))
    }

    /// Hands every message in the queue to `look`, in order, without taking any.
    pub async fn scan(&self, mut look: impl FnMut(&Received) + Send) -> Result<(), Error> {
        let mut position = 0;
        loop {
            let page = read(&self.store, position, 64).await?;
            for received in &page {
                look(received);
                position = received.tag.place;
            }
            if page.is_empty() {
                return Ok(());
            }
        }
    }
}

/// Writes the messages that were published since the last write, in one statement or a few.
async fn run_publisher(store: Store, mut publications: mpsc::Receiver<Publication>, table: Arc<Table>) {
    let mut group = Vec::with_capacity(MAX_GROUP);
    while publications.recv_many(&mut group, MAX_GROUP).await > 0 {
        while !group.is_empty() {
            let later = group.split_off(fitting(&group));
            write(&store, std::mem::replace(&mut group, later)).await;
            table.writes.fetch_add(1, Ordering::Release);
            table.arrived.notify_one();
        }
    }
}

/// How many of the first publications go into one write; at least one.
fn fitting(group: &[Publication]) -> usize {
    let mut bytes = 0;
    let fits = group.iter().take_while(|publication| {
        bytes += publication.message.body.len();
        bytes <= MAX_GROUP_BYTES
    });
    fits.count().max(1)
}

async fn write(store: &Store, group: Vec<Publication>) {
    let (mut rows, mut answers) = (Vec::with_capacity(group.len()), Vec::with_capacity(group.len()));
    for Publication { message, answer } in group {
        rows.push(row(message));
        answers.push(answer);
    }
    let written = store
        .write(move |txn, _now| {
            Box::pin(async move {
                let insert = "INSERT INTO queue_messages (account, accepted_at, traceparent, events, body)";
                for_rows(txn, insert, rows, "").await
            })
        })
        .await;
    let written = written.map(|_no_rows| ()).map_err(Error::from);
    for answer in answers {
        // A request that has gone away does not want the answer. Its message counts all the same.
        drop(answer.send(written.clone()));
    }
}

fn row(Message { origin, body }: Message) -> [Value; 5] {
    [
        (*origin.account).into(),
        origin.accepted_at.as_micros().into(),
        origin.traceparent.map(|context| context.to_string()).into(),
        i64::try_from(origin.events).unwrap_or(i64::MAX).into(),
        body.into(),
    ]
}

/// Reads the embedded queue: the table in order, and in turn with it the events that go the direct way.
#[derive(Debug)]
pub struct Consumer {
    store: Store,
    direct: Direct,
    table: Arc<Table>,
    /// The position of the last message of the table that was handed out.
    position: i64,
    /// How often the table had been written when it was last found read to its end.
    seen: Option<u64>,
    /// Whether the last turn was the table's.
    tables_turn: bool,
}

impl Consumer {
    pub(crate) async fn next(&mut self, max_events: usize, max_bytes: usize) -> Result<Vec<Received>, Error> {
        loop {
            for _ in 0..2 {
                self.tables_turn = !self.tables_turn;
                let taken = if self.tables_turn {
                    self.read_table(max_events, max_bytes).await?
                } else {
                    self.direct.take(max_events, max_bytes)
                };
                if !taken.is_empty() {
                    return Ok(taken);
                }
            }
            self.table.arrived.notified().await;
        }
    }

    async fn read_table(&mut self, max_events: usize, max_bytes: usize) -> Result<Vec<Received>, Error> {
        let writes = self.table.writes.load(Ordering::Acquire);
        if self.seen == Some(writes) {
            return Ok(Vec::new());
        }
        let (mut events, mut bytes) = (0, 0);
        let mut taken = read(&self.store, self.position, max_events).await?;
        let fits = taken.iter().take_while(|received| {
            let first = events == 0;
            events += received.origins.events();
            bytes += received.body.len();
            first || (events <= max_events && bytes <= max_bytes)
        });
        let fits = fits.count();
        taken.truncate(fits);
        match taken.last() {
            Some(last) => self.position = last.tag.place,
            None => self.seen = Some(writes),
        }
        Ok(taken)
    }
}

impl Drop for Consumer {
    fn drop(&mut self) {
        self.direct.detach();
    }
}

/// The messages behind `position`. Their bodies together may be large, so fewer are read at a time if the first ones
/// are large.
async fn read(store: &Store, position: i64, limit: usize) -> Result<Vec<Received>, Error> {
    let limit = u64::try_from(limit).unwrap_or(u64::MAX).min(512);
    // At most 4 MiB at a time, but always the first message. The inner query reads lengths only.
    let rows = sql::all(
        store.read(),
        "SELECT seq, account, accepted_at, traceparent, events, body FROM queue_messages WHERE seq > $1 AND seq <= coalesce( \
           (SELECT max(seq) FROM (SELECT seq, sum(bytes) OVER (ORDER BY seq) AS total, row_number() OVER (ORDER BY seq) AS n \
            FROM (SELECT seq, length(body) AS bytes FROM queue_messages WHERE seq > $1 ORDER BY seq LIMIT $2)) WHERE total <= 4194304 OR n = 1), 0) \
         ORDER BY seq",
        [position.into(), limit.into()],
    )
    .await?;
    let mut messages = Vec::with_capacity(rows.len());
    for row in &rows {
        let account: String = get(row, "account")?;
        let events: i64 = get(row, "events")?;
        messages.push(Received {
            tag: Tag {
                generation: 0,
                place: get(row, "seq")?,
            },
            trusted: true,
            accepted: true,
            message_id: None,
            redeliveries: 0,
            encoding: None,
            cloud_event: None,
            cut: None,
            origins: Origins::from(Origin {
                account: account.into(),
                accepted_at: Timestamp::from_micros(get(row, "accepted_at")?),
                traceparent: sql::trace_context(row, "traceparent")?,
                events: usize::try_from(events).unwrap_or(1),
            }),
            body: get(row, "body")?,
        });
    }
    Ok(messages)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn publications(sizes: &[usize]) -> Vec<Publication> {
        let publication = |size: &usize| Publication {
            message: Message {
                origin: Origin {
                    account: "acme".into(),
                    accepted_at: Timestamp::from_micros(0),
                    traceparent: None,
                    events: 1,
                },
                body: vec![b' '; *size],
            },
            answer: oneshot::channel().0,
        };
        sizes.iter().map(publication).collect()
    }

    #[test]
    fn a_write_has_what_fits_and_at_least_one() {
        for (sizes, fits) in [
            (&[MAX_GROUP_BYTES, 1][..], 1),
            (&[MAX_GROUP_BYTES - 1, 1, 1], 2),
            (&[MAX_GROUP_BYTES + 1, 1], 1),
            (&[1, MAX_GROUP_BYTES], 1),
            (&[1, 1, 1], 3),
        ] {
            assert_eq!(fitting(&publications(sizes)), fits, "{sizes:?}");
        }
    }
}
