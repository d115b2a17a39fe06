//! Where a process's events and deliveries are: in one file, or in RabbitMQ and PostgreSQL.

use crate::causes;
use crate::process::config::Config;
use crate::process::data::DataFolder;
use crate::process::roles::Role;
use crate::process::tasks::Tasks;
use anyhow::Context;
use herald_domain::time::{Clock, SystemClock};
use herald_ledger::reconnect::Delays;
use herald_ledger::{Error, Ledger};
use herald_queue::rabbitmq::{Rabbit, Settings};
use herald_queue::{Embedded, Queue};
use herald_telemetry::health::Health;
use std::sync::Arc;

/// The part under which connecting to the ledger is reported.
const PART: &str = "ledger";

/// The ledger and the event queue, with the tasks that they need.
pub(crate) struct Stores {
    pub(crate) ledger: Ledger,
    pub(crate) queue: Queue,
    /// RabbitMQ, where that is the queue.
    pub(crate) rabbit: Option<Rabbit>,
    /// The lock on the folder of the embedded default.
    pub(crate) data: Option<DataFolder>,
}

/// Opens them. A file must be there to be opened; what is reached over a network is waited for.
pub(crate) async fn open(config: &Config, role: Role, health: &Health, tasks: &mut Tasks) -> anyhow::Result<Stores> {
    let Some((broker, database)) = config.shared() else {
        anyhow::ensure!(
            role == Role::Up,
            "herald {} is one of several processes, which share RabbitMQ and PostgreSQL: give --broker and --database; \
             without them herald up runs every role in one process",
            role.name()
        );
        return embedded(config, tasks).await;
    };
    let settings = broker_settings(config, broker)?;
    say_what_is_ignored(database)?;
    let ledger = connect(database, role, health).await?;
    let (rabbit, publisher) = Rabbit::open(settings, ledger.clock(), health.clone());
    if role.publishes() {
        tasks.supervise("queue publisher", publisher);
    }
    Ok(Stores {
        ledger,
        queue: Queue::Rabbit(rabbit.clone()),
        rabbit: Some(rabbit),
        data: None,
    })
}

async fn embedded(config: &Config, tasks: &mut Tasks) -> anyhow::Result<Stores> {
    let data = DataFolder::open(&config.data)?;
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let (ledger, writer) = Ledger::open(&herald_ledger::file_in(data.path()), clock)
        .await
        .with_context(|| format!("cannot open the ledger in {}", data.path().display()))?;
    tasks.supervise("ledger writer", writer.run());
    ledger.register_packs().await.context("cannot write the ledger")?;
    let (queue, publisher) = Embedded::open(ledger.store().clone());
    tasks.supervise("queue publisher", publisher);
    Ok(Stores {
        ledger,
        queue: Queue::Embedded(queue),
        rabbit: None,
        data: Some(data),
    })
}

/// Says what of the database's URL is ignored, by name: the value may be a secret.
pub(crate) fn say_what_is_ignored(database: &str) -> anyhow::Result<()> {
    let ignored = Ledger::read_url(database).context("--database")?;
    if !ignored.is_empty() {
        let ignored = ignored.join(", ");
        tracing::warn!(
            parameters = ignored,
            "parameters of --database are not known, and are ignored"
        );
    }
    Ok(())
}

/// How to reach the broker.
pub(crate) fn broker_settings(config: &Config, broker: &str) -> anyhow::Result<Settings> {
    let mut settings = Settings::new(broker)?;
    if let Some(file) = &config.broker_ca {
        let pem = crate::text::read_settings(file).context("--broker-ca")?;
        settings = settings.with_ca(pem.into_bytes())?;
    }
    settings.trusted_users.extend(config.broker_users.iter().cloned());
    Ok(settings)
}

/// Connects to the database and brings the schema up to date, however often it takes: a process that is
/// started before its database waits for it, and says so.
///
/// # Errors
/// If waiting is of no use.
async fn connect(database: &str, role: Role, health: &Health) -> anyhow::Result<Ledger> {
    let mut delays = Delays::default();
    health.failing(PART, "connecting to the database");
    loop {
        let connected = match Ledger::connect(database).await {
            Err(Error::Schema(_)) => match Ledger::migrate(database).await {
                Ok(()) => Ledger::connect(database).await,
                Err(error) => Err(error),
            },
            connected => connected,
        };
        let connected = match connected {
            Ok(ledger) => is_usable(&ledger, role).await.map(|()| ledger),
            Err(error) => Err(error),
        };
        match connected {
            Ok(ledger) => {
                health.ok(PART);
                return Ok(ledger);
            }
            Err(error @ Error::Unfit(_)) => return Err(error).context("--database"),
            Err(error) => {
                let error = causes::of(&error.into());
                tracing::warn!(error, "the ledger cannot be reached; it is tried again");
                health.failing(PART, format!("the ledger cannot be reached: {error}"));
            }
        }
        tokio::time::sleep(delays.next_delay()).await;
    }
}

/// Whether the ledger takes writes: one that only reads is as good as none. The role that changes the catalogue registers
/// the event types that come with Herald.
async fn is_usable(ledger: &Ledger, role: Role) -> Result<(), Error> {
    ledger.registry_version().await?;
    if role.manages() {
        ledger.register_packs().await?;
    }
    Ok(())
}

/// Makes or updates the ledger's schema, and the broker's exchanges and queues; what was done, in words.
pub(crate) async fn migrate(config: &Config) -> anyhow::Result<String> {
    let Some((broker, database)) = config.shared() else {
        let data = DataFolder::open(&config.data)?;
        Ledger::open(&herald_ledger::file_in(data.path()), Arc::new(SystemClock)).await?;
        return Ok(format!("the ledger in {} is up to date", data.path().display()));
    };
    let settings = broker_settings(config, broker)?;
    say_what_is_ignored(database)?;
    Ledger::migrate(database).await.context("--database")?;
    herald_queue::rabbitmq::declare(&settings).await.context("--broker")?;
    Ok(format!(
        "the ledger's schema is up to date, and so are the exchanges and queues of {settings}"
    ))
}
