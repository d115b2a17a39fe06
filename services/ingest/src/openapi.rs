//! Ingest's part of `/openapi.json`.

mod body;

use body::{CloudEvents, EventTypeName, OneOrMore};
use herald_access::problem::Problem;
use utoipa::{OpenApi, ToSchema};

/// Ingest's part of the description.
pub fn openapi() -> utoipa::openapi::OpenApi {
    Description::openapi()
}

#[derive(OpenApi)]
#[openapi(
    paths(publish_events),
    components(schemas(Event, EventTypeName, OneOrMore, CloudEvent, CloudEvents, Accepted, Problem))
)]
struct Description;

/// What happened.
#[derive(ToSchema)]
#[schema(rename_all = "PascalCase", example = json!({
    "Id": "0193f1a0-7c1e-7d1a-b1f0-3a5c7e9d1b2f", "Type": "PacketCreated", "OccurredAt": "2026-11-22T05:13:39Z",
    "Objects": {"Company": "6a1f0f5e-55a5-4f0c-9c39-0d5e2e0c1a01", "Packet": "6a1f0f5e-55a5-4f0c-9c39-0d5e2e0c1a05"},
    "Data": {
        "CustomerName": "Globex Corporation", "SupplierName": "Initech", "ContractName": "Capital Discovery",
        "ServiceName": "HR Relief", "ServiceLineName": "East Coast", "ProcessTypeName": "Start Employee",
        "Reference": "202234-C", "Title": "New starter", "Status": 1, "DueDate": "2026-12-01T00:00:00Z",
        "RAGStatus": 1, "ProcessType": 1, "StartedbyMethod": 4
    }
}))]
#[expect(dead_code, reason = "describes herald_domain's Event, which does not know OpenAPI")]
struct Event {
    /// Makes a repeated publication the same event, for 7 days; made and returned where it is absent.
    id: Option<uuid::Uuid>,
    #[schema(value_type = EventTypeName)]
    r#type: String,
    /// RFC 3339; when it happened.
    #[schema(format = DateTime)]
    occurred_at: Option<String>,
    /// The GUIDs of what it concerns: `Company`, `Contract`, `Service`, `Process`, `Packet`, `Schedule`,
    /// `Communication`, and of object types that were registered. At most 64; an empty object where it concerns none.
    #[schema(value_type = Object)]
    objects: (),
    /// The message, as `/v1/webhooks` or the type's schema has it; further fields pass through. It is sent as it came: a field that may
    /// be null and is left out is left out of the message, so give null where receivers want it there. Names are
    /// exact, and one that differs only in letter case from a name that is added or checked is refused. At most 64
    /// arrays and objects in one another.
    #[schema(value_type = Object)]
    data: (),
}

/// An event as a CloudEvent 1.0. What it concerns is in extension attributes that are named after the object types, in
/// lower case and without dots, hyphens and underscores, each a GUID. Other extension attributes are passed over.
#[derive(ToSchema)]
#[schema(rename_all = "lowercase", example = json!({
    "specversion": "1.0", "id": "A-234", "source": "https://example.com/schedules", "type": "BusinessObjectUpdated",
    "time": "2026-11-22T05:13:39Z", "schedule": "6a1f0f5e-55a5-4f0c-9c39-0d5e2e0c1a06",
    "datacontenttype": "application/json", "data": {"Name": "2022 Schedule"}
}))]
#[expect(
    dead_code,
    reason = "describes what herald_domain reads, which does not know OpenAPI"
)]
struct CloudEvent {
    /// 1.0
    #[schema(example = "1.0")]
    specversion: String,
    /// The event's `Id` where it is a UUID; else that is the UUIDv5 of `id` in the namespace that is the UUIDv5 of `source`
    /// in the namespace of URLs.
    #[schema(min_length = 1)]
    id: String,
    /// A URI-reference.
    #[schema(min_length = 1)]
    source: String,
    /// The event's `Type`.
    #[schema(value_type = EventTypeName)]
    r#type: String,
    /// The event's `OccurredAt`, RFC 3339.
    #[schema(format = DateTime)]
    time: Option<String>,
    /// A media type of JSON, or absent.
    datacontenttype: Option<String>,
    /// The event's `Data`.
    #[schema(value_type = Option<Object>)]
    data: (),
    /// Instead of `data`: the same JSON object in UTF-8, in base64.
    data_base64: Option<String>,
}

/// The `Id`s of what was accepted.
#[derive(ToSchema)]
#[schema(rename_all = "PascalCase", example = json!({"Id": "0193f1a0-7c1e-7d1a-b1f0-3a5c7e9d1b2f"}))]
#[expect(dead_code, reason = "describes the answer")]
struct Accepted {
    /// The event's `Id`, where one was published.
    id: Option<uuid::Uuid>,
    /// The events' `Id`s in order, where an array or lines were published.
    ids: Option<Vec<uuid::Uuid>>,
}

