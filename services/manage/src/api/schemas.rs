//! How subscriptions look in `/openapi.json`. Their JSON is `herald_domain`'s, which does not know
//! OpenAPI.
#![expect(dead_code, reason = "describes JSON that other types read and write")]

use herald_domain::access::Role;
use herald_domain::catalogue::{EnateEvent, Webhook};
use herald_domain::delivery::{AttemptError, Closed, Status};
use herald_domain::message::Format;
use serde::Serialize;
use std::borrow::Cow;
use utoipa::openapi::schema::{ObjectBuilder, Type};
use utoipa::openapi::{RefOr, Schema};
use utoipa::{PartialSchema, ToSchema};
use uuid::Uuid;

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
    FormatName,
    "Format",
    "How messages are written.",
    Format::ALL.map(Format::name)
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

/// What to deliver where.
#[derive(ToSchema)]
#[schema(rename_all = "PascalCase", example = json!({
    "Webhook": "PacketCreated", "FilterObjectType": 31, "FilterObjectGUID": "6a1f0f5e-55a5-4f0c-9c39-0d5e2e0c1a01",
    "SubscriberURL": "https://example.com/hooks", "Name": "Starters of Globex",
    "CustomHeader": "X-Route", "CustomHeaderValue": "starters"
}))]
pub(crate) struct SubscriptionRequest {
    /// What to be told of: one of Enate's webhooks. With `EventTypes` it is `Events` or absent.
    #[schema(value_type = Option<WebhookName>)]
    webhook: Option<String>,
    /// Instead of a webhook: 1 to 100 names of event types, or prefixes that end in `*`. `*` alone is everything but
    /// Herald's own events.
    #[schema(example = json!(["InvoicePaid", "Invoice.*"]))]
    event_types: Option<Vec<String>>,
    /// The number of an object type, or its name; `/v1/webhooks` says which go with a webhook. With `EventTypes` it may be
    /// any, or absent: then an event matches whatever it names.
    #[schema(value_type = Option<ObjectTypeInput>)]
    filter_object_type: Option<i16>,
    /// Which object. Left empty (absent, null, `""`, all zeros) for `BusinessObjectCreated` and
    /// `BusinessObjectUpdated`, required for the other webhooks, and as one likes with `EventTypes`.
    #[schema(rename = "FilterObjectGUID")]
    filter_object_guid: Option<Uuid>,
    /// How messages are written: `Enate` where it is absent, and `StandardWebhooks` with `EventTypes`.
    #[schema(value_type = Option<FormatName>)]
    format: Option<String>,
    /// Where messages go; http or https, at most 2048 characters. An address that egress forbids is
    /// refused, and so is a name that resolves only to such. A name that does not resolve yet is accepted.
    #[schema(rename = "SubscriberURL", format = "uri")]
    subscriber_url: String,
    /// A header for every message. One that Herald sets, or that changes what the request is, is refused.
    custom_header: Option<String>,
    /// Its value.
    custom_header_value: Option<String>,
    /// A name for people, at most 100 characters.
    name: Option<String>,
    /// No messages while false, and what is open is cancelled; an attempt under way that succeeds is Delivered.
    #[schema(default = true)]
    active: Option<bool>,
    /// What messages are signed with: `whsec_` and the base64 of 24 to 64 bytes, or any other text of 8 bytes
    /// to 256 characters, whose UTF-8 is the key. Verifiers of Standard Webhooks are given `SigningSecret`.
    secret_key: Option<String>,
    /// How long an attempt may take in all.
    #[schema(default = 15, minimum = 0.1, maximum = 30)]
    timeout_seconds: Option<f64>,
    /// When to try again and when to give up.
    retry: Option<Retry>,
    /// The most attempts at a time.
    #[schema(default = 64, minimum = 1, maximum = 1000)]
    max_in_flight: Option<u16>,
    /// The most attempts a second; null for no limit.
    #[schema(exclusive_minimum = 0, maximum = 1_000_000)]
    rate_limit_per_second: Option<f64>,
    /// The account that it is to belong to; the key's own where it is absent. Only an operator may name
    /// another, and only on creation.
    owner: Option<Uuid>,
}

