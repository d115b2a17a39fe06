//! The HTTP side of the process: every role's routes under one roof.
//!
//! What has reached a route is answered with a problem where it is refused. What is no HTTP at all, or whose
//! head is larger than the listener takes, the HTTP library answers with 400 or 431 and no body.

use crate::process::unread::read_on;
use axum::extract::{Request, State};
use axum::http::header::CONNECTION;
use axum::http::{HeaderValue, Method, StatusCode, Uri};
use axum::middleware::{Next, from_fn, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use herald_access::problem::Problem;
use herald_ingest::Ingest;
use herald_manage::Manage;
use herald_telemetry::health::Health;
use hyper::service::Service as _;
use hyper_util::service::TowerToHyperService;
use serde_json::json;
use tokio_util::sync::CancellationToken;
use tower_http::catch_panic::CatchPanicLayer;

/// The routes of a process, as its roles add theirs.
pub(crate) struct App {
    routes: Router,
    /// Those that `/` names, for whoever comes without knowing any.
    shown: Vec<&'static str>,
}

impl App {
    /// What every process has: health and metrics.
    pub(crate) fn new(health: Health, metrics: prometheus::Registry) -> Self {
        Self {
            routes: Router::new()
                .merge(health.router())
                .merge(herald_telemetry::metrics_router(metrics)),
            shown: vec!["/health/live", "/health/ready", "/metrics"],
        }
    }

    /// The entrance for producers. Once `stopping`, nothing new is accepted; all else is answered to the
    /// end.
    pub(crate) fn ingest(&mut self, ingest: Ingest, stopping: CancellationToken) {
        let routes = ingest
            .router()
            .layer(from_fn_with_state(stopping, refuse_when_stopping));
        self.add(&["/v1/events"], routes);
    }

    /// Adds the routes of the management API.
    pub(crate) fn manage(&mut self, manage: Manage) {
        let description = herald_manage::describe(herald_ingest::openapi(), env!("CARGO_PKG_VERSION"));
        let routes = herald_manage::router(manage).route("/openapi.json", get(async move || Json(description)));
        self.add(
            &["/openapi.json", "/v1/webhooks", "/v1/subscriptions", "/v1/deliveries"],
            routes,
        );
    }

    fn add(&mut self, shown: &[&'static str], routes: Router) {
        self.shown.extend(shown);
        self.routes = std::mem::take(&mut self.routes).merge(routes);
    }

    /// All of them, with an answer for whatever else is asked.
    pub(crate) fn finish(self) -> Router {
        let root = json!({
            "Name": "Herald",
            "Version": env!("CARGO_PKG_VERSION"),
            "Paths": self.shown,
        });
        self.routes
            .route("/", get(async move || Json(root)))
            .fallback(async |uri: Uri| {
                Problem::new(StatusCode::NOT_FOUND, format!("there is nothing at {}", uri.path()))
            })
            .method_not_allowed_fallback(async |method: Method, uri: Uri| {
                Problem::new(
                    StatusCode::METHOD_NOT_ALLOWED,
                    format!("{} does not know {method}", uri.path()),
                )
            })
            .layer(CatchPanicLayer::custom(panicked))
            .layer(from_fn(read_on))
    }
}

/// What is served beyond the most connections: how the process is, and else a refusal. The connection is closed.
pub(crate) async fn when_full(request: Request, routes: Router) -> Response {
    let asked = request.uri().path();
    let mut response = if asked == "/metrics" || asked.starts_with("/health/") {
        let Ok(response) = TowerToHyperService::new(routes).call(request).await;
        response
    } else {
        Problem::overloaded().into_response()
    };
    response
        .headers_mut()
        .insert(CONNECTION, HeaderValue::from_static("close"));
    response
}

/// What is served until all else is ready. The connection is closed, so that the next one finds more.
pub(crate) fn starting(health: Health, metrics: prometheus::Registry) -> Router {
    let closed = async |request: Request, next: Next| {
        let mut response = next.run(request).await;
        response
            .headers_mut()
            .insert(CONNECTION, HeaderValue::from_static("close"));
        response
    };
    App::new(health, metrics)
        .routes
        .fallback(async || Problem::stopping())
        .layer(from_fn(closed))
        .layer(from_fn(read_on))
}

async fn refuse_when_stopping(State(stopping): State<CancellationToken>, request: Request, next: Next) -> Response {
    if stopping.is_cancelled() {
        return Problem::stopping().into_response();
    }
    next.run(request).await
}

/// The panic itself is in the log, by the panic hook.
fn panicked(_payload: Box<dyn std::any::Any + Send>) -> Response {
    Problem::new(
        StatusCode::INTERNAL_SERVER_ERROR,
        "Herald failed at this; the log says where",
    )
    .into_response()
}
