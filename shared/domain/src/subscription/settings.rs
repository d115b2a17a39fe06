//! The settings of a subscription.
//!
//! A new one is a line in the list below, an implementation of [`Setting`] and a migration that adds its columns. From
//! these follow what requests may have and how it is read, what answers show, what the ledger writes and reads, and
//! what `/openapi.json` says. One that few subscriptions have belongs to the rare ones, whose types have their defaults:
//! a process keeps a million subscriptions, and those with the defaults share them.

use super::header::CustomHeader;
use super::listening::Listening;
use super::plain::{Active, MaxInFlight, MessageFormat, MessageSignatures, Name, RateLimitPerSecond, TimeoutSeconds};
use super::reader::{Faulty, Reader};
use super::retrying::Retrying;
use super::setting::{Cell, Cells, Column, Corrupt, Field, Setting};
use super::subscriber_url::SubscriberUrl;
use crate::index::Interest;
use crate::message::Format;
use crate::retry::RetryPolicy;
use crate::signing::Signatures;
use serde_json::{Map, Value};
use std::ops::{Deref, DerefMut};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

macro_rules! settings {
    (
        common { $($(#[$doc:meta])* $field:ident: $type:ty = $setting:ty;)* }
        rare { $($(#[$rare_doc:meta])* $rare:ident: $rare_type:ty = $rare_setting:ty;)* }
    ) => {
        /// The settable part of a subscription. Its rare settings are read and changed like the others.
        #[derive(Debug, Clone, PartialEq)]
        pub struct Settings {
            $($(#[$doc])* pub $field: $type,)*
            rare: Arc<Rare>,
        }

        /// The settings that few subscriptions have.
        #[derive(Debug, Clone, PartialEq, Default)]
        pub struct Rare {
            $($(#[$rare_doc])* pub $rare: $rare_type,)*
        }

        impl Settings {
            /// The fields in JSON, in the order in which answers have them.
            pub fn fields() -> impl Iterator<Item = &'static Field> {
                [$(<$setting>::FIELDS,)* $(<$rare_setting>::FIELDS,)*].into_iter().flatten()
            }

            /// The columns in the ledger.
            pub fn columns() -> impl Iterator<Item = &'static Column> {
                [$(<$setting>::COLUMNS,)* $(<$rare_setting>::COLUMNS,)*].into_iter().flatten()
            }

            /// The settings as `GET` shows them.
            pub fn to_json(&self) -> Map<String, Value> {
                let mut shown = Map::new();
                $(show::<$setting>(&self.$field, &mut shown);)*
                $(show::<$rare_setting>(&self.$rare, &mut shown);)*
                shown
            }

            /// What the ledger keeps, in the order of the columns.
            pub fn to_cells(&self) -> Vec<Cell> {
                let mut cells = Vec::with_capacity(32);
                $(cells.extend(<$setting>::store(&self.$field));)*
                $(cells.extend(<$rare_setting>::store(&self.$rare));)*
                cells
            }

            /// The settings that the ledger kept.
            pub fn from_cells(cells: &mut Cells) -> Result<Self, Corrupt> {
                $(let $field = <$setting>::load(cells)?;)*
                let rare = Rare { $($rare: <$rare_setting>::load(cells)?,)* };
                Ok(Self { $($field,)* rare: rare.shared() })
            }

            /// The settings as the ledger gives them back, such as times in whole milliseconds.
            #[must_use]
            pub fn as_kept(self) -> Self {
                Self::from_cells(&mut Cells::new(self.to_cells())).unwrap_or(self)
            }

            /// Reads the settings, all of them, so that every fault is named. `held` is what the subscription has so far.
            pub(super) fn read(reader: &mut Reader<'_>, held: Option<&Self>) -> Result<Self, Faulty> {
                $(let $field = read::<$setting>(reader, held.map(|held| &held.$field));)*
                $(let $rare = read::<$rare_setting>(reader, held.map(|held| &held.$rare));)*
                let rare = Rare { $($rare: $rare?,)* };
                Ok(Self { $($field: $field?,)* rare: rare.shared() })
            }
        }
    };
}

settings! {
    common {
        /// What it listens to.
        interest: Interest = Listening;
        /// How messages are written.
        format: Format = MessageFormat;
        /// Where messages go, as it is called.
        url: String = SubscriberUrl;
        /// One more header on every message, name and value.
        custom_header: Option<Box<(String, String)>> = CustomHeader;
        /// A name for people.
        name: Option<String> = Name;
        /// No messages while false.
        active: bool = Active;
        /// How long an attempt may take in all; 0.1 to 30 s.
        timeout: Duration = TimeoutSeconds;
        /// When to try again and when to give up.
        retry: Arc<RetryPolicy> = Retrying;
        /// The most attempts at a time, 1 to 1,000.
        max_in_flight: u16 = MaxInFlight;
        /// The most attempts a second; none for no limit.
        rate_limit_per_second: Option<f64> = RateLimitPerSecond;
    }
    rare {
        /// Which signatures messages have.
        signatures: Signatures = MessageSignatures;
    }
}

impl Rare {
    /// The settings, kept once where they are the defaults: of a million subscriptions few have others.
    fn shared(self) -> Arc<Self> {
        static DEFAULT: LazyLock<Arc<Rare>> = LazyLock::new(Arc::default);
        if self == **DEFAULT {
            return Arc::clone(&DEFAULT);
        }
        Arc::new(self)
    }
}

impl Deref for Settings {
    type Target = Rare;

    fn deref(&self) -> &Rare {
        &self.rare
    }
}

impl DerefMut for Settings {
    fn deref_mut(&mut self) -> &mut Rare {
        Arc::make_mut(&mut self.rare)
    }
}

/// Reads a setting. One whose fields all stay as they are is kept: it was judged when it was set, by the rules of then.
fn read<S: Setting>(reader: &mut Reader<'_>, held: Option<&S::Value>) -> Result<S::Value, Faulty> {
    match held {
        Some(held) if S::FIELDS.iter().all(|field| reader.is_kept(field.name)) => Ok(held.clone()),
        _ => S::read(reader, held),
    }
}

fn show<S: Setting>(value: &S::Value, shown: &mut Map<String, Value>) {
    let names = S::FIELDS.iter().map(|field| field.name.to_owned());
    shown.extend(names.zip(S::show(value)));
}
