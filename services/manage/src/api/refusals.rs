//! The refusals that routes share, for `/openapi.json`.

use herald_access::problem::Problem;
use utoipa::IntoResponses;

/// Answers that every route with a key can give.
#[derive(IntoResponses)]
#[expect(dead_code, reason = "describes answers")]
pub(crate) enum SharedAnswers {
    #[response(
        status = 401,
        description = "No key, or an unknown one.",
        content_type = "application/problem+json"
    )]
    Unauthorized(Problem),
    #[response(
        status = 429,
        description = "The account has too many requests under way; try again after Retry-After.",
        content_type = "application/problem+json"
    )]
    TooMany(Problem),
    #[response(
        status = 503,
        description = "The ledger is away, or took too long; try again after Retry-After.",
        content_type = "application/problem+json"
    )]
    Unavailable(Problem),
}

/// Answers of routes that need a role.
#[derive(IntoResponses)]
#[response(
    status = 403,
    description = "The role or the permission is missing; `detail` names it.",
    content_type = "application/problem+json"
)]
#[expect(dead_code, reason = "describes answers")]
pub(crate) struct Forbidden(Problem);

/// Answers of routes that name something.
#[derive(IntoResponses)]
#[response(
    status = 404,
    description = "Not there, or another account's.",
    content_type = "application/problem+json"
)]
#[expect(dead_code, reason = "describes answers")]
pub(crate) struct Missing(Problem);

/// Answers of routes that depend on a state.
#[derive(IntoResponses)]
#[response(
    status = 409,
    description = "Not possible as things stand; `detail` says why.",
    content_type = "application/problem+json"
)]
#[expect(dead_code, reason = "describes answers")]
pub(crate) struct Conflict(Problem);

/// Answers of routes with fields or parameters.
#[derive(IntoResponses)]
#[response(
    status = 400,
    description = "Malformed; `errors` names each field or parameter, and the rule.",
    content_type = "application/problem+json"
)]
#[expect(dead_code, reason = "describes answers")]
pub(crate) struct Malformed(Problem);

/// Answers of routes with a body.
#[derive(IntoResponses)]
#[expect(dead_code, reason = "describes answers")]
pub(crate) enum BodyAnswers {
    #[response(
        status = 408,
        description = "The body did not come within 30 s.",
        content_type = "application/problem+json"
    )]
    TooSlow(Problem),
    #[response(
        status = 413,
        description = "A body over 1 MiB.",
        content_type = "application/problem+json"
    )]
    TooLarge(Problem),
    #[response(status = 415, description = "Not JSON.", content_type = "application/problem+json")]
    MediaType(Problem),
}
