//! The HTTP side of the process: every role's routes under one roof.

use axum::extract::{Request, State};
use axum::http::{Method, StatusCode, Uri};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use herald_access::problem::Problem;
use herald_ingest::Ingest;
use herald_manage::Manage;
use herald_telemetry::health::Health;
use tokio_util::sync::CancellationToken;
use tower_http::catch_panic::CatchPanicLayer;
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::openapi::{Components, InfoBuilder, License, OpenApi};

/// All routes. Once `stopping`, nothing new is accepted for delivery; all else is answered to the end.
pub(crate) fn router(
    ingest: Ingest,
    manage: Manage,
    health: Health,
    metrics: prometheus::Registry,
    stopping: CancellationToken,
) -> Router {
    let description = openapi();
    Router::new()
        .merge(
            ingest
                .router()
                .layer(from_fn_with_state(stopping, refuse_when_stopping)),
        )
        .merge(herald_manage::router(manage))
        .merge(health.router())
        .merge(herald_telemetry::metrics_router(metrics))
        .route("/openapi.json", get(async move || Json(description)))
        .fallback(async |uri: Uri| Problem::new(StatusCode::NOT_FOUND, format!("there is nothing at {}", uri.path())))
        .method_not_allowed_fallback(async |method: Method, uri: Uri| {
            Problem::new(
                StatusCode::METHOD_NOT_ALLOWED,
                format!("{} does not know {method}", uri.path()),
            )
        })
        .layer(CatchPanicLayer::custom(panicked))
}

/// The whole API's description.
pub(crate) fn openapi() -> OpenApi {
    let mut description = herald_ingest::openapi();
    description.merge(herald_manage::openapi());
    description.info = InfoBuilder::new()
        .title("Herald")
        .version(env!("CARGO_PKG_VERSION"))
        .description(Some(
            "Durable webhook delivery: what is accepted is delivered, or provably not.",
        ))
        .license(Some(License::new("Apache-2.0")))
        .build();
    let bearer = HttpBuilder::new()
        .scheme(HttpAuthScheme::Bearer)
        .description(Some("An API key."))
        .build();
    let components = description.components.get_or_insert_with(Components::new);
    components.add_security_scheme("key", SecurityScheme::Http(bearer));
    description
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
