//! Settings that are one value each.

use super::reader::{Faulty, Reader, number};
use super::setting::{Cell, Cells, Column, Corrupt, Field, Kind, Setting, required};
use crate::message::Format;
use crate::signing::Signatures;
use serde_json::{Value, json};
use std::time::Duration;

/// The longest `Name`.
const MAX_NAME_CHARS: usize = 100;

/// `Format`.
pub(super) struct MessageFormat;

impl Setting for MessageFormat {
    type Value = Format;
    const FIELDS: &'static [Field] = &[Field::new(
        "Format",
        || {
            let names = Format::OFFERED.map(Format::name);
            let described = Format::OFFERED.map(|format| format!("`{}`: {}", format.name(), format.description()));
            let about = format!("How messages are written. {}.", described.join("; "));
            json!({"type": "string", "description": about, "enum": names})
        },
        "How messages are written: `Enate` where it is absent, and `StandardWebhooks` with `EventTypes`.",
    )
    .named("Format")];
    // Null is Enate: a version writes it that does not know formats.
    const COLUMNS: &'static [Column] = &[Column::new("format", Kind::Small)];

    fn read(reader: &mut Reader<'_>, _held: Option<&Format>) -> Result<Format, Faulty> {
        let Some(value) = reader.get("Format") else {
            let usual = match reader.get("EventTypes") {
                None => Format::Enate,
                Some(_) => Format::StandardWebhooks,
            };
            return Ok(usual);
        };
        let name = value.as_str();
        name.and_then(Format::named).ok_or_else(|| {
            let names = Format::OFFERED.map(Format::name).join(", ");
            let detail = if name == Some(Format::Autotask.name()) {
                format!(
                    "Format cannot be Autotask yet, because a callout has a SequenceNumber and nothing counts them; it must \
                     be one of {names}"
                )
            } else {
                format!("Format must be one of {names}")
            };
            reader.fault("Format", "one_of", detail)
        })
    }

    fn show(format: &Format) -> impl IntoIterator<Item = Value> {
        [format.name().into()]
    }

    fn store(format: &Format) -> impl IntoIterator<Item = Cell> {
        [Cell::Small(Some(format.code()))]
    }

    fn load(cells: &mut Cells) -> Result<Format, Corrupt> {
        Ok(cells.small()?.and_then(Format::coded).unwrap_or(Format::Enate))
    }
}

/// `Name`.
pub(super) struct Name;

impl Setting for Name {
    type Value = Option<String>;
    const FIELDS: &'static [Field] = &[Field::new(
        "Name",
        || json!({"type": "string", "maxLength": MAX_NAME_CHARS, "example": "Starters of Globex"}),
        "A name for people, at most 100 characters.",
    )
    .nullable()];
    const COLUMNS: &'static [Column] = &[Column::new("name", Kind::Text)];

    fn read(reader: &mut Reader<'_>, _held: Option<&Self::Value>) -> Result<Self::Value, Faulty> {
        reader.optional_text("Name", MAX_NAME_CHARS)
    }

    fn show(name: &Self::Value) -> impl IntoIterator<Item = Value> {
        [name.as_deref().into()]
    }

    fn store(name: &Self::Value) -> impl IntoIterator<Item = Cell> {
        [Cell::Text(name.clone())]
    }

    fn load(cells: &mut Cells) -> Result<Self::Value, Corrupt> {
        cells.text()
    }
}

/// `Active`.
pub(super) struct Active;

impl Setting for Active {
    type Value = bool;
    const FIELDS: &'static [Field] = &[Field::new(
        "Active",
        || json!({"type": "boolean", "default": true}),
        "No messages while false, and what is open is cancelled; an attempt under way that succeeds is Delivered.",
    )];
    const COLUMNS: &'static [Column] = &[Column::new("active", Kind::Boolean)];

    fn read(reader: &mut Reader<'_>, _held: Option<&bool>) -> Result<bool, Faulty> {
        reader.boolean("Active", true)
    }

    fn show(active: &bool) -> impl IntoIterator<Item = Value> {
        [(*active).into()]
    }

    fn store(active: &bool) -> impl IntoIterator<Item = Cell> {
        [Cell::Boolean(Some(*active))]
    }

    fn load(cells: &mut Cells) -> Result<bool, Corrupt> {
        required(cells.boolean()?)
    }
}

/// `TimeoutSeconds`.
pub(super) struct TimeoutSeconds;

impl Setting for TimeoutSeconds {
    type Value = Duration;
    const FIELDS: &'static [Field] = &[Field::new(
        "TimeoutSeconds",
        || json!({"type": "number", "format": "double", "default": 15, "minimum": 0.1, "maximum": 30}),
        "How long an attempt may take in all.",
    )];
    const COLUMNS: &'static [Column] = &[Column::new("timeout_ms", Kind::Big)];

    fn read(reader: &mut Reader<'_>, _held: Option<&Duration>) -> Result<Duration, Faulty> {
        reader.seconds("TimeoutSeconds", 15.0, 0.1, 30.0)
    }

    fn show(timeout: &Duration) -> impl IntoIterator<Item = Value> {
        [number(timeout.as_secs_f64())]
    }

    fn store(timeout: &Duration) -> impl IntoIterator<Item = Cell> {
        [Cell::millis(*timeout)]
    }

    fn load(cells: &mut Cells) -> Result<Duration, Corrupt> {
        cells.duration()
    }
}

