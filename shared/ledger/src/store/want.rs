//! Why no connection to the database was to be had. A pool says no more than that it has waited.

use super::{Store, Write};
use crate::Error;
use crate::cause::of_descriptors;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::Mutex;

/// For how long what was found is told of all that fail.
const FOR_ALL: Duration = Duration::from_secs(1);

/// What was found last, and when.
#[derive(Debug, Default)]
pub(super) struct Found(Mutex<Option<(Instant, Option<Arc<str>>)>>);

impl Store {
    /// The same, but an error that only says that there was no connection says why.
    pub(super) async fn explained<T>(&self, done: Result<T, Error>) -> Result<T, Error> {
        match done {
            Err(error) if error.lacks_a_connection() => Err(match self.want(error.is_of_a_pool()).await {
                Some(why) => Error::Unreachable(why),
                None => error,
            }),
            done => done,
        }
    }

    /// One looks for all that fail at a time.
    async fn want(&self, waited: bool) -> Option<Arc<str>> {
        let mut found = self.found.0.lock().await;
        if let Some((at, why)) = &*found
            && at.elapsed() < FOR_ALL
        {
            return why.clone();
        }
        let why = self.look(waited).await.map(Arc::from);
        *found = Some((Instant::now(), why.clone()));
        why
    }

    async fn look(&self, waited: bool) -> Option<String> {
        if let Some(words) = std::fs::File::open("/dev/null").err().as_ref().and_then(of_descriptors) {
            return Some(words.to_owned());
        }
        if let Write::Postgres(pool) = &self.write
            && let Err(why) = pool.try_to_connect().await
        {
            return Some(why);
        }
        waited.then(|| "all connections that this process may have to it are in use".to_owned())
    }
}
