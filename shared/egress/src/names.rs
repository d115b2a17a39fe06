//! Name resolution. A name whose servers do not answer (a *silent* name) does not delay look-ups of other names.
//!
//! Look-ups are asynchronous, so one that waits costs a socket and no thread. Each name is looked up once at a time, by
//! a task of its own with a time limit of its own. If a request gives up earlier, the answer is there for the next one.
//! A silent name is not looked up again for a while. After that it uses a small share of the slots, so that silent
//! names, however many there are, leave most slots to the others.
//!
//! The host of a URL is a full name: it is looked up as it is written and in no search domain, whatever the
//! system's settings (RFC 1535). A name without a dot is looked up as it is; a container network may answer it. A
//! service in a Kubernetes cluster needs its full name, `service.namespace.svc.cluster.local`.
//!
//! The addresses of names are remembered, but never that they were permitted: see [`crate::Client`].

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

/// The most silent names that are remembered. Beyond that the oldest are forgotten, and are waited for once more.
const KNOWN_SILENT: usize = 10_000;

/// The limits of look-ups, in number and in time.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    /// Look-ups at a time.
    pub(crate) at_once: usize,
    /// Look-ups of silent names at a time.
    pub(crate) silent_at_once: usize,
    /// How long a look-up may take, with its wait for a slot.
    pub(crate) lookup: Duration,
    /// How long a silent name is not looked up again.
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
    /// Its name servers answered with an error, or could not be asked.
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

/// Looks up the addresses of names.
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
    /// The silent names, and when each did not answer.
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
    /// Look-ups at these name servers, or at those of the system if none are given. Names in `/etc/hosts` are known
    /// without asking.
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
            // The panic hook has written the panic to the log; the next look-up begins anew.
            let answer = answer.unwrap_or_else(|_panic| {
                Err(LookupError::Broken {
                    name: Arc::clone(&asked),
                })
            });
            self.conclude(&asked, &answer);
            // If no request waits any more, the resolver remembers the answer for the next one.
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
        // A panic leaves nothing half done here.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Forgets the older half of the silent names at once, so that this is seldom needed.
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
