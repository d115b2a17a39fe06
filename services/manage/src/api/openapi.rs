//! This crate's part of `/openapi.json`.

mod messages;
mod whole;

use crate::api::{
    accounts, deliveries, event_types, events, grants, keys, object_types, rejected, rotation, subscriptions, webhooks,
};
use herald_access::problem::Problem;
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::{Modify, OpenApi};
pub use whole::describe;

/// This crate's part of the description: title, security scheme, and every route of [`crate::router`].
fn openapi() -> utoipa::openapi::OpenApi {
    Description::openapi()
}

#[derive(OpenApi)]
#[openapi(
    info(
        title = "Herald",
        license(name = "Apache-2.0", url = "https://www.apache.org/licenses/LICENSE-2.0"),
        description = "Durable webhook delivery: what is accepted is delivered, or provably not. JSON is PascalCase, times are RFC 3339 in UTC, GUIDs compare \
                       case-insensitively and are written in lower case. What belongs to another account is answered \
                       with 404, as if it were not there; an operator sees everything.",
    ),
    paths(
        subscriptions::create, subscriptions::list, subscriptions::show, subscriptions::replace,
        subscriptions::patch, subscriptions::remove, rotation::rotate_secret,
        subscriptions::retry,
        deliveries::list, deliveries::show, deliveries::retry, deliveries::dead_letters,
        events::show, rejected::list,
        webhooks::list, webhooks::show,
        event_types::list, event_types::show, event_types::put, event_types::remove,
        object_types::list, object_types::show, object_types::put, object_types::remove,
        accounts::create, accounts::list, accounts::show, accounts::patch,
        keys::create, keys::list, keys::show, keys::remove,
        grants::create, grants::list, grants::remove,
    ),
    components(schemas(Problem)),
    modifiers(&Bearer),
    tags(
        (name = "Events", description = "What happened."),
        (name = "Subscriptions", description = "Who wants to know. Role ProcessBuilder."),
        (name = "Deliveries", description = "What became of an event for a subscription. Role ProcessBuilder."),
        (name = "Webhooks", description = "What there is to subscribe to. Any key."),
        (name = "Catalogue", description = "Event types and object types. Any key reads them; role Operator registers them."),
        (name = "Accounts", description = "Who may do what. Role Operator."),
    ),
)]
struct Description;

struct Bearer;

impl Modify for Bearer {
    fn modify(&self, openapi: &mut utoipa::openapi::OpenApi) {
        let scheme = HttpBuilder::new()
            .scheme(HttpAuthScheme::Bearer)
            .description(Some("A key of an account, or the operator's."))
            .build();
        openapi
            .components
            .get_or_insert_default()
            .add_security_scheme("key", SecurityScheme::Http(scheme));
    }
}
