//! How many requests of one account are served at a time.
//!
//! The API's reads share a few connections to the ledger, and a long list holds one for seconds. So no account
//! has more under way than leaves some to the others; what it asks beyond that waits its turn, and is answered
//! with 429 where that does not come soon.

use crate::Manage;
use axum::extract::{FromRequestParts as _, Request, State};
use axum::http::Method;
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use herald_access::Caller;
use herald_access::problem::Problem;
use herald_domain::id::AccountId;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// The most reads of one account at a time; the ledger has six connections for them.
const READS: usize = 4;

/// The most changes of one account at a time; they are short, and the ledger puts many in one commit.
const CHANGES: usize = 32;

/// How long a request waits for its turn.
const PATIENCE: Duration = Duration::from_secs(10);

/// Whose turn it is; cheap to clone.
#[derive(Debug, Clone, Default)]
pub(crate) struct Turns(Arc<Mutex<HashMap<AccountId, Turn>>>);

#[derive(Debug, Clone)]
struct Turn {
    reads: Arc<Semaphore>,
    changes: Arc<Semaphore>,
}

impl Turns {
    /// A turn for that account, held until it is dropped; none where too many are before it.
    async fn wait(&self, account: AccountId, method: &Method, patience: Duration) -> Option<OwnedSemaphorePermit> {
        let turn = {
            let mut turns = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            let fresh = || Turn {
                reads: Arc::new(Semaphore::new(READS)),
                changes: Arc::new(Semaphore::new(CHANGES)),
            };
            turns.entry(account).or_insert_with(fresh).clone()
        };
        let semaphore = if method.is_safe() { turn.reads } else { turn.changes };
        let permit = tokio::time::timeout(patience, semaphore.acquire_owned()).await;
        permit.ok()?.ok()
    }
}

/// Serves a request when it is its account's turn.
pub(crate) async fn take_turn(
    State((manage, turns)): State<(Manage, Turns)>,
    request: Request,
    next: Next,
) -> Response {
    let (mut parts, body) = request.into_parts();
    let caller = match Caller::from_request_parts(&mut parts, &manage).await {
        Ok(caller) => caller,
        Err(problem) => return problem.into_response(),
    };
    let Some(_turn) = turns.wait(caller.account(), &parts.method, PATIENCE).await else {
        let detail = format!(
            "this account has too many requests under way: {READS} reads and {CHANGES} changes are served at a time"
        );
        return Problem::too_many_requests(detail).into_response();
    };
    // So that the handler need not look it up again.
    parts.extensions.insert(caller);
    next.run(Request::from_parts(parts, body)).await
}

#[cfg(test)]
mod tests {
    use super::*;
    use uuid::Uuid;

    #[tokio::test]
    async fn an_account_waits_for_itself_and_for_nobody_else() {
        let turns = Turns::default();
        let (busy, other) = (AccountId(Uuid::from_u128(1)), AccountId(Uuid::from_u128(2)));
        let reads = (0..READS).map(|_| turns.wait(busy, &Method::GET, PATIENCE));
        let held = futures_util::future::join_all(reads).await;
        assert!(held.iter().all(Option::is_some));
        assert!(turns.wait(other, &Method::GET, PATIENCE).await.is_some());
        assert!(
            turns.wait(busy, &Method::POST, PATIENCE).await.is_some(),
            "a change is no read"
        );
        let soon = Duration::from_millis(1);
        assert!(turns.wait(busy, &Method::HEAD, soon).await.is_none());
        let waiting = async { turns.wait(busy, &Method::GET, PATIENCE).await.is_some() };
        let (served, ()) = tokio::join!(waiting, async { drop(held) });
        assert!(served);
    }
}
