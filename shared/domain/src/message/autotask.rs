//! Autotask's callouts: compact JSON that names the action, the entity and its fields.
//!
//! Some receivers read the body and write it again before they verify it, with some characters of texts escaped. So the
//! body is written just as they write it, and both they and those who verify the bytes come to the same signature.

use super::{Envelope, Outgoing};
use crate::json::{Fields, text};
use serde_json::value::RawValue;
use std::fmt::Write as _;

/// The header with the signature.
pub const SIGNATURE: &str = "x-hook-signature";

/// The fields of an entity that a subscription shows, user-defined ones included.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Shown<'a> {
    /// All that the event has.
    #[default]
    All,
    /// Those of that name.
    Only {
        /// Shown when the entity is created, or when they change.
        subscribed: &'a [Box<str>],
        /// Shown whatever happens.
        always: &'a [Box<str>],
    },
}

impl Shown<'_> {
    fn has(self, action: Action, changed: Option<&[String]>, name: &str) -> bool {
        let is_in = |names: &[Box<str>]| names.iter().any(|known| **known == *name);
        let has_changed = match action {
            Action::Create => true,
            Action::Update => changed.is_none_or(|names| names.iter().any(|known| known == name)),
            Action::Delete => false,
        };
        match self {
            Self::All => true,
            Self::Only { subscribed, always } => is_in(always) || (has_changed && is_in(subscribed)),
        }
    }
}

/// What has become of an entity.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Action {
    Create,
    Update,
    Delete,
}

impl Action {
    const fn name(self) -> &'static str {
        match self {
            Self::Create => "Create",
            Self::Update => "Update",
            Self::Delete => "Delete",
        }
    }
}

/// How the names of event types end, and what that means.
const ENDINGS: [(&str, Action); 6] = [
    ("Create", Action::Create),
    ("Created", Action::Create),
    ("Update", Action::Update),
    ("Updated", Action::Update),
    ("Delete", Action::Delete),
    ("Deleted", Action::Delete),
];

/// What receivers call entities that have another name elsewhere.
const ENTITIES: [(&str, &str); 4] = [
    ("Company", "Account"),
    ("ConfigurationItem", "InstalledProduct"),
    ("Asset", "InstalledProduct"),
    ("Note", "TicketNote"),
];

/// Signs that separate the parts of a type's name.
const SIGNS: [char; 3] = ['.', '-', '_'];

/// The action and the entity that the name of an event type speaks of, such as `TicketUpdated` or
/// `Autotask.Ticket.Update`. A name without an action is an entity that was updated.
fn callout_of(name: &str) -> (Action, &str) {
    let name = name
        .strip_prefix("Autotask")
        .map_or(name, |rest| rest.trim_start_matches(SIGNS));
    let ended = ENDINGS.into_iter().find_map(|(ending, action)| {
        let entity = name.strip_suffix(ending)?.trim_end_matches(SIGNS);
        (!entity.is_empty()).then_some((action, entity))
    });
    let (action, entity) = ended.unwrap_or((Action::Update, name));
    let known = ENTITIES.into_iter().find(|(name, _)| *name == entity);
    (action, known.map_or(entity, |(_, known)| known))
}

