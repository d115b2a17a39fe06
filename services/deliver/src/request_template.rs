//! Request templates: what all requests of a subscription have in common, made once for each version of it.

use herald_domain::id::SubscriptionId;
use herald_domain::signing::Signers;
use herald_domain::subscription::Subscription;
use herald_egress::{Client, Target, TargetError};
use http::{HeaderMap, HeaderName, HeaderValue};
use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

/// The most request templates that are kept, of one to two kilobytes each. A larger working set costs as much as
/// keeping none.
const KEPT: usize = 4096;

/// Why a request could not be made at all.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Impossible {
    #[error(transparent)]
    Target(#[from] TargetError),
    #[error("a header has a value that HTTP does not allow")]
    Header(#[from] http::header::InvalidHeaderValue),
    #[error("the custom header has a name that HTTP does not allow")]
    HeaderName(#[from] http::header::InvalidHeaderName),
}

/// The request template of a subscription.
pub(crate) struct RequestTemplate {
    /// The version of the subscription that this was made of.
    of: Arc<Subscription>,
    target: Target,
    headers: HeaderMap,
    signers: Signers,
}

impl fmt::Debug for RequestTemplate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RequestTemplate")
            .field("of", &self.of.id)
            .finish_non_exhaustive()
    }
}

impl RequestTemplate {
    fn new(client: &Client, subscription: &Arc<Subscription>) -> Result<Self, Impossible> {
        let target = client.target(&subscription.settings.url)?;
        let mut headers = target.headers();
        headers.insert("webhook-guid", HeaderValue::try_from(subscription.id.to_string())?);
        if let Some((name, value)) = subscription.settings.custom_header.as_deref() {
            headers.insert(HeaderName::try_from(name)?, HeaderValue::try_from(value)?);
        }
        Ok(Self {
            of: Arc::clone(subscription),
            target,
            headers,
            signers: subscription.signers(),
        })
    }

    /// Where the requests go.
    pub(crate) fn target(&self) -> &Target {
        &self.target
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

/// The request templates of subscriptions that were used lately.
#[derive(Debug)]
pub(crate) struct RequestTemplates {
    client: Arc<Client>,
    kept: Mutex<HashMap<SubscriptionId, Arc<RequestTemplate>>>,
}

impl RequestTemplates {
    /// No templates yet; they will be for this client.
    pub(crate) fn new(client: Arc<Client>) -> Self {
        Self {
            client,
            kept: Mutex::default(),
        }
    }

    /// The template of the subscription, made now or before. Another version of it has another template.
    pub(crate) fn get(&self, subscription: &Arc<Subscription>) -> Result<Arc<RequestTemplate>, Impossible> {
        // A panic leaves nothing half done here.
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(template) = kept.get(&subscription.id)
            && Arc::ptr_eq(&template.of, subscription)
        {
            return Ok(Arc::clone(template));
        }
        let template = Arc::new(RequestTemplate::new(&self.client, subscription)?);
        if kept.len() >= KEPT {
            kept.clear();
        }
        kept.insert(subscription.id, Arc::clone(&template));
        Ok(template)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use herald_domain::access::OPERATOR;
    use herald_domain::address::EgressPolicy;
    use herald_domain::catalogue::Catalogue;
    use herald_domain::signing::SigningKey;
    use herald_domain::subscription::parse;
    use herald_domain::time::Timestamp;

    fn subscription(number: u128, url: &str) -> Arc<Subscription> {
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

    fn templates() -> RequestTemplates {
        RequestTemplates::new(Arc::new(Client::new(Arc::default(), &[], &[]).unwrap()))
    }

    #[test]
    fn a_template_is_made_once_for_each_version_of_a_subscription() {
        let templates = templates();
        let one = subscription(1, "https://a.example/");
        let first = templates.get(&one).unwrap();
        assert!(Arc::ptr_eq(&first, &templates.get(&one).unwrap()));
        let moved = templates.get(&subscription(1, "https://b.example/")).unwrap();
        assert_eq!(moved.target().uri(), "https://b.example/");
        assert_eq!(moved.headers()["host"], "b.example");
    }

    #[test]
    fn what_may_not_be_gone_to_is_refused_each_time() {
        let templates = templates();
        let inside = subscription(1, "http://10.0.0.1/");
        for _ in 0..2 {
            assert!(matches!(
                templates.get(&inside),
                Err(Impossible::Target(TargetError::Address(_)))
            ));
        }
    }

    #[test]
    fn no_more_than_so_many_are_kept() {
        let templates = templates();
        for number in 0..=KEPT as u128 {
            templates.get(&subscription(number, "https://a.example/")).unwrap();
            assert!(templates.kept.lock().unwrap().len() <= KEPT);
        }
    }
}
