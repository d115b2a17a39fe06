//! Spans as OTLP has them.

use super::{Kind, Settings, Span, Value};
use herald_domain::time::Timestamp;
use herald_domain::trace::TraceContext;
use opentelemetry_proto::tonic::collector::trace::v1::{ExportTraceServiceRequest, ExportTraceServiceResponse};
use opentelemetry_proto::tonic::common::v1::{AnyValue, InstrumentationScope, KeyValue, any_value};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::span::{Link, SpanKind};
use opentelemetry_proto::tonic::trace::v1::status::StatusCode;
use opentelemetry_proto::tonic::trace::v1::{self, ResourceSpans, ScopeSpans, Status};
use prost::Message;
use uuid::Uuid;

/// This process, as the collector knows it.
pub(super) fn resource(settings: &Settings) -> Resource {
    let attributes = [
        ("service.name", Value::from("herald")),
        ("service.version", settings.version.into()),
        ("service.instance.id", Uuid::new_v4().to_string().into()),
        ("herald.role", settings.role.into()),
    ];
    Resource {
        attributes: attributes.map(|(name, value)| attribute(name, value)).into(),
        ..Resource::default()
    }
}

/// The body of a request to export these spans of that process.
pub(super) fn encode(resource: &Resource, spans: impl Iterator<Item = Span>) -> Vec<u8> {
    let scope = InstrumentationScope {
        name: "herald".to_owned(),
        ..InstrumentationScope::default()
    };
    let of_scope = ScopeSpans {
        scope: Some(scope),
        spans: spans.map(encoded).collect(),
        ..ScopeSpans::default()
    };
    let of_process = ResourceSpans {
        resource: Some(resource.clone()),
        scope_spans: vec![of_scope],
        ..ResourceSpans::default()
    };
    ExportTraceServiceRequest {
        resource_spans: vec![of_process],
    }
    .encode_to_vec()
}

/// How many spans the collector did not take of a request that it took, as its answer says.
pub(super) fn rejected(answer: &[u8]) -> usize {
    // Whatever else it says, it is a success.
    let partial = ExportTraceServiceResponse::decode(answer)
        .ok()
        .and_then(|answer| answer.partial_success);
    partial.map_or(0, |partial| usize::try_from(partial.rejected_spans).unwrap_or(0))
}

fn encoded(span: Span) -> v1::Span {
    let context = span.place.context;
    let mut attributes: Vec<_> = span
        .attributes
        .into_iter()
        .map(|(name, value)| attribute(name, value))
        .collect();
    let status = span.error.map(|error| {
        attributes.push(attribute("error.type", Value::Text(error)));
        Status {
            code: StatusCode::Error.into(),
            ..Status::default()
        }
    });
    v1::Span {
        trace_id: context.trace_id.to_bytes().into(),
        span_id: context.span_id.to_bytes().into(),
        parent_span_id: span
            .place
            .parent
            .map(|parent| parent.to_bytes().into())
            .unwrap_or_default(),
        flags: context.flags().into(),
        name: span.name.into_owned(),
        kind: match span.kind {
            Kind::Server => SpanKind::Server,
            Kind::Client => SpanKind::Client,
            Kind::Producer => SpanKind::Producer,
            Kind::Consumer => SpanKind::Consumer,
        }
        .into(),
        start_time_unix_nano: nanoseconds(span.began),
        end_time_unix_nano: nanoseconds(span.ended),
        attributes,
        links: span.link.map(link).into_iter().collect(),
        status,
        ..v1::Span::default()
    }
}

fn link(to: TraceContext) -> Link {
    Link {
        trace_id: to.trace_id.to_bytes().into(),
        span_id: to.span_id.to_bytes().into(),
        flags: to.flags().into(),
        ..Link::default()
    }
}

fn attribute(name: &str, value: Value) -> KeyValue {
    let value = match value {
        Value::Text(text) => any_value::Value::StringValue(text.into_owned()),
        Value::Number(number) => any_value::Value::IntValue(number),
        Value::Truth(truth) => any_value::Value::BoolValue(truth),
    };
    KeyValue {
        key: name.to_owned(),
        value: Some(AnyValue { value: Some(value) }),
        ..KeyValue::default()
    }
}

fn nanoseconds(at: Timestamp) -> u64 {
    u64::try_from(at.as_micros()).unwrap_or(0).saturating_mul(1000)
}