/// `MaxInFlight`.
pub(super) struct MaxInFlight;

impl Setting for MaxInFlight {
    type Value = u16;
    const FIELDS: &'static [Field] = &[Field::new(
        "MaxInFlight",
        || json!({"type": "integer", "format": "int32", "default": 64, "minimum": 1, "maximum": 1000}),
        "The most attempts at a time.",
    )];
    const COLUMNS: &'static [Column] = &[Column::new("max_in_flight", Kind::Integer)];

    fn read(reader: &mut Reader<'_>, _held: Option<&u16>) -> Result<u16, Faulty> {
        Ok(reader.whole("MaxInFlight", 1, 1000)?.unwrap_or(64))
    }

    fn show(most: &u16) -> impl IntoIterator<Item = Value> {
        [(*most).into()]
    }

    fn store(most: &u16) -> impl IntoIterator<Item = Cell> {
        [Cell::Integer(Some((*most).into()))]
    }

    fn load(cells: &mut Cells) -> Result<u16, Corrupt> {
        u16::try_from(required(cells.integer()?)?).map_err(|_range| Corrupt("an impossible MaxInFlight"))
    }
}

/// `RateLimitPerSecond`.
pub(super) struct RateLimitPerSecond;

impl Setting for RateLimitPerSecond {
    type Value = Option<f64>;
    const FIELDS: &'static [Field] = &[Field::new(
        "RateLimitPerSecond",
        || json!({"type": "number", "format": "double", "exclusiveMinimum": 0, "maximum": 1_000_000}),
        "The most attempts a second; null for no limit.",
    )
    .nullable()];
    const COLUMNS: &'static [Column] = &[Column::new("rate_limit", Kind::Real)];

    fn read(reader: &mut Reader<'_>, _held: Option<&Self::Value>) -> Result<Self::Value, Faulty> {
        reader.positive("RateLimitPerSecond", 1_000_000.0)
    }

    fn show(rate: &Self::Value) -> impl IntoIterator<Item = Value> {
        [rate.map_or(Value::Null, number)]
    }

    fn store(rate: &Self::Value) -> impl IntoIterator<Item = Cell> {
        [Cell::Real(*rate)]
    }

    fn load(cells: &mut Cells) -> Result<Self::Value, Corrupt> {
        cells.real()
    }
}

/// `Signatures`.
pub(super) struct MessageSignatures;

impl MessageSignatures {
    const NAME: &str = "Signatures";
}

impl Setting for MessageSignatures {
    type Value = Signatures;
    const FIELDS: &'static [Field] = &[Field::new(
        Self::NAME,
        || {
            let items = json!({"type": "string", "enum": Signatures::Both.names()});
            json!({
                "type": "array", "items": items, "minItems": 1, "maxItems": 2, "uniqueItems": true,
                "default": Signatures::default().names(), "example": Signatures::Both.names(),
            })
        },
        "Which signatures messages have: `v1`, HMAC-SHA256 with the secret, and perhaps `v1a` too, Ed25519, which \
         `PublicKey` verifies.",
    )];
    // Null is v1: a version writes it that does not know of others.
    const COLUMNS: &'static [Column] = &[Column::new("signatures", Kind::Small)];

    fn read(reader: &mut Reader<'_>, _held: Option<&Signatures>) -> Result<Signatures, Faulty> {
        const NAME: &str = MessageSignatures::NAME;
        let Some(given) = reader.get(NAME) else {
            return Ok(Signatures::default());
        };
        let known = Signatures::Both.names();
        let Some(given) = given
            .as_array()
            .filter(|given| (1..=known.len()).contains(&given.len()))
        else {
            return Err(reader.fault(NAME, "array", r#"Signatures must be ["v1"] or ["v1", "v1a"]"#));
        };
        if let Some(n) = given
            .iter()
            .position(|one| !one.as_str().is_some_and(|one| known.contains(&one)))
        {
            let detail = format!("each of {NAME} must be one of {}", known.join(", "));
            return Err(reader.fault_at(&format!("/{NAME}/{n}"), "one_of", detail));
        }
        if given.first() == given.get(1) {
            let detail = format!("{NAME} may name each only once");
            return Err(reader.fault_at(&format!("/{NAME}/1"), "unique", detail));
        }
        if !given.iter().any(|one| one == "v1") {
            let detail = "Signatures must have v1, which every library verifies; v1a comes beside it";
            return Err(reader.fault(NAME, "required", detail));
        }
        Ok(if given.len() == 1 {
            Signatures::Symmetric
        } else {
            Signatures::Both
        })
    }

    fn show(signatures: &Signatures) -> impl IntoIterator<Item = Value> {
        [signatures.names().into()]
    }

    fn store(signatures: &Signatures) -> impl IntoIterator<Item = Cell> {
        [Cell::Small(Some(signatures.code()))]
    }

    fn load(cells: &mut Cells) -> Result<Signatures, Corrupt> {
        Ok(cells.small()?.and_then(Signatures::coded).unwrap_or_default())
    }
}
