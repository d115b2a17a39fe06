//! Whether the process lives and whether it can serve, part by part.

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};

/// What each part last said of itself; cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Health {
    parts: Arc<RwLock<BTreeMap<&'static str, Result<(), String>>>>,
}

impl Health {
    /// A part serves.
    pub fn ok(&self, part: &'static str) {
        self.set(part, Ok(()));
    }

    /// A part does not serve, and why.
    pub fn failing(&self, part: &'static str, why: impl Into<String>) {
        self.set(part, Err(why.into()));
    }

    fn set(&self, part: &'static str, state: Result<(), String>) {
        self.parts
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(part, state);
    }

    /// `/health/live`: 200 as long as the process answers. `/health/ready`: 200 when every part
    /// serves, else 503; either way each part with `ok` or what is wrong.
    pub fn router(self) -> Router {
        Router::new()
            .route("/health/live", get(async || Json(serde_json::json!({"Status": "ok"}))))
            .route("/health/ready", get(ready))
            .with_state(self)
    }
}

async fn ready(State(health): State<Health>) -> Response {
    let parts = health.parts.read().unwrap_or_else(PoisonError::into_inner);
    let ready = !parts.is_empty() && parts.values().all(Result::is_ok);
    let described = parts.iter().map(|(part, state)| {
        let text = state.as_ref().map_or_else(String::as_str, |()| "ok");
        ((*part).to_owned(), Value::from(text))
    });
    let body = serde_json::json!({
        "Status": if ready { "ok" } else { "unavailable" },
        "Parts": described.collect::<Map<_, _>>(),
    });
    let status = if ready {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    (status, Json(body)).into_response()
}
