//! What the macros cannot describe of a request.

use herald_domain::catalogue::EnateEvent;
use std::borrow::Cow;
use utoipa::openapi::schema::{ArrayBuilder, ObjectBuilder, OneOfBuilder, Type};
use utoipa::openapi::{Ref, RefOr, Schema};
use utoipa::{PartialSchema, ToSchema};

/// One event, or 1 to 10,000.
pub(super) struct OneOrMore;

impl PartialSchema for OneOrMore {
    fn schema() -> RefOr<Schema> {
        let event = || Ref::from_schema_name("Event");
        let several = ArrayBuilder::new()
            .items(event())
            .min_items(Some(1))
            .max_items(Some(10_000));
        OneOfBuilder::new().item(event()).item(several).into()
    }
}

impl ToSchema for OneOrMore {
    fn name() -> Cow<'static, str> {
        "Events".into()
    }
}

/// 1 to 10,000 CloudEvents.
pub(super) struct CloudEvents;

impl PartialSchema for CloudEvents {
    fn schema() -> RefOr<Schema> {
        let several = ArrayBuilder::new()
            .items(Ref::from_schema_name("CloudEvent"))
            .min_items(Some(1))
            .max_items(Some(10_000));
        several.into()
    }
}

impl ToSchema for CloudEvents {
    fn name() -> Cow<'static, str> {
        "CloudEvents".into()
    }
}

/// The type of an event, by name.
pub(super) struct EventTypeName;

impl PartialSchema for EventTypeName {
    fn schema() -> RefOr<Schema> {
        let schema = ObjectBuilder::new()
            .schema_type(Type::String)
            .description(Some("What kind of thing happened: PacketCreated, PacketUpdated, NewCommunication, BusinessObjectCreated, BusinessObjectUpdated, or a type that was registered."))
            .max_length(Some(100))
            .examples(EnateEvent::ALL.map(EnateEvent::name));
        schema.into()
    }
}

impl ToSchema for EventTypeName {
    fn name() -> Cow<'static, str> {
        "EventType".into()
    }
}