/// Fields of a subscription to change; any of those of a request.
#[derive(ToSchema)]
#[schema(rename_all = "PascalCase", example = json!({"Active": false, "Retry": {"MaxAttempts": 10}}))]
pub(crate) struct SubscriptionPatch {
    #[schema(value_type = Option<WebhookName>)]
    webhook: Option<String>,
    event_types: Option<Vec<String>>,
    #[schema(value_type = Option<ObjectTypeInput>)]
    filter_object_type: Option<i16>,
    #[schema(rename = "FilterObjectGUID")]
    filter_object_guid: Option<Uuid>,
    #[schema(value_type = Option<FormatName>)]
    format: Option<String>,
    #[schema(rename = "SubscriberURL", format = "uri")]
    subscriber_url: Option<String>,
    custom_header: Option<String>,
    custom_header_value: Option<String>,
    name: Option<String>,
    active: Option<bool>,
    /// Changes the key; it is not shown.
    secret_key: Option<String>,
    timeout_seconds: Option<f64>,
    retry: Option<Retry>,
    max_in_flight: Option<u16>,
    rate_limit_per_second: Option<f64>,
}

/// An object type: its number or its name.
#[derive(Serialize, ToSchema)]
#[serde(untagged)]
#[schema(example = 31)]
pub(crate) enum ObjectTypeInput {
    /// 31, 81, 215, 217, 260, 911, or that of a registered one.
    Number(i16),
    /// `Company`, `Packet`, `Contract`, `Service`, `Schedule`, `Process`, or that of a registered one.
    Name(String),
}

/// When to try again and when to give up; what is absent has its default.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "PascalCase")]
#[schema(example = json!({"InitialSeconds": 5, "Multiplier": 3, "MaxSeconds": 21600, "GiveUpAfterSeconds": 259_200, "MaxAttempts": null}))]
pub(crate) struct Retry {
    /// The first delay.
    #[schema(default = 5, minimum = 0.01, maximum = 604_800)]
    initial_seconds: Option<f64>,
    /// What each further delay is multiplied by.
    #[schema(default = 3, minimum = 1, maximum = 100)]
    multiplier: Option<f64>,
    /// The longest delay; not less than the first.
    #[schema(default = 21_600, minimum = 0.01, maximum = 604_800)]
    max_seconds: Option<f64>,
    /// How long a delivery is tried.
    #[schema(default = 259_200, minimum = 0, maximum = 2_592_000)]
    give_up_after_seconds: Option<f64>,
    /// The most attempts; null for no limit but the time.
    #[schema(minimum = 1, maximum = 1000)]
    max_attempts: Option<u32>,
}

/// A subscription.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct Subscription {
    /// Sent as `GUID` in every message and as `Webhook-GUID` in its headers.
    #[serde(rename = "GUID")]
    #[schema(value_type = Uuid)]
    guid: String,
    /// The account that it belongs to.
    #[schema(value_type = Uuid)]
    owner: String,
    /// One of Enate's webhooks, or `Events` where there are `EventTypes`.
    #[schema(value_type = WebhookName)]
    webhook: String,
    #[schema(required)]
    event_types: Option<Vec<String>>,
    #[schema(required, example = 31)]
    filter_object_type: Option<i16>,
    #[serde(rename = "FilterObjectGUID")]
    #[schema(value_type = Option<Uuid>, required)]
    filter_object_guid: Option<String>,
    #[schema(value_type = FormatName)]
    format: String,
    #[serde(rename = "SubscriberURL")]
    #[schema(format = "uri", example = "https://example.com/hooks")]
    subscriber_url: String,
    #[schema(required)]
    custom_header: Option<String>,
    #[schema(required)]
    custom_header_value: Option<String>,
    #[schema(required)]
    name: Option<String>,
    active: bool,
    #[schema(example = 15)]
    timeout_seconds: f64,
    retry: Retry,
    #[schema(example = 64)]
    max_in_flight: u16,
    #[schema(required)]
    rate_limit_per_second: Option<f64>,
    #[schema(format = DateTime, example = "2026-11-22T05:13:39Z")]
    created_at: String,
    #[schema(format = DateTime, example = "2026-11-22T05:13:39Z")]
    updated_at: String,
    /// When Herald itself deactivated it; null otherwise, and once it is active again.
    #[schema(required, format = DateTime)]
    deactivated_at: Option<String>,
    /// Why: `gone`, its subscriber answered 410.
    #[schema(required, example = "gone")]
    deactivation_reason: Option<String>,
}

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
