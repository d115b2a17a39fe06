//! Event types that come with Herald besides Enate's, in packs: a row of a table for each.
//!
//! They are registered at a process's start as an operator registers types, and are rows of the ledger from then on. So a
//! process of an earlier version, beside which a newer one has started, knows them too.

use super::{EventTypeDraft, Schema};
use serde_json::Value;

/// An event type of a pack.
#[derive(Debug, Clone, Copy)]
pub struct PackType {
    /// The name in `Type`.
    pub name: &'static str,
    pub(super) description: &'static str,
    /// The object types of which its events name one object each.
    pub(super) objects: &'static [&'static str],
    /// The JSON Schema of `Data`.
    pub(super) schema: &'static str,
    /// A `Data` that fits, as JSON.
    pub(super) example: &'static str,
}

impl PackType {
    /// What is registered.
    pub fn draft(&self) -> EventTypeDraft {
        EventTypeDraft {
            description: Some(self.description.to_owned()),
            objects: self.objects.iter().map(|name| (*name).into()).collect(),
            schema: Some(Schema::registered(&json(self.schema).to_string())),
            example: Some(json(self.example)),
            archived: false,
        }
    }
}

#[expect(clippy::expect_used, reason = "a test reads every row")]
fn json(text: &str) -> Value {
    serde_json::from_str(text).expect("invariant: a row holds JSON")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalogue::{Catalogue, EnateEvent, EventType, RegisteredType, packs, read_event_type};
    use crate::problem::Faults;
    use serde_json::json;
    use std::collections::HashSet;

    /// What is wrong with such a `Data` of that type: pointers and rules.
    fn faults(name: &str, data: &Value) -> Vec<String> {
        let mut faults = Faults::default();
        let draft = packs().find(|kind| kind.name == name).unwrap().draft();
        draft.check_data(&data.to_string(), "/Data", &mut faults);
        let listed = faults.into_listed().into_iter();
        listed
            .map(|fault| format!("{} {}", fault.pointer, fault.rule))
            .collect()
    }

    #[test]
    fn every_row_may_be_registered_and_has_an_example_that_fits_its_schema() {
        for kind in packs() {
            let body = json!({
                "Description": kind.description, "Objects": kind.objects, "Schema": json(kind.schema),
                "Example": json(kind.example),
            });
            let read = read_event_type(kind.name, &body, &Catalogue::default());
            assert_eq!(read.as_ref(), Ok(&kind.draft()), "{}", kind.name);
            assert!(EnateEvent::named(kind.name).is_none(), "{}", kind.name);
        }
        let names: HashSet<_> = packs().map(|kind| kind.name).collect();
        assert_eq!(names.len(), 21);
    }

    #[test]
    fn every_entity_of_autotasks_has_three_events_of_one_shape() {
        for entity in ["Company", "Contact", "ConfigurationItem", "Ticket", "TicketNote"] {
            for deed in ["Create", "Update", "Delete"] {
                let name = format!("Autotask.{entity}.{deed}");
                let whole = json!({
                    "Id": 351_181, "Fields": {"status": 5, "UserDefined": [null, {"any": "thing"}]},
                    "Changed": ["status"], "PersonID": 30_691_780,
                });
                assert_eq!(faults(&name, &whole), [""; 0], "{name}");
                assert_eq!(faults(&name, &json!({"Id": 1})), [""; 0], "{name}");
                assert_eq!(faults(&name, &json!({"Fields": {}})), ["/Data schema"], "{name}");
                assert_eq!(faults(&name, &json!({"Id": "1"})), ["/Data/Id schema"], "{name}");
                assert_eq!(faults(&name, &json!({"Id": 1, "Fields": []})), ["/Data/Fields schema"]);
                assert_eq!(
                    faults(&name, &json!({"Id": 1, "Changed": "status"})),
                    ["/Data/Changed schema"]
                );
            }
        }
    }

    #[test]
    fn enneos_events_and_lookups_are_asked_for_what_they_need() {
        let cases = [
            ("TicketUpdated", json!({"status": "open", "tagIds": [1, "a"]}), ""),
            ("TicketUpdated", json!({}), "/Data schema"),
            ("TicketUpdated", json!({"tagIds": 1}), "/Data/tagIds schema"),
            ("NewEmail", json!({"conversationId": null, "subject": "x"}), ""),
            ("NewEmail", json!({"subject": "x"}), "/Data schema"),
            ("ContractById", json!({"contractId": 7}), ""),
            ("ContractById", json!({"contractId": null}), "/Data/contractId schema"),
            ("CustomerById", json!({"customerId": "x".repeat(50)}), ""),
            (
                "CustomerById",
                json!({"customerId": "x".repeat(51)}),
                "/Data/customerId schema",
            ),
            ("ContractsByFeatures", json!({"name": "Gibbons"}), ""),
            ("ContractsByFeatures", json!({}), "/Data schema"),
            ("CustomersByText", json!({"q": "x", "limit": 10, "offset": 0}), ""),
            ("CustomersByText", json!({"q": "x", "limit": 0}), "/Data/limit schema"),
            ("CustomersByText", json!({"limit": 10}), "/Data schema"),
        ];
        for (name, data, wrong) in cases {
            let wanted: Vec<_> = [wrong].into_iter().filter(|wrong| !wrong.is_empty()).collect();
            assert_eq!(faults(name, &data), wanted, "{name} {data}");
        }
    }

    #[test]
    fn types_of_packs_are_told_apart_in_metrics_and_others_are_not() {
        let label = |name: &str| {
            let name = name.into();
            EventType::Registered(std::sync::Arc::new(RegisteredType { code: 1000, name })).label()
        };
        assert_eq!(label("Autotask.Ticket.Create"), "Autotask.Ticket.Create");
        assert_eq!(label("InvoicePaid"), EventType::OTHER);
        assert_eq!(EventType::labels().count(), 5 + 21 + 1);
    }
}
