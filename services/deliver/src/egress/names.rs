//! Names to addresses, so that a name whose servers do not answer delays nobody else.
//!
//! Look-ups are asynchronous, so one that waits costs a socket and no thread. Each name is asked for once
//! at a time, by a task of its own that ends by a limit of its own: whoever gives up earlier leaves the answer
//! to the next. A name that did not answer is not asked for again for a while, and then from a small
//! share of the slots, so that such names, however many there are, leave most of them to the others.
//!
//! The host of a URL is a full name: it is looked up as it is written and in no search domain, whatever the
//! system's settings (RFC 1535). A name without a dot is asked for as it is, which a container network may
//! answer; of a service in a Kubernetes cluster the full name is needed, `service.namespace.svc.cluster.local`.
//!
//! What is remembered is what names answered, never that it was permitted: see [`super::Sender`].

mod servers;

use futures_util::FutureExt;
use futures_util::future::{BoxFuture, Shared};
use hickory_resolver::net::NetError;
use servers::Servers;
use std::collections::HashMap;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::{Semaphore, oneshot};

/// Silent names that are known at a time. Beyond it the oldest are forgotten, and wait once more.
const KNOWN_SILENT: usize = 10_000;

/// How much is asked at a time, and for how long.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    /// Look-ups at a time.
    pub(crate) at_once: usize,
    /// Of names that did not answer last time.
    pub(crate) silent_at_once: usize,
    /// How long one may take, its wait for a slot included.
    pub(crate) lookup: Duration,
    /// How long a name that did not answer is not asked for.
    pub(crate) silence: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            // A look-up has a socket or two open; attempts in flight have up to 1,024.
            at_once: 256,
            silent_at_once: 32,
            // A question and one that repeats it.
            lookup: Duration::from_secs(5),
            silence: Duration::from_secs(5),
        }
    }
}

/// Why a name led nowhere.
#[derive(Debug, Clone, thiserror::Error)]
pub(crate) enum LookupError {
    /// Its name servers said so, or could not be asked.
    #[error("{name} did not resolve")]
    Answer {
        name: Arc<str>,
        #[source]
        error: NetError,
    },
    /// No answer in time.
    #[error("the name servers of {name} did not answer")]
    Silent { name: Arc<str> },
    /// The look-up ended without an answer.
    #[error("the look-up of {name} broke off")]
    Broken { name: Arc<str> },
    /// No slot in time.
    #[error("too many names are being looked up to look up {name}")]
    Busy { name: Arc<str> },
}

type Answer = Result<Arc<[IpAddr]>, LookupError>;

/// Asks name servers for the addresses of a name.
type Ask = Box<dyn Fn(&str) -> BoxFuture<'static, Result<Vec<IpAddr>, NetError>> + Send + Sync>;

/// Looks names up.
pub(crate) struct Names {
    ask: Ask,
    limits: Limits,
    slots: Semaphore,
    silent_slots: Semaphore,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    under_way: HashMap<Arc<str>, Shared<oneshot::Receiver<Answer>>>,
    /// When each of them did not answer.
    silent: HashMap<Arc<str>, Instant>,
}

impl fmt::Debug for Names {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Names")
            .field("limits", &self.limits)
            .finish_non_exhaustive()
    }
}

impl Names {
    /// Asks these name servers, or those of the system where there are none. Names in `/etc/hosts` are
    /// known without asking.
    pub(crate) fn new(servers: &[SocketAddr]) -> Result<Self, NetError> {
        let limits = Limits::default();
        let servers = Servers::new(servers, limits.at_once)?;
        let ask: Ask = Box::new(move |name| {
            let (resolvers, name) = (servers.resolvers(), name.to_owned());
            async move { resolvers.look_up(&name).await }.boxed()
        });
        Ok(Self::asking(ask, limits))
    }

    fn asking(ask: Ask, limits: Limits) -> Self {
        Self {
            ask,
            limits,
            slots: Semaphore::new(limits.at_once - limits.silent_at_once),
            silent_slots: Semaphore::new(limits.silent_at_once),
            state: Mutex::default(),
        }
    }

    /// The addresses of a name, in the order in which to try them.
    pub(crate) async fn look_up(self: Arc<Self>, name: &str) -> Answer {
        let (name, told) = self.join_or_begin(name)?;
        match told.await {
            Ok(answer) => answer,
            // The process is ending.
            Err(_gone) => Err(LookupError::Broken { name }),
        }
    }

    /// Joins the look-up that is under way, or begins one.
    fn join_or_begin(
        self: Arc<Self>,
        name: &str,
    ) -> Result<(Arc<str>, Shared<oneshot::Receiver<Answer>>), LookupError> {
        let mut state = self.state();
        if let Some((name, told)) = state.under_way.get_key_value(name) {
            return Ok((Arc::clone(name), told.clone()));
        }
        let silent = state
            .silent
            .get_key_value(name)
            .map(|(name, since)| (Arc::clone(name), *since));
        let (name, was_silent) = match silent {
            Some((name, since)) if since.elapsed() < self.limits.silence => return Err(LookupError::Silent { name }),
            Some((name, _)) => (name, true),
            None => (Arc::from(name), false),
        };
        let (tell, told) = oneshot::channel();
        let told = told.shared();
        state.under_way.insert(Arc::clone(&name), told.clone());
        drop(state);
        let asked = Arc::clone(&name);
        tokio::spawn(async move {
            let answer = AssertUnwindSafe(self.ask(&asked, was_silent)).catch_unwind().await;
            // The panic is in the log, by the panic hook; the next look-up begins anew.
            let answer = answer.unwrap_or_else(|_panic| {
                Err(LookupError::Broken {
                    name: Arc::clone(&asked),
                })
            });
            self.conclude(&asked, &answer);
            // If nobody waits any more, the resolver remembers it for the next.
            drop(tell.send(answer));
        });
        Ok((name, told))
    }

    async fn ask(&self, name: &Arc<str>, was_silent: bool) -> Answer {
        let until = tokio::time::Instant::now() + self.limits.lookup;
        let slots = if was_silent { &self.silent_slots } else { &self.slots };
        let Ok(Ok(_slot)) = tokio::time::timeout_at(until, slots.acquire()).await else {
            return Err(LookupError::Busy { name: Arc::clone(name) });
        };
        match tokio::time::timeout_at(until, (self.ask)(name)).await {
            Ok(Ok(addresses)) => Ok(addresses.into()),
            Ok(Err(NetError::Timeout)) | Err(_) => Err(LookupError::Silent { name: Arc::clone(name) }),
            Ok(Err(error)) => Err(LookupError::Answer {
                name: Arc::clone(name),
                error,
            }),
        }
    }

    fn conclude(&self, name: &Arc<str>, answer: &Answer) {
        let mut state = self.state();
        state.under_way.remove(name);
        match answer {
            Err(LookupError::Silent { .. }) => {
                state.silent.insert(Arc::clone(name), Instant::now());
                if state.silent.len() > KNOWN_SILENT {
                    state.forget_oldest();
                }
            }
            Err(LookupError::Busy { .. } | LookupError::Broken { .. }) => {}
            Ok(_) | Err(LookupError::Answer { .. }) => drop(state.silent.remove(name)),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing is left half done where this could panic.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Forgets the older half, so that it is seldom done.
    fn forget_oldest(&mut self) {
        let mut times: Vec<_> = self.silent.values().copied().collect();
        let middle = times.len() / 2;
        let (_, median, _) = times.select_nth_unstable(middle);
        let median = *median;
        self.silent.retain(|_, since| *since > median);
    }
}

#[cfg(test)]
mod tests;
