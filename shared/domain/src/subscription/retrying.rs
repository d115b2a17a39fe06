//! `Retry`.

use super::reader::{Faulty, Reader, number};
use super::setting::{Cell, Cells, Column, Corrupt, Field, Kind, Setting, required};
use crate::retry::RetryPolicy;
use serde_json::{Value, json};
use std::sync::Arc;

/// The longest time that a delay may be, in seconds.
const MAX_DELAY: f64 = 604_800.0;
/// The longest time that a delivery may be tried, in seconds.
const MAX_GIVE_UP: f64 = 2_592_000.0;

pub(super) struct Retrying;

impl Setting for Retrying {
    type Value = Arc<RetryPolicy>;
    const FIELDS: &'static [Field] =
        &[Field::new("Retry", schema, "When to try again and when to give up.").named("Retry")];
    const COLUMNS: &'static [Column] = &[
        Column::new("retry_initial_ms", Kind::Big),
        Column::new("retry_multiplier", Kind::Real),
        Column::new("retry_max_ms", Kind::Big),
        Column::new("retry_give_up_ms", Kind::Big),
        Column::new("retry_max_attempts", Kind::Integer),
    ];

    fn read(reader: &mut Reader<'_>, _held: Option<&Self::Value>) -> Result<Self::Value, Faulty> {
        let defaults = RetryPolicy::default();
        let policy = reader.object("Retry", "/Retry", |reader| {
            reader.only(
                &[
                    "InitialSeconds",
                    "Multiplier",
                    "MaxSeconds",
                    "GiveUpAfterSeconds",
                    "MaxAttempts",
                ],
                &[],
            );
            let initial = reader.seconds("InitialSeconds", defaults.initial.as_secs_f64(), 0.01, MAX_DELAY);
            let max = reader.seconds("MaxSeconds", defaults.max.as_secs_f64(), 0.01, MAX_DELAY);
            let multiplier = reader.float("Multiplier", defaults.multiplier, 1.0, 100.0);
            let give_up_after = defaults.give_up_after.as_secs_f64();
            let give_up_after = reader.seconds("GiveUpAfterSeconds", give_up_after, 0.0, MAX_GIVE_UP);
            let max_attempts = reader.whole("MaxAttempts", 1, 1000);
            let policy = RetryPolicy {
                initial: initial?,
                multiplier: multiplier?,
                max: max?,
                give_up_after: give_up_after?,
                max_attempts: max_attempts?,
            };
            let is_kept = reader.is_kept("InitialSeconds") && reader.is_kept("MaxSeconds");
            if policy.max < policy.initial && !is_kept {
                return Err(reader.fault("MaxSeconds", "range", "MaxSeconds must not be less than InitialSeconds"));
            }
            Ok(policy)
        });
        Ok(policy?.unwrap_or(defaults).shared())
    }

    fn show(policy: &Self::Value) -> impl IntoIterator<Item = Value> {
        [json!({
            "InitialSeconds": number(policy.initial.as_secs_f64()),
            "Multiplier": number(policy.multiplier),
            "MaxSeconds": number(policy.max.as_secs_f64()),
            "GiveUpAfterSeconds": number(policy.give_up_after.as_secs_f64()),
            "MaxAttempts": policy.max_attempts,
        })]
    }

    fn store(policy: &Self::Value) -> impl IntoIterator<Item = Cell> {
        [
            Cell::millis(policy.initial),
            Cell::Real(Some(policy.multiplier)),
            Cell::millis(policy.max),
            Cell::millis(policy.give_up_after),
            Cell::Integer(policy.max_attempts.and_then(|most| i32::try_from(most).ok())),
        ]
    }

    fn load(cells: &mut Cells) -> Result<Self::Value, Corrupt> {
        let policy = RetryPolicy {
            initial: cells.duration()?,
            multiplier: required(cells.real()?)?,
            max: cells.duration()?,
            give_up_after: cells.duration()?,
            max_attempts: cells.integer()?.and_then(|most| u32::try_from(most).ok()),
        };
        Ok(policy.shared())
    }
}

fn schema() -> Value {
    let field = |about: &str, default: u32, least: f64, most: f64| {
        json!({
            "type": ["number", "null"], "format": "double", "description": about, "default": default,
            "minimum": number(least), "maximum": number(most),
        })
    };
    let delay = |about: &str, default: u32| field(about, default, 0.01, MAX_DELAY);
    json!({
        "type": "object",
        "description": "When to try again and when to give up; what is absent has its default.",
        "properties": {
            "GiveUpAfterSeconds": field("How long a delivery is tried.", 259_200, 0.0, MAX_GIVE_UP),
            "InitialSeconds": delay("The first delay.", 5),
            "MaxAttempts": {
                "type": ["integer", "null"], "format": "int32",
                "description": "The most attempts; null for no limit but the time.", "minimum": 1, "maximum": 1000,
            },
            "MaxSeconds": delay("The longest delay; not less than the first.", 21_600),
            "Multiplier": field("What each further delay is multiplied by.", 3, 1.0, 100.0),
        },
        "example": {
            "InitialSeconds": 10, "Multiplier": 2, "MaxSeconds": 3600, "GiveUpAfterSeconds": 86_400, "MaxAttempts": 20,
        },
    })
}
