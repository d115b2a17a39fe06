//! The API over HTTP: handlers read requests, and render what an operation gave.
//!
//! | module | routes |
//! |---|---|
//! | `subscriptions`, `rotation` | create, read, change, delete, rotate the secret |
//! | `deliveries` | list, look at one, retry, dead letters |
//! | `events`, `rejected` | what was accepted, and what was not |
//! | `webhooks`, `event_types`, `object_types` | the catalogue |
//! | `accounts`, `keys`, `grants` | who may do what; for operators |

mod accounts;
mod callers;
mod deliveries;
mod etag;
mod event_types;
mod events;
mod fields;
mod grants;
mod json;
mod keys;
mod object_types;
mod openapi;
mod paging;
mod path;
mod query;
mod refusals;
mod rejected;
mod rotation;
mod schemas;
mod subscriptions;
mod turns;
mod webhooks;

use crate::Manage;
use axum::Router;
use axum::http::{Method, StatusCode};
use axum::middleware::from_fn_with_state;
use axum::routing::{get, post};
use herald_access::problem::Problem;
pub use openapi::describe;
use turns::{Turns, take_turn};

/// Every route of the management API. What no route has is left to the caller's fallback.
pub fn router(manage: Manage) -> Router {
    let turns = (manage.clone(), Turns::default());
    Router::new()
        .route(
            "/v1/subscriptions",
            get(subscriptions::list).post(subscriptions::create),
        )
        .route(
            "/v1/subscriptions/{guid}",
            get(subscriptions::show)
                .put(subscriptions::replace)
                .patch(subscriptions::patch)
                .delete(subscriptions::remove),
        )
        .route("/v1/subscriptions/{guid}/rotate-secret", post(rotation::rotate_secret))
        .route("/v1/subscriptions/{guid}/retry", post(subscriptions::retry))
        .route("/v1/deliveries", get(deliveries::list))
        .route("/v1/deliveries/{id}", get(deliveries::show))
        .route("/v1/deliveries/{id}/retry", post(deliveries::retry))
        .route("/v1/dead-letters", get(deliveries::dead_letters))
        .route("/v1/events/{id}", get(events::show))
        .route("/v1/rejected-events", get(rejected::list))
        .route("/v1/event-types", get(event_types::list))
        .route(
            "/v1/event-types/{name}",
            get(event_types::show).put(event_types::put).delete(event_types::remove),
        )
        .route("/v1/object-types", get(object_types::list))
        .route(
            "/v1/object-types/{name}",
            get(object_types::show)
                .put(object_types::put)
                .delete(object_types::remove),
        )
        .route("/v1/webhooks", get(webhooks::list))
        .route("/v1/webhooks/{name}", get(webhooks::show))
        .route("/v1/accounts", get(accounts::list).post(accounts::create))
        .route("/v1/accounts/{id}", get(accounts::show).patch(accounts::patch))
        .route("/v1/accounts/{id}/keys", get(keys::list).post(keys::create))
        .route("/v1/accounts/{id}/keys/{keyId}", get(keys::show).delete(keys::remove))
        .route(
            "/v1/accounts/{id}/grants",
            get(grants::list).post(grants::create).delete(grants::remove),
        )
        .route_layer(from_fn_with_state(turns, take_turn))
        .method_not_allowed_fallback(method_not_allowed)
        .with_state(manage)
}

async fn method_not_allowed(method: Method) -> Problem {
    let detail = format!("this address does not know {method}; the header Allow says what it knows");
    Problem::new(StatusCode::METHOD_NOT_ALLOWED, detail)
}
