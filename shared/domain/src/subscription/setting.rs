//! What a setting is: how it stands in JSON, in the ledger's row and in the description of the API.

use super::reader::{Faulty, Reader};
use serde_json::Value;
use std::time::Duration;
use uuid::Uuid;

/// A setting of a subscription. All that there is to say about one stands in its implementation of this.
pub(super) trait Setting {
    /// What the rest of the code reads.
    type Value: Clone;

    /// Its fields in JSON, most often one.
    const FIELDS: &'static [Field];

    /// Its columns in the ledger.
    const COLUMNS: &'static [Column];

    /// Reads it from a request, and fills in the default. `held` is what the subscription has so far.
    fn read(reader: &mut Reader<'_>, held: Option<&Self::Value>) -> Result<Self::Value, Faulty>;

    /// What answers show, in the order of `FIELDS`.
    fn show(value: &Self::Value) -> impl IntoIterator<Item = Value>;

    /// What the ledger keeps, in the order of `COLUMNS`.
    fn store(value: &Self::Value) -> impl IntoIterator<Item = Cell>;

    /// Reads what [`Setting::store`] gave.
    fn load(cells: &mut Cells) -> Result<Self::Value, Corrupt>;
}

/// A field of a subscription in JSON, as the API describes it.
#[derive(Debug, Clone, Copy)]
pub struct Field {
    /// Its name.
    pub name: &'static str,
    /// What it means, in a sentence or two.
    pub about: &'static str,
    /// The JSON schema of a value that is not null.
    pub schema: fn() -> Value,
    /// The name under which the description has the schema, where others refer to it.
    pub named: Option<&'static str>,
    /// The schema of what answers show, where it is another.
    pub shown: Option<fn() -> Value>,
    /// What it means that a request leaves it out.
    pub absent: Absent,
}

/// What it means that a request leaves a field out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Absent {
    /// The request is refused.
    Refused,
    /// The field has a default, which is not null.
    Default,
    /// The field is null.
    Null,
}

impl Field {
    /// A field that has a default.
    pub(super) const fn new(name: &'static str, schema: fn() -> Value, about: &'static str) -> Self {
        Self {
            name,
            about,
            schema,
            named: None,
            shown: None,
            absent: Absent::Default,
        }
    }

    /// The field, which requests must have.
    pub(super) const fn required(self) -> Self {
        Self {
            absent: Absent::Refused,
            ..self
        }
    }

    /// The field, which is null where it is left out.
    pub(super) const fn nullable(self) -> Self {
        Self {
            absent: Absent::Null,
            ..self
        }
    }

    /// The field, whose schema has that name in the description.
    pub(super) const fn named(self, name: &'static str) -> Self {
        Self {
            named: Some(name),
            ..self
        }
    }

    /// The field, of which answers show something else.
    pub(super) const fn shown(self, schema: fn() -> Value) -> Self {
        Self {
            shown: Some(schema),
            ..self
        }
    }
}

impl Field {
    /// A value that is not the default: the schema's example, or else what the schema allows last.
    pub fn sample(&self) -> Value {
        let schema = (self.schema)();
        let last = schema["enum"].as_array().and_then(|values| values.last());
        let found = schema.get("example").or(last).or_else(|| schema.get("maximum"));
        match (found, schema["default"].as_bool()) {
            (Some(value), _) => value.clone(),
            (None, default) => default.map(|default| !default).into(),
        }
    }
}

/// A column of the ledger's table of subscriptions.
#[derive(Debug, Clone, Copy)]
pub struct Column {
    /// Its name.
    pub name: &'static str,
    /// What it holds.
    pub kind: Kind,
}

impl Column {
    pub(super) const fn new(name: &'static str, kind: Kind) -> Self {
        Self { name, kind }
    }
}

/// What was read from the ledger is nothing that was ever written there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Corrupt(pub &'static str);

/// The cells of a row, in the order of the columns.
#[derive(Debug)]
pub struct Cells(std::vec::IntoIter<Cell>);

impl Cells {
    /// Cells in the order of the columns.
    pub fn new(cells: Vec<Cell>) -> Self {
        Self(cells.into_iter())
    }
}

macro_rules! kinds {
    ($($(#[$doc:meta])* $kind:ident($type:ty) $get:ident;)*) => {
        /// What a column holds.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum Kind {
            $($(#[$doc])* $kind,)*
        }

        /// A value of a column, or NULL.
        #[derive(Debug, Clone, PartialEq)]
        pub enum Cell {
            $($(#[$doc])* $kind(Option<$type>),)*
        }

        impl Cell {
            /// The kind of column that it is for.
            pub fn kind(&self) -> Kind {
                match self {
                    $(Self::$kind(_) => Kind::$kind,)*
                }
            }
        }

        impl Cells {
            $(
                /// The next cell, which is of this kind.
                pub(super) fn $get(&mut self) -> Result<Option<$type>, Corrupt> {
                    match self.0.next() {
                        Some(Cell::$kind(value)) => Ok(value),
                        _ => Err(Corrupt("a column of another kind")),
                    }
                }
            )*
        }
    };
}

kinds! {
    /// True or false.
    Boolean(bool) boolean;
    /// `smallint`.
    Small(i16) small;
    /// `integer`.
    Integer(i32) integer;
    /// `bigint`.
    Big(i64) big;
    /// `double precision`.
    Real(f64) real;
    /// `text`.
    Text(String) text;
    /// `uuid`.
    Guid(Uuid) guid;
}

/// A value of a column that is never NULL.
pub(super) fn required<T>(value: Option<T>) -> Result<T, Corrupt> {
    value.ok_or(Corrupt("NULL where there is always a value"))
}

impl Cell {
    /// A time in whole milliseconds.
    pub(super) fn millis(time: Duration) -> Self {
        Self::Big(Some(i64::try_from(time.as_millis()).unwrap_or(i64::MAX)))
    }
}

impl Cells {
    /// A time, as [`Cell::millis`] keeps it.
    pub(super) fn duration(&mut self) -> Result<Duration, Corrupt> {
        let millis = required(self.big()?)?;
        Ok(Duration::from_millis(u64::try_from(millis).unwrap_or(0)))
    }
}
