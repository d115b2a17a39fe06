//! Names to addresses, so that a name whose servers do not answer delays nobody else.
//!
//! Look-ups are asynchronous, so one that waits costs a socket and no thread. Each name is asked for once
//! at a time, by a task of its own that ends by a limit of its own: whoever gives up earlier leaves the answer
//! to the next. A name that did not answer is not asked for again for a while, and then from a small
//! share of the slots, so that such names, however many there are, leave most of them to the others.
//!
//! What is remembered is what names answered, never that it was permitted: see [`super::Sender`].

use futures_util::FutureExt;
use futures_util::future::{BoxFuture, Shared};
use hickory_resolver::TokioResolver;
use hickory_resolver::config::{LookupIpStrategy, NameServerConfig, ResolverConfig, ResolverOpts};
use hickory_resolver::net::NetError;
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::proto::rr::Name;
use hickory_resolver::system_conf::read_system_conf;
use std::collections::HashMap;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::{Semaphore, oneshot};

/// How long one question waits for its answer; one packet lost costs no more.
const QUESTION_TIMEOUT: Duration = Duration::from_secs(2);

/// Questions after the first that was not answered.
const REPEATS: usize = 1;

/// How long an answer is remembered at most, whatever its name servers say of it; a subscriber who moves
/// is found again by then.
const REMEMBERED: Duration = Duration::from_secs(30);

/// The same of the answer that there is no such name: somebody may be making it right now.
const ABSENCE_REMEMBERED: Duration = Duration::from_secs(5);

/// Answers that are remembered at a time.
const REMEMBERED_ANSWERS: u64 = 4096;

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
            // A question and one that repeats it. If only one of the two kinds of address is answered, what
            // was is the answer by then.
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
    /// known without asking, as they were at the start.
    pub(crate) fn new(servers: &[SocketAddr]) -> Result<Self, NetError> {
        let resolver = resolver(servers)?;
        let ask: Ask = Box::new(move |name| {
            let resolver = resolver.clone();
            let name = Name::from_ascii(name);
            async move { Ok(resolver.lookup_ip(name?).await?.into_iter().collect()) }.boxed()
        });
        Ok(Self::asking(ask, Limits::default()))
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

fn resolver(servers: &[SocketAddr]) -> Result<TokioResolver, NetError> {
    let (config, system) = if servers.is_empty() {
        read_system_conf().unwrap_or_else(|error| {
            // As the C library has it: where nothing is configured, this machine is asked.
            tracing::warn!(%error, "/etc/resolv.conf cannot be used; names are looked up at 127.0.0.1");
            let here = NameServerConfig::udp_and_tcp(Ipv4Addr::LOCALHOST.into());
            (ResolverConfig::from_name_servers(vec![here]), ResolverOpts::default())
        })
    } else {
        let servers = servers.iter().map(|server| name_server(*server)).collect();
        (ResolverConfig::from_name_servers(servers), ResolverOpts::default())
    };
    let mut builder = TokioResolver::builder_with_config(config, TokioRuntimeProvider::default());
    let options = builder.options_mut();
    *options = system;
    options.timeout = options.timeout.min(QUESTION_TIMEOUT);
    options.attempts = REPEATS;
    // IPv4 first, and where it does not connect at once IPv6 beside it: few machines have IPv6 alone,
    // and many, containers above all, have IPv6 addresses that lead nowhere.
    options.ip_strategy = LookupIpStrategy::Ipv4AndIpv6;
    options.cache_size = REMEMBERED_ANSWERS;
    options.positive_max_ttl = Some(REMEMBERED);
    options.negative_max_ttl = Some(ABSENCE_REMEMBERED);
    options.max_active_requests = 2 * Limits::default().at_once;
    builder.build()
}

fn name_server(address: SocketAddr) -> NameServerConfig {
    let mut server = NameServerConfig::udp_and_tcp(address.ip());
    for connection in &mut server.connections {
        connection.port = address.port();
    }
    server
}

#[cfg(test)]
mod tests;
