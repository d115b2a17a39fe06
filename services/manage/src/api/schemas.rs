//! How subscriptions look in `/openapi.json`. Their JSON is `herald_domain`'s, which does not know
//! OpenAPI.
#![expect(dead_code, reason = "describes JSON that other types read and write")]

use herald_domain::access::Role;
use herald_domain::catalogue::{EnateEvent, Webhook};
use herald_domain::delivery::{AttemptError, Closed, Status};
use serde::Serialize;
use std::borrow::Cow;
use utoipa::openapi::schema::{ObjectBuilder, Type};
use utoipa::openapi::{RefOr, Schema};
use utoipa::{PartialSchema, ToSchema};

mod subscription;

pub(crate) use subscription::{ObjectTypeInput, Subscription, SubscriptionPatch, SubscriptionRequest, subscriptions};

/// A text that is one of the domain's names.
macro_rules! one_of {
    ($type:ident, $name:literal, $description:literal, $names:expr) => {
        #[doc = $description]
        #[derive(Debug)]
        pub(crate) struct $type;

        impl PartialSchema for $type {
            fn schema() -> RefOr<Schema> {
                let schema = ObjectBuilder::new()
                    .schema_type(Type::String)
                    .description(Some($description))
                    .enum_values(Some($names));
                schema.into()
            }
        }

        impl ToSchema for $type {
            fn name() -> Cow<'static, str> {
                $name.into()
            }
        }
    };
}

one_of!(RoleName, "Role", "What a key may do.", Role::ALL.map(Role::name));
one_of!(
    WebhookName,
    "Webhook",
    "A kind of subscription.",
    Webhook::ALL.map(Webhook::name)
);
one_of!(
    EventTypeName,
    "EnateEventType",
    "What kind of thing happened: one of Enate's events.",
    EnateEvent::ALL.map(EnateEvent::name)
);
one_of!(
    StatusName,
    "DeliveryStatus",
    "What has become of a delivery.",
    Status::ALL.map(Status::name)
);
one_of!(
    ErrorName,
    "AttemptError",
    "Why an attempt failed.",
    AttemptError::ALL.map(AttemptError::name)
);

one_of!(
    RetriableStatus,
    "RetriableStatus",
    "How a delivery ended that can be tried again.",
    [Closed::Dead, Closed::Cancelled, Closed::Refused].map(|ended| Status::Closed(ended).name())
);

/// A subscription with its secret, which no other answer shows.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct SubscriptionWithSecret {
    #[serde(flatten)]
    subscription: Subscription,
    /// As it was given, or as it was made.
    #[schema(example = "whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=")]
    secret_key: String,
    /// The same key in the form that Standard Webhooks verifiers take.
    #[schema(example = "whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=")]
    signing_secret: String,
}

/// Which deliveries of a subscription to try again.
#[derive(ToSchema)]
#[schema(rename_all = "PascalCase", example = json!({"Status": "Cancelled", "Since": "2026-11-22T05:13:39Z"}))]
pub(crate) struct RetryRequest {
    /// How they ended.
    #[schema(value_type = RetriableStatus)]
    status: String,
    /// Only those that ended at this time or later.
    #[schema(format = DateTime)]
    since: Option<String>,
}

/// What is tried again.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct Retried {
    /// How many deliveries are open again.
    #[schema(example = 153)]
    pub(crate) retried: usize,
    /// Whether there may be more, for another request.
    pub(crate) more: bool,
}

/// A new secret for a subscription.
#[derive(ToSchema)]
#[schema(rename_all = "PascalCase")]
pub(crate) struct NewSecret {
    /// As in a subscription; absent for 32 random bytes.
    secret_key: Option<String>,
    /// How long the former secret signs beside the new one.
    #[schema(default = 0, minimum = 0, maximum = 604_800)]
    overlap_seconds: Option<f64>,
}
