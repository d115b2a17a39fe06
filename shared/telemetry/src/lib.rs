//! What every role shares to be observed: metrics, traces, logs and health.
//!
//! Metrics go to one [`prometheus::Registry`] that is handed in; each service has its own in one file,
//! `metrics.rs`. Label values come from enums, so their number is bounded and every one is there from
//! the start with the value 0.
#![warn(missing_docs)]

pub mod health;
pub mod logs;
pub mod traces;

use axum::Router;
use axum::http::header::CONTENT_TYPE;
use axum::response::IntoResponse;
use axum::routing::get;
use prometheus::{Encoder, Registry, TextEncoder};

/// `GET /metrics`, in Prometheus' text format.
pub fn metrics_router(registry: Registry) -> Router {
    let render = move || {
        let encoder = TextEncoder::new();
        let mut text = Vec::new();
        let result = encoder.encode(&registry.gather(), &mut text);
        async move {
            match result {
                Ok(()) => ([(CONTENT_TYPE, encoder.format_type().to_owned())], text).into_response(),
                Err(error) => (axum::http::StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
            }
        }
    };
    Router::new().route("/metrics", get(render))
}