/// A callout. `Id` and `PersonID` are those of `Data`, and `Fields` is its `Fields`, or all the rest where it has none. Its
/// `Changed` names the fields that changed; without it all did.
pub(super) fn compose(envelope: &Envelope<'_>) -> Outgoing {
    let (action, entity) = callout_of(envelope.kind.name());
    let Fields(data) = serde_json::from_str(envelope.data).unwrap_or(Fields(Vec::new()));
    let named = |names: &[&str]| {
        data.iter()
            .find(|(name, _)| names.contains(&&**name))
            .map(|(_, raw)| *raw)
    };
    let at = envelope.occurred_at.unwrap_or(envelope.accepted_at);

    let mut body = String::with_capacity(envelope.data.len() + 256);
    let _infallible = write!(
        body,
        r#"{{"Action":"{}","Guid":"{}","EntityType":"{entity}""#,
        action.name(),
        envelope.subscription
    );
    if let Some(id) = named(&IDS) {
        body.push_str(r#","Id":"#);
        rewrite(id.get(), &mut body);
    }
    body.push_str(r#","Fields":{"#);
    let inner = named(&["Fields"]).and_then(|raw| serde_json::from_str::<Fields<'_>>(raw.get()).ok());
    let is_field = |name: &str| inner.is_some() || !OTHERS.contains(&name);
    let changed = named(&["Changed"]).and_then(|raw| serde_json::from_str::<Vec<String>>(raw.get()).ok());
    let mut separator = "";
    for (name, value) in inner.as_ref().map_or(&data, |Fields(inner)| inner) {
        if is_field(name) && envelope.fields.has(action, changed.as_deref(), name) {
            body.push_str(separator);
            write_text(name, &mut body);
            body.push(':');
            rewrite(value.get(), &mut body);
            separator = ",";
        }
    }
    let _infallible = write!(body, r#"}},"EventTime":"{at}""#);
    if let Some(sequence) = envelope.sequence {
        let _infallible = write!(body, r#","SequenceNumber":{sequence}"#);
    }
    if let Some(person) = named(&PERSONS) {
        body.push_str(r#","PersonID":"#);
        rewrite(person.get(), &mut body);
    }
    body.push('}');
    Outgoing::json(body)
}

/// The names of the entity's id.
const IDS: [&str; 2] = ["Id", "id"];

/// The names of the one who acted.
const PERSONS: [&str; 2] = ["PersonID", "PersonId"];

/// What `Data` has beside the fields, where they are not in an object of their own.
const OTHERS: [&str; 5] = ["Id", "id", "PersonID", "PersonId", "Changed"];

/// Writes a JSON text without white space, its texts escaped as receivers escape them. Numbers stay as they are.
fn rewrite(json: &str, out: &mut String) {
    let mut rest = json;
    while let Some(place) = rest.find(['"', ' ', '\t', '\n', '\r']) {
        let (plain, from) = rest.split_at(place);
        out.push_str(plain);
        rest = if from.starts_with('"') {
            let (quoted, behind) = from.split_at(quoted_bytes(from));
            match serde_json::from_str::<&RawValue>(quoted).ok().and_then(text) {
                Some(plain) => write_text(&plain, out),
                // Half of a surrogate pair, which an event of an earlier version may have: as it came.
                None => out.push_str(quoted),
            }
            behind
        } else {
            from.trim_start_matches([' ', '\t', '\n', '\r'])
        };
    }
    out.push_str(rest);
}

/// The length of the JSON string that a text begins with.
fn quoted_bytes(text: &str) -> usize {
    let mut escaped = false;
    let end = text.bytes().skip(1).position(|byte| {
        let ends = byte == b'"' && !escaped;
        escaped = byte == b'\\' && !escaped;
        ends
    });
    end.map_or(text.len(), |end| end + 2)
}

/// Writes a text as a JSON string.
fn write_text(text: &str, out: &mut String) {
    out.push('"');
    for c in text.chars() {
        let short = match c {
            '\\' => Some(r"\\"),
            '\u{8}' => Some(r"\b"),
            '\t' => Some(r"\t"),
            '\n' => Some(r"\n"),
            '\u{c}' => Some(r"\f"),
            '\r' => Some(r"\r"),
            _ => None,
        };
        if let Some(short) = short {
            out.push_str(short);
        } else if c.is_ascii() && !c.is_ascii_control() && !"&<>'\"`+".contains(c) {
            out.push(c);
        } else {
            for unit in c.encode_utf16(&mut [0; 2]) {
                let _infallible = write!(out, "\\u{unit:04X}");
            }
        }
    }
    out.push('"');
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalogue::{EventType, RegisteredType};
    use crate::event::Objects;
    use crate::message::tests::envelope;
    use proptest::prelude::*;
    use serde_json::{Value, json};
    use std::sync::Arc;

    fn kind(name: &str) -> EventType {
        let name = name.into();
        EventType::Registered(Arc::new(RegisteredType { code: 1000, name }))
    }

    const DATA: &str = r#"{ "Id": 351181, "PersonID": 30691780,
        "Fields": { "TicketNumber": "T20250915.0001", "Title": "R&D \u00e4\/😀", "Priority": 1.50 } }"#;

    #[test]
    fn a_callout_is_compact_and_escaped() {
        let (kind, objects) = (kind("TicketCreated"), Objects::default());
        let envelope = Envelope {
            sequence: Some(1),
            ..envelope(&kind, &objects, DATA)
        };
        assert_eq!(
            compose(&envelope).body,
            concat!(
                r#"{"Action":"Create","Guid":"00000000-0000-0000-0000-000000000007","EntityType":"Ticket","Id":351181,"#,
                r#""Fields":{"TicketNumber":"T20250915.0001","Title":"R\u0026D \u00E4/\uD83D\uDE00","Priority":1.50},"#,
                r#""EventTime":"1970-01-01T00:00:02Z","SequenceNumber":1,"PersonID":30691780}"#
            )
        );
    }

    #[test]
    fn fields_are_shown_when_they_change_or_always() {
        let subscribed: [Box<str>; 2] = ["Title".into(), "Priority".into()];
        let always: [Box<str>; 1] = ["TicketNumber".into()];
        let fields = Shown::Only {
            subscribed: &subscribed,
            always: &always,
        };
        let names = |name: &str, data: &str| {
            let (kind, objects) = (kind(name), Objects::default());
            let envelope = Envelope {
                fields,
                ..envelope(&kind, &objects, data)
            };
            let body: Value = serde_json::from_str(&compose(&envelope).body).unwrap();
            body["Fields"].as_object().unwrap().keys().cloned().collect::<Vec<_>>()
        };
        let all = ["TicketNumber", "Title", "Priority"];
        let changed = DATA.replacen('{', r#"{"Changed":["Priority","Queue"],"#, 1);
        assert_eq!(names("Autotask.Ticket.Update", DATA), all);
        assert_eq!(names("Autotask.Ticket.Update", &changed), ["TicketNumber", "Priority"]);
        assert_eq!(names("Autotask.Ticket.Create", &changed), all);
        assert_eq!(names("Autotask.Ticket.Delete", &changed), ["TicketNumber"]);
    }

    #[test]
    fn data_without_fields_is_the_fields() {
        let (kind, objects) = (kind("Autotask.Company.Update"), Objects::default());
        let data = r#"{"id":7,"Name":"Globex","Changed":["Name"],"PersonId":null}"#;
        let body: Value = serde_json::from_str(&compose(&envelope(&kind, &objects, data)).body).unwrap();
        assert_eq!(body["Fields"], json!({ "Name": "Globex" }));
        assert_eq!((&body["Id"], &body["PersonID"]), (&json!(7), &Value::Null));
        assert_eq!(
            (&body["Action"], &body["EntityType"]),
            (&json!("Update"), &json!("Account"))
        );
        assert!(body.get("SequenceNumber").is_none());
    }

    #[test]
    fn the_name_of_a_type_says_the_action_and_the_entity() {
        for (name, action, entity) in [
            ("TicketCreate", Action::Create, "Ticket"),
            ("TicketNoteDeleted", Action::Delete, "TicketNote"),
            ("ConfigurationItemUpdated", Action::Update, "InstalledProduct"),
            ("autotask", Action::Update, "autotask"),
            ("Autotask.Contact.Deleted", Action::Delete, "Contact"),
            ("InvoicePaid", Action::Update, "InvoicePaid"),
            ("Created", Action::Update, "Created"),
        ] {
            assert_eq!(callout_of(name), (action, entity), "{name}");
        }
    }

    /// What .NET's default encoder leaves as it is.
    fn is_plain(c: char) -> bool {
        c.is_ascii() && !c.is_ascii_control() && !"&<>'\"`+\\".contains(c)
    }

    proptest! {
        #[test]
        fn what_is_rewritten_is_the_same_value_in_the_one_form(
            text in any::<String>(), number: f64, space in "[ \n\t]{0,3}",
        ) {
            let value = json!({ "a": [text, number, null, true], text.clone(): { "b": "\"\\" } });
            let spaced = format!("{space}{}{space}", serde_json::to_string_pretty(&value).unwrap());
            let mut once = String::new();
            rewrite(&spaced, &mut once);
            let value = |json: &str| serde_json::from_str::<Value>(json).unwrap();
            prop_assert_eq!(value(&once), value(&spaced));
            prop_assert!(once.is_ascii() && !once.contains(['&', '<', '>', '\'', '`', '\n', '\t']));
            let mut twice = String::new();
            rewrite(&once, &mut twice);
            prop_assert_eq!(twice, once);
            let mut written = String::new();
            write_text(&text, &mut written);
            let plain = text.chars().all(is_plain);
            prop_assert_eq!(written.contains('\\'), !plain);
        }
    }
}