/// Publish events
///
/// One event, an array of 1 to 10,000, or newline-delimited JSON; or CloudEvents 1.0: structured, in a batch, or in binary
/// mode, with the attributes as `ce-` headers and the data as the body. 202 means that all of them are in a
/// durable queue; any other answer that none is. After 503, or no answer, publish again with the same
/// `Id`s: what was accepted already is delivered once.
#[utoipa::path(
    post,
    path = "/v1/events",
    tag = "Events",
    request_body(
        content(
            (OneOrMore = "application/json"),
            (String = "application/x-ndjson"),
            (CloudEvent = "application/cloudevents+json", example = json!({
                "specversion": "1.0", "id": "A-234", "source": "https://example.com/schedules",
                "type": "BusinessObjectUpdated", "schedule": "6a1f0f5e-55a5-4f0c-9c39-0d5e2e0c1a06",
                "data": {"Name": "2022 Schedule"}
            })),
            (CloudEvents = "application/cloudevents-batch+json", example = json!([{
                "specversion": "1.0", "id": "A-235", "source": "https://example.com/schedules",
                "type": "BusinessObjectCreated", "schedule": "6a1f0f5e-55a5-4f0c-9c39-0d5e2e0c1a07",
                "data": {"Name": "2023 Schedule"}
            }])),
        ),
        description = "One event, an array of 1 to 10,000, or one event a line; one CloudEvent or an array of them; with `ce-` headers the data of one CloudEvent.",
    ),
    params(
        ("ce-specversion" = Option<String>, Header, description = "1.0: the body is the data of a CloudEvent (binary mode), and its other attributes are headers too, each `ce-` and its name."),
    ),
    responses(
        (status = 202, description = "Durable: every event is in the queue, synced to disk.", body = Accepted),
        (status = 400, description = "Malformed; `errors` names each field and rule. Nothing was accepted.", body = Problem, content_type = "application/problem+json"),
        (status = 401, description = "No key, or an unknown one.", body = Problem, content_type = "application/problem+json"),
        (status = 403, description = "The key has not the role Producer.", body = Problem, content_type = "application/problem+json"),
        (status = 408, description = "The request was not complete in time. Nothing was accepted.", body = Problem, content_type = "application/problem+json"),
        (status = 413, description = "An event over 256 KiB, or a request over 8 MiB.", body = Problem, content_type = "application/problem+json"),
        (status = 415, description = "Neither JSON, newline-delimited JSON nor CloudEvents in JSON, or encoded.", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "Unknown whether accepted: publish again with the same Ids, after Retry-After.", body = Problem, content_type = "application/problem+json"),
    ),
    security(("key" = []))
)]
#[expect(dead_code, reason = "carries the description of the handler")]
fn publish_events() {}

#[cfg(test)]
mod tests {
    use super::openapi;
    use herald_domain::event::cloud_events::{CloudEvent, Mode};

    #[test]
    fn one_event_or_an_array_is_described_with_every_answer() {
        let description = serde_json::to_value(openapi()).unwrap();
        let publish = &description["paths"]["/v1/events"]["post"];
        let body = &publish["requestBody"]["content"]["application/json"]["schema"];
        assert_eq!(body["$ref"], "#/components/schemas/Events");
        let events = &description["components"]["schemas"]["Events"]["oneOf"];
        assert_eq!(events[0]["$ref"], "#/components/schemas/Event");
        assert_eq!(
            (&events[1]["type"], &events[1]["maxItems"]),
            (&"array".into(), &10_000.into())
        );
        let types: Vec<_> = publish["requestBody"]["content"].as_object().unwrap().keys().collect();
        let cloud_events = ["application/cloudevents+json", "application/cloudevents-batch+json"];
        assert!(
            cloud_events
                .iter()
                .all(|wanted| types.iter().any(|given| given == wanted)),
            "{types:?}"
        );
        let catalogue = herald_domain::catalogue::Catalogue::default();
        for media_type in cloud_events {
            let example = &publish["requestBody"]["content"][media_type]["example"];
            let one = if example.is_array() { &example[0] } else { example };
            let read = CloudEvent::read(&Mode::Structured, &one.to_string(), &catalogue).unwrap();
            assert!(read.parse(&catalogue).is_ok(), "{one}");
        }
        let several = &description["components"]["schemas"]["CloudEvents"];
        assert_eq!(several["items"]["$ref"], "#/components/schemas/CloudEvent");
        for status in ["202", "400", "401", "403", "408", "413", "415", "503"] {
            assert!(publish["responses"].get(status).is_some(), "{status}");
        }
    }
}
