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
    parts: Arc<RwLock<BTreeMap<&'static str, Part>>>,
}

#[derive(Debug, Clone)]
enum Part {
    Ok,
    /// The part still serves, and soon will not for this reason.
    Degraded(String),
    Failing(String),
}

impl Part {
    fn text(&self) -> &str {
        match self {
            Self::Ok => "ok",
            Self::Degraded(why) | Self::Failing(why) => why,
        }
    }
}

impl Health {
    /// Reports that a part serves.
    pub fn ok(&self, part: &'static str) {
        self.set(part, Part::Ok);
    }

    /// A part does not serve, and why.
    pub fn failing(&self, part: &'static str, why: impl Into<String>) {
        self.set(part, Part::Failing(why.into()));
    }

    /// A part serves, but not for long if nobody does anything, and why.
    pub fn degraded(&self, part: &'static str, why: impl Into<String>) {
        self.set(part, Part::Degraded(why.into()));
    }

    fn set(&self, part: &'static str, state: Part) {
        self.parts
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(part, state);
    }

    /// `/health/live`: 200 as long as the process answers. `/health/ready`: 200 when every part
    /// serves, else 503; either way each part with `ok` or what is wrong. Where one serves but not for long, the status
    /// is `degraded`, and the answer 200: others could serve no longer.
    pub fn router(self) -> Router {
        Router::new()
            .route("/health/live", get(async || Json(serde_json::json!({"Status": "ok"}))))
            .route("/health/ready", get(ready))
            .with_state(self)
    }
}

async fn ready(State(health): State<Health>) -> Response {
    let parts = health.parts.read().unwrap_or_else(PoisonError::into_inner);
    let ready = !parts.is_empty() && !parts.values().any(|state| matches!(state, Part::Failing(_)));
    let degraded = parts.values().any(|state| matches!(state, Part::Degraded(_)));
    let described = parts
        .iter()
        .map(|(part, state)| ((*part).to_owned(), Value::from(state.text())));
    let body = serde_json::json!({
        "Status": match (ready, degraded) {
            (false, _) => "unavailable",
            (true, true) => "degraded",
            (true, false) => "ok",
        },
        "Parts": described.collect::<Map<_, _>>(),
    });
    let status = if ready {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    (status, Json(body)).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn asked(health: &Health) -> (StatusCode, Value) {
        let response = ready(State(health.clone())).await;
        let status = response.status();
        let body = axum::body::to_bytes(response.into_body(), 1 << 16).await.unwrap();
        (status, serde_json::from_slice(&body).unwrap())
    }

    #[tokio::test]
    async fn what_serves_but_not_for_long_is_ready_and_says_so() {
        let health = Health::default();
        assert_eq!(asked(&health).await.0, StatusCode::SERVICE_UNAVAILABLE);
        health.ok("a");
        health.degraded("b", "it ends soon");
        let (status, body) = asked(&health).await;
        assert_eq!(status, StatusCode::OK);
        assert_eq!(body["Status"], "degraded");
        assert_eq!(body["Parts"]["b"], "it ends soon");
        health.failing("a", "gone");
        let (status, body) = asked(&health).await;
        assert_eq!(
            (status, &body["Status"]),
            (StatusCode::SERVICE_UNAVAILABLE, &Value::from("unavailable"))
        );
    }
}
