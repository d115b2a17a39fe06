//! What a Herald of several processes is built on: a vhost and a database, made ready ahead of time.
//!
//! `herald migrate` takes seconds on a fresh vhost, most of them waiting until the queues are old enough.
//! So some grounds are made in the background while tests run on others.

use super::output_of;
use super::shared::{Database, Vhost};
use crate::binary::{binary, command};
use std::path::Path;
use std::sync::OnceLock;
use tokio::sync::{Mutex, OnceCell, mpsc};

/// How many are being made at any time: with this many, two tests at a time that take two seconds each
/// find theirs ready.
const AHEAD: usize = 6;

/// A vhost and a database that `herald migrate` has seen.
#[derive(Debug)]
pub struct Ground {
    /// The vhost; it is removed first, so that nobody publishes to a queue without a ledger.
    pub vhost: Vhost,
    pub database: Database,
}

impl Ground {
    /// Takes a ground that is ready, or waits for the next.
    pub async fn take() -> Self {
        static READY: OnceLock<Mutex<mpsc::Receiver<Ground>>> = OnceLock::new();
        let ready = READY.get_or_init(|| Mutex::new(make_ahead()));
        let ground = ready.lock().await.recv().await;
        ground.expect("grounds are made: what prevents it is above")
    }

    async fn prepare() -> Self {
        static TEMPLATE: OnceCell<Database> = OnceCell::const_new();
        let vhost = Vhost::create().await;
        // The schema is made once and copied; making it is the work of a second each time. Who comes meanwhile waits.
        let template = TEMPLATE.get_or_init(async || {
            let database = Database::create();
            migrate(&binary(), vhost.url(), &database.url());
            database
        });
        let database = template.await.copy();
        migrate(&binary(), vhost.url(), &database.url());
        Self { vhost, database }
    }
}

/// `herald migrate` of that binary, to its end.
pub fn migrate(binary: &Path, broker: &str, database: &str) {
    let mut migrate = command(binary);
    migrate.args(["migrate", "--broker", broker, "--database", database]);
    let output = migrate.output().expect("the binary can be started");
    assert!(
        output.status.success(),
        "herald migrate ended with {}: {}",
        output.status,
        output_of(&output)
    );
}

/// Makes grounds for as long as the process lives. Each maker waits for its command on a thread of its
/// own, with a runtime of its own, because a test's ends with the test.
fn make_ahead() -> mpsc::Receiver<Ground> {
    let (ready, grounds) = mpsc::channel(1);
    for _ in 0..AHEAD {
        let ready = ready.clone();
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime
                .expect("a runtime")
                .block_on(async { while ready.send(Ground::prepare().await).await.is_ok() {} });
        });
    }
    grounds
}
