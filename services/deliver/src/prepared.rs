//! Request templates: what all requests of a subscription have in common, made once for each version of it.

use crate::target::{LiteralRefused, Target, check_literal};
use herald_domain::address::EgressPolicy;
use herald_domain::id::SubscriptionId;
use herald_domain::signing::Signers;
use herald_domain::subscription::Subscription;
use http::header::{ACCEPT, CONTENT_TYPE, HOST, USER_AGENT};
use http::{HeaderMap, HeaderName, HeaderValue, Uri};
use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use url::Url;

/// How long an isolated subscription's requests have connections of their own. It is bounded, because a receiver's
/// trouble passes, and over HTTP/1.1 each request under way takes a connection.
const APART: Duration = Duration::from_mins(10);

/// The most request templates that are kept, of one to two kilobytes each. A larger working set costs as much as
/// keeping none.
const KEPT: usize = 4096;

/// Why a request could not be made at all.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Impossible {
    #[error("the subscriber's URL is not one any more")]
    Url(#[from] url::ParseError),
    #[error("the subscriber's URL is not one that HTTP allows")]
    Uri(#[from] http::uri::InvalidUri),
    #[error("the subscriber's URL has no host")]
    Host,
    #[error(transparent)]
    Address(#[from] LiteralRefused),
    #[error("a header has a value that HTTP does not allow")]
    Header(#[from] http::header::InvalidHeaderValue),
    #[error("the custom header has a name that HTTP does not allow")]
    HeaderName(#[from] http::header::InvalidHeaderName),
}

/// The request template of a subscription.
pub(crate) struct Prepared {
    /// The version of the subscription that this was made of.
    of: Arc<Subscription>,
    uri: Uri,
    target: Target,
    headers: HeaderMap,
    signers: Signers,
    /// Until when the subscription is isolated: its requests have connections of their own.
    apart_until: Mutex<Option<Instant>>,
}

impl fmt::Debug for Prepared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Prepared")
            .field("of", &self.of.id)
            .finish_non_exhaustive()
    }
}

impl Prepared {
    fn new(policy: &EgressPolicy, subscription: &Arc<Subscription>) -> Result<Self, Impossible> {
        let url = Url::parse(&subscription.settings.url)?;
        check_literal(policy, &url)?;
        let target = Target::of(&url).ok_or(Impossible::Host)?;
        let authority = match url.port() {
            Some(port) => format!("{}:{port}", target.host),
            None => target.host.to_string(),
        };
        let query = url.query().map(|query| format!("?{query}")).unwrap_or_default();
        let uri = Uri::try_from(format!("{}://{authority}{}{query}", url.scheme(), url.path()))?;
        // Room for seven headers that differ from one request to the next: a clone has a table of the same size.
        let mut headers = HeaderMap::with_capacity(16);
        headers.insert(HOST, HeaderValue::try_from(authority)?);
        headers.insert(
            USER_AGENT,
            HeaderValue::from_static(concat!("Herald/", env!("CARGO_PKG_VERSION"))),
        );
        headers.insert(ACCEPT, HeaderValue::from_static("*/*"));
        let content_type = subscription.settings.format.content_type();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
        headers.insert("webhook-guid", HeaderValue::try_from(subscription.id.to_string())?);
        if let Some((name, value)) = subscription.settings.custom_header.as_deref() {
            headers.insert(HeaderName::try_from(name)?, HeaderValue::try_from(value)?);
        }
        Ok(Self {
            of: Arc::clone(subscription),
            uri,
            target,
            headers,
            signers: subscription.signers(),
            apart_until: Mutex::default(),
        })
    }

    /// Isolates the subscription for [`APART`], because a request was not answered in time or the receiver wants
    /// HTTP/1.1: its requests have connections of their own.
    pub(crate) fn keep_apart(&self, now: Instant) {
        *self.apart_until.lock().unwrap_or_else(PoisonError::into_inner) = Some(now + APART);
    }

    /// Ends the isolation, because the receiver speaks only HTTP/2: requests share connections again.
    pub(crate) fn share_again(&self) {
        *self.apart_until.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// Whether the subscription is isolated: its requests have connections of their own.
    pub(crate) fn is_apart(&self, now: Instant) -> bool {
        let until = *self.apart_until.lock().unwrap_or_else(PoisonError::into_inner);
        until.is_some_and(|until| now < until)
    }

    /// Where the requests go.
    pub(crate) fn target(&self) -> &Target {
        &self.target
    }

    /// The whole URL.
    pub(crate) fn uri(&self) -> &Uri {
        &self.uri
    }

    /// The headers that all requests have.
    pub(crate) fn headers(&self) -> HeaderMap {
        self.headers.clone()
    }

    /// The credentials that sign them.
    pub(crate) fn signers(&self) -> &Signers {
        &self.signers
    }
}

/// Subscriptions that were prepared lately.
#[derive(Debug)]
pub(crate) struct Prepare {
    policy: Arc<EgressPolicy>,
    kept: Mutex<HashMap<SubscriptionId, Arc<Prepared>>>,
}

impl Prepare {
    /// Prepares what `policy` permits.
    pub(crate) fn new(policy: Arc<EgressPolicy>) -> Self {
        Self {
            policy,
            kept: Mutex::default(),
        }
    }

    /// The template of the subscription, made now or before. Another version of it has another template.
    pub(crate) fn get(&self, subscription: &Arc<Subscription>) -> Result<Arc<Prepared>, Impossible> {
        // A panic leaves nothing half done here.
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(prepared) = kept.get(&subscription.id)
            && Arc::ptr_eq(&prepared.of, subscription)
        {
            return Ok(Arc::clone(prepared));
        }
        let prepared = Arc::new(Prepared::new(&self.policy, subscription)?);
        if kept.len() >= KEPT {
            kept.clear();
        }
        kept.insert(subscription.id, Arc::clone(&prepared));
        Ok(prepared)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use herald_domain::access::OPERATOR;
    use herald_domain::catalogue::Catalogue;
    use herald_domain::signing::SigningKey;
    use herald_domain::subscription::parse;
    use herald_domain::time::Timestamp;

    pub(crate) fn subscription(number: u128, url: &str) -> Arc<Subscription> {
        let body = serde_json::json!({
            "Webhook": "PacketUpdated", "FilterObjectType": 81, "SubscriberURL": "https://a.example/",
            "FilterObjectGUID": "00000000-0000-0000-0000-000000000001",
        });
        let mut settings = parse(&body, &Catalogue::default(), &EgressPolicy::default())
            .unwrap()
            .settings;
        url.clone_into(&mut settings.url);
        let (id, key) = (
            SubscriptionId(uuid::Uuid::from_u128(number)),
            SigningKey::from_bytes(vec![1]),
        );
        Arc::new(Subscription::new(
            id,
            OPERATOR,
            settings,
            key,
            Timestamp::from_micros(0),
        ))
    }

    #[test]
    fn a_subscription_is_prepared_once_and_another_version_of_it_anew() {
        let prepare = Prepare::new(Arc::default());
        let one = subscription(1, "https://a.example/");
        let first = prepare.get(&one).unwrap();
        assert!(Arc::ptr_eq(&first, &prepare.get(&one).unwrap()));
        let moved = prepare.get(&subscription(1, "https://b.example/")).unwrap();
        assert_eq!(moved.uri(), "https://b.example/");
        assert_eq!(moved.headers()["host"], "b.example");
    }

    #[test]
    fn a_request_leads_where_its_url_says() {
        let prepare = Prepare::new(Arc::default());
        let prepared = prepare
            .get(&subscription(
                1,
                "https://user:secret@a.example:8443/a%2Fb//?c=%7E&d='#e",
            ))
            .unwrap();
        assert_eq!(prepared.uri(), "https://a.example:8443/a%2Fb//?c=%7E&d=%27");
        assert_eq!(prepared.headers()["host"], "a.example:8443");
        let target = prepared.target();
        assert_eq!(
            (&*target.origin, target.port, target.tls),
            ("https://a.example:8443", 8443, true)
        );
    }

    #[test]
    fn a_subscription_is_kept_apart_for_a_while_and_not_for_good() {
        let prepare = Prepare::new(Arc::default());
        let prepared = prepare.get(&subscription(1, "https://a.example/")).unwrap();
        let now = Instant::now();
        assert!(!prepared.is_apart(now));
        prepared.keep_apart(now);
        assert!(prepared.is_apart(now + APART / 2));
        assert!(!prepared.is_apart(now + APART));
        prepared.keep_apart(now);
        prepared.share_again();
        assert!(!prepared.is_apart(now));
    }

    #[test]
    fn what_may_not_be_gone_to_is_refused_each_time() {
        let prepare = Prepare::new(Arc::default());
        let inside = subscription(1, "http://10.0.0.1/");
        for _ in 0..2 {
            assert!(matches!(prepare.get(&inside), Err(Impossible::Address(_))));
        }
    }

    #[test]
    fn no_more_than_so_many_are_kept() {
        let prepare = Prepare::new(Arc::default());
        for number in 0..=KEPT as u128 {
            prepare.get(&subscription(number, "https://a.example/")).unwrap();
            assert!(prepare.kept.lock().unwrap().len() <= KEPT);
        }
    }
}
