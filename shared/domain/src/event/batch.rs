//! How several events come in one text, and how they are told apart without judging them.

use super::MAX_EVENTS;
use crate::problem::Fault;
use crate::text;
use serde::de::{Deserialize, Deserializer, SeqAccess, Visitor};
use serde_json::value::RawValue;
use std::fmt;

/// A text that is one event, or several, as the elements of an array.
#[derive(Debug)]
pub enum Batch<'a> {
    /// The text of one event, which stood alone.
    One(&'a str),
    /// The texts of the elements of an array.
    Many(Vec<&'a str>),
}

/// The first [`MAX_EVENTS`] texts; those beyond are only counted, so that a text of many small elements takes
/// no more memory than a good one.
#[derive(Default)]
struct Elements<'a> {
    texts: Vec<&'a str>,
    count: usize,
}

impl<'a> Elements<'a> {
    fn add(&mut self, text: &'a str) {
        self.count += 1;
        if self.count <= MAX_EVENTS {
            self.texts.push(text);
        }
    }

    fn checked(self) -> Result<Vec<&'a str>, Fault> {
        match self.count {
            0 => Err(Fault::new("", "not_empty", "at least one event is needed")),
            1..=MAX_EVENTS => Ok(self.texts),
            count => {
                let detail = format!("at most {MAX_EVENTS} events at a time, not {count}");
                Err(Fault::new("", "max_items", detail))
            }
        }
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Elements<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct ElementsVisitor;
        impl<'de> Visitor<'de> for ElementsVisitor {
            type Value = Elements<'de>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an array of events")
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut sequence: A) -> Result<Self::Value, A::Error> {
                let mut elements = Elements::default();
                while let Some(raw) = sequence.next_element::<&'de RawValue>()? {
                    elements.add(raw.get());
                }
                Ok(elements)
            }
        }
        deserializer.deserialize_seq(ElementsVisitor)
    }
}

/// Splits a JSON text into its events without judging them. An array must have 1 to
/// [`MAX_EVENTS`] elements.
pub fn split_json(json: &str) -> Result<Batch<'_>, Fault> {
    let json = text::trim(json);
    if !json.starts_with('[') {
        return Ok(Batch::One(json));
    }
    let elements: Elements<'_> =
        serde_json::from_str(json).map_err(|error| Fault::new("", "json", format!("is not JSON: {error}")))?;
    elements.checked().map(Batch::Many)
}

/// Splits newline-delimited JSON into its events; blank lines are passed over.
pub fn split_ndjson(lines: &str) -> Result<Vec<&str>, Fault> {
    let mut elements = Elements::default();
    for line in lines.split('\n').map(text::trim).filter(|line| !line.is_empty()) {
        elements.add(line);
    }
    elements.checked()
}

/// Whether a text that is not JSON is several JSON texts, one after another.
pub(super) fn is_several(json: &str) -> bool {
    let mut values = serde_json::Deserializer::from_str(json).into_iter::<&RawValue>();
    matches!((values.next(), values.next()), (Some(Ok(_)), Some(Ok(_))))
}
