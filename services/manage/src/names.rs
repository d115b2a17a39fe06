//! Names in URLs, looked up once when a subscription is made or moved, so that who names a host of an
//! internal network learns at once that nothing would go there.
//!
//! It is said as this process looks names up, with its own `--egress-dns`. What counts is what the worker
//! finds at each connect: a name that does not resolve here, or not in time, is accepted.

use crate::Manage;
use herald_access::problem::Problem;
use herald_domain::problem::Fault;
use herald_domain::subscription::named_host;
use std::fmt::Debug;
use std::net::IpAddr;
use std::pin::Pin;
use std::time::Duration;

/// How long a name may take to resolve; who creates a subscription waits for it.
const MAX_WAIT: Duration = Duration::from_secs(1);

/// Looks names up.
pub trait Names: Debug + Send + Sync {
    /// The addresses of a name; none where it does not resolve now.
    fn addresses<'a>(&'a self, name: &'a str) -> Pin<Box<dyn Future<Output = Vec<IpAddr>> + Send + 'a>>;
}

/// Answers 400 where the URL names a host whose every address egress forbids.
pub(crate) async fn check(manage: &Manage, url: &str) -> Result<(), Problem> {
    let Some(name) = named_host(url) else {
        return Ok(());
    };
    let found = tokio::time::timeout(MAX_WAIT, manage.names.addresses(&name)).await;
    let found = found.unwrap_or_default();
    if found.is_empty() || found.iter().any(|address| manage.egress.permits(*address)) {
        return Ok(());
    }
    // Which addresses a name has inside is not told to whoever may subscribe.
    let detail = format!(
        "SubscriberURL: {name} resolves to no public address; the operator allows its network with --egress-allow"
    );
    Err(Problem::faults(vec![Fault::new(
        "/SubscriberURL",
        "address_refused",
        detail,
    )]))
}
