//! The fields of a subscription in JSON that are no settings.

use super::setting::Field;
use serde_json::{Value, json};

/// `SecretKey`, which requests may have, and answers have where it was made or changed.
pub const SECRET_KEY: Field = Field::new(
    "SecretKey",
    || json!({"type": "string"}),
    "What messages are signed with: `whsec_` and the base64 of 24 to 64 bytes, or any other text of 8 bytes to 256 \
     characters, whose UTF-8 is the key. Verifiers of Standard Webhooks are given `SigningSecret`. It is kept where it \
     is absent.",
)
.nullable();

/// `Owner`, which requests may have and answers have.
pub const OWNER: Field = Field::new(
    "Owner",
    guid,
    "The account that it belongs to; in a request the key's own where it is absent. Only an operator may name another, \
     and only on creation.",
);

/// What answers have and requests may repeat, where it is passed over.
pub const READ_ONLY: [Field; 6] = [
    Field::new(
        "GUID",
        guid,
        "Sent as `GUID` in every message and as `Webhook-GUID` in its headers.",
    ),
    Field::new(
        "PublicKey",
        || json!({"type": "string", "example": "whpk_O2onvM62pC1io6jQKm8Nc2UyFXcd4kOmOsBIoYtZ2ik="}),
        "The public key that verifies signatures of `v1a`, in the form of Standard Webhooks; null where `Signatures` has \
         no `v1a`. `rotate-secret` changes it.",
    )
    .nullable(),
    Field::new("CreatedAt", time, "When it was made."),
    Field::new("UpdatedAt", time, "When it was last changed."),
    Field::new(
        "DeactivatedAt",
        time,
        "When Herald itself deactivated it; null otherwise, and once it is active again.",
    )
    .nullable(),
    Field::new(
        "DeactivationReason",
        || json!({"type": "string", "example": "gone"}),
        "Why: `gone`, its subscriber answered 410.",
    )
    .nullable(),
];

/// What only the answers have that show a secret.
pub(super) const SIGNING_SECRET: &str = "SigningSecret";

fn guid() -> Value {
    json!({"type": "string", "format": "uuid"})
}

fn time() -> Value {
    json!({"type": "string", "format": "date-time", "example": "2026-11-22T05:13:39Z"})
}
