//! The life of a delivery, from the match to its end.
//!
//! ```text
//!               ┌── failed, time left ──┐
//!               ▼                       │
//!  matched ──▶ Open ── attempt ─────────┤
//!               │ ▲                     ├── 2xx ───────────────────────▶ Delivered
//!               │ └─ manual retry ──────┼── given up, or hopeless ─────▶ Dead
//!               │    (of all but        │
//!               │     Delivered)        │
//!               ├── subscription inactive or deleted ──────────────────▶ Cancelled
//!               └── owner lost the role or the permission ─────────────▶ Refused
//! ```
//! A delivery in flight is neither cancelled nor refused before its outcome is known. A success counts whenever it
//! comes, also if a process that was thought dead reports it late: then Dead, Cancelled or Refused become
//! Delivered. `Delivered` is final. The ledger closes a delivery by deleting its open row. Of two processes that
//! close the same delivery, the one whose delete finds the row decides.

use crate::catalogue::Webhook;
use crate::id::{DeliveryId, SubscriptionId};
use crate::retry::{RetryPolicy, delay};
use crate::time::Timestamp;
use std::time::Duration;

/// A delivery's `Status`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Status {
    /// Waiting, or being attempted.
    Open,
    /// Open, but an operator holds its subscription.
    Held,
    /// Closed: delivered, or ended without success.
    Closed(Closed),
}

/// How a closed delivery ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Closed {
    /// The subscriber answered 2xx.
    Delivered,
    /// Given up, or without hope.
    Dead,
    /// The subscription was deactivated or deleted.
    Cancelled,
    /// The subscription's owner lacked the role or the permission.
    Refused,
}

impl Closed {
    /// Every way to end.
    pub const ALL: [Self; 4] = [Self::Delivered, Self::Dead, Self::Cancelled, Self::Refused];

    /// The number that stands for this end in the ledger; never reused.
    pub const fn code(self) -> i16 {
        match self {
            Self::Delivered => 1,
            Self::Dead => 2,
            Self::Cancelled => 3,
            Self::Refused => 4,
        }
    }

    /// The end with that number.
    pub fn coded(code: i16) -> Option<Self> {
        Self::ALL.into_iter().find(|end| end.code() == code)
    }

    /// Whether a manual retry may open it again.
    pub const fn can_be_retried(self) -> bool {
        match self {
            Self::Dead | Self::Cancelled | Self::Refused => true,
            Self::Delivered => false,
        }
    }
}

impl Status {
    /// Every status, in the order of the API.
    pub const ALL: [Self; 6] = [
        Self::Open,
        Self::Held,
        Self::Closed(Closed::Delivered),
        Self::Closed(Closed::Dead),
        Self::Closed(Closed::Cancelled),
        Self::Closed(Closed::Refused),
    ];

    /// The name in the API.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Open => "Open",
            Self::Held => "Held",
            Self::Closed(Closed::Delivered) => "Delivered",
            Self::Closed(Closed::Dead) => "Dead",
            Self::Closed(Closed::Cancelled) => "Cancelled",
            Self::Closed(Closed::Refused) => "Refused",
        }
    }

    /// The status of that name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|status| status.name() == name)
    }
}

/// Why an attempt did not succeed; an attempt's `Error`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum AttemptError {
    /// No whole answer within the subscription's `TimeoutSeconds`.
    Timeout,
    /// No connection could be made.
    Connect,
    /// No trust: the certificate or the handshake failed.
    Tls,
    /// The name did not resolve.
    Dns,
    /// Every address of the host is one that a request may not go to.
    AddressRefused,
    /// The connection ended in the middle.
    Reset,
    /// The answer's head was too large.
    ResponseTooLarge,
    /// An answer, but not 2xx.
    Http,
}

impl AttemptError {
    /// Every error.
    pub const ALL: [Self; 8] = [
        Self::Timeout,
        Self::Connect,
        Self::Tls,
        Self::Dns,
        Self::AddressRefused,
        Self::Reset,
        Self::ResponseTooLarge,
        Self::Http,
    ];

    /// The name in the API, in metrics and in the ledger.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Timeout => "timeout",
            Self::Connect => "connect",
            Self::Tls => "tls",
            Self::Dns => "dns",
            Self::AddressRefused => "address_refused",
            Self::Reset => "reset",
            Self::ResponseTooLarge => "response_too_large",
            Self::Http => "http",
        }
    }

    /// The error of that name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|error| error.name() == name)
    }
}

/// What an attempt came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// The subscriber answered with this status code.
    Answered {
        /// The status code.
        status: u16,
        /// For how long the subscriber wants no more: `Retry-After`, or until the reset of a rate limit of
        /// which nothing remains.
        retry_after: Option<Duration>,
    },
    /// There was no answer.
    Failed(AttemptError),
}

impl Outcome {
    /// The status code, if there was an answer.
    pub fn status_code(self) -> Option<u16> {
        match self {
            Self::Answered { status, .. } => Some(status),
            Self::Failed(_) => None,
        }
    }

    /// Only 2xx is success; a redirect is not followed.
    pub fn is_success(self) -> bool {
        matches!(self, Self::Answered { status: 200..=299, .. })
    }

    /// The error, if the outcome is no success.
    pub fn error(self) -> Option<AttemptError> {
        match self {
            Self::Answered { .. } if self.is_success() => None,
            Self::Answered { .. } => Some(AttemptError::Http),
            Self::Failed(error) => Some(error),
        }
    }
}

/// A finished attempt, as it is recorded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attempt {
    /// The attempt's number, from 1.
    pub number: u32,
    /// When the attempt began.
    pub at: Timestamp,
    /// How long it took.
    pub duration: Duration,
    /// What it came to.
    pub outcome: Outcome,
    /// The error in words; of the payload nothing but what the subscriber's answer repeats of it.
    pub detail: Option<String>,
}

/// An open delivery, as lanes and the ledger pass it about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Delivery {
    /// Sent as `webhook-id`.
    pub id: DeliveryId,
    /// The subscription to which it goes.
    pub subscription: SubscriptionId,
    /// What the subscription asked for when the event was matched.
    pub webhook: Webhook,
    /// How many attempts were made.
    pub attempts: u32,
    /// When the next attempt is due.
    pub due_at: Timestamp,
    /// When the event was matched.
    pub created_at: Timestamp,
    /// When it was matched, or last retried by hand: the start of its give-up clock.
    pub opened_at: Timestamp,
    /// The registry's version at `opened_at`; 0 if it was not noted.
    pub opened_version: i64,
}

impl Delivery {
    /// Whether the delivery was opened before a change of its subscription, that is, before the version that the
    /// change made. Times are compared only where one of the two versions is 0, because an earlier Herald opened the
    /// delivery or made the change without noting one. Otherwise they do not count: a clock may have been set.
    pub fn is_opened_before(&self, version: i64, at: Timestamp) -> bool {
        match (self.opened_version, version) {
            (0, _) | (_, 0) => self.opened_at < at,
            (opened, version) => opened < version,
        }
    }
}

/// What follows from an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// The delivery is over.
    Close(Closed, Option<Reason>),
    /// The delivery is over, and the subscriber wants no more: the subscription is deactivated.
    CloseAndDeactivate,
    /// The delivery is tried again then.
    Retry(Timestamp),
}

/// Why a delivery was closed without success.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Reason {
    /// The give-up time passed.
    GaveUp,
    /// `MaxAttempts` were made.
    MaxAttempts,
    /// The subscriber answered 410.
    Gone,
    /// Every address of the host is one that a request may not go to.
    AddressRefused,
    /// The subscription was deactivated.
    SubscriptionInactive,
    /// The subscription was deleted.
    SubscriptionDeleted,
    /// The owner's account is inactive.
    AccountInactive,
    /// The owner no longer has the role `ProcessBuilder`.
    RoleMissing,
    /// The owner no longer has the permission on the filter's object.
    PermissionMissing,
}

impl Reason {
    /// Every reason.
    pub const ALL: [Self; 9] = [
        Self::GaveUp,
        Self::MaxAttempts,
        Self::Gone,
        Self::AddressRefused,
        Self::SubscriptionInactive,
        Self::SubscriptionDeleted,
        Self::AccountInactive,
        Self::RoleMissing,
        Self::PermissionMissing,
    ];

    /// The name in the API and in the ledger.
    pub const fn name(self) -> &'static str {
        match self {
            Self::GaveUp => "gave_up",
            Self::MaxAttempts => "max_attempts",
            Self::Gone => "gone",
            Self::AddressRefused => "address_refused",
            Self::SubscriptionInactive => "subscription_inactive",
            Self::SubscriptionDeleted => "subscription_deleted",
            Self::AccountInactive => "account_inactive",
            Self::RoleMissing => "role_missing",
            Self::PermissionMissing => "permission_missing",
        }
    }

    /// The reason of that name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|reason| reason.name() == name)
    }
}

/// Decides what follows from an attempt that ended at `now`. `jitter` is a random number from 0 to 1.
///
/// The last attempt is made when the give-up time is reached, even if the delay would have been longer. So a
/// delivery becomes dead neither before nor long after that time. `Retry-After` counts with every status that is
/// tried again, 401 and 404 among them: RFC 9110, 10.2.3, does not restrict it to certain statuses.
pub fn decide(delivery: &Delivery, attempt: &Attempt, policy: &RetryPolicy, now: Timestamp, jitter: f64) -> Decision {
    let retry_after = match attempt.outcome {
        Outcome::Answered { status: 200..=299, .. } => return Decision::Close(Closed::Delivered, None),
        Outcome::Answered { status: 410, .. } => return Decision::CloseAndDeactivate,
        Outcome::Failed(AttemptError::AddressRefused) => {
            return Decision::Close(Closed::Dead, Some(Reason::AddressRefused));
        }
        Outcome::Answered { retry_after, .. } => retry_after,
        Outcome::Failed(_) => None,
    };
    if policy.max_attempts.is_some_and(|most| attempt.number >= most) {
        return Decision::Close(Closed::Dead, Some(Reason::MaxAttempts));
    }
    let give_up_at = delivery.opened_at.plus(policy.give_up_after);
    if now >= give_up_at {
        return Decision::Close(Closed::Dead, Some(Reason::GaveUp));
    }
    let wished = retry_after.unwrap_or_default().min(policy.max);
    let due_at = now.plus(delay(attempt.number, policy, jitter).max(wished));
    Decision::Retry(due_at.min(give_up_at))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use uuid::Uuid;

    fn delivery(opened_at: i64) -> Delivery {
        let opened_at = Timestamp::from_micros(opened_at);
        Delivery {
            id: DeliveryId(Uuid::nil()),
            subscription: SubscriptionId(Uuid::nil()),
            webhook: Webhook::PacketCreated,
            attempts: 0,
            due_at: opened_at,
            created_at: opened_at,
            opened_at,
            opened_version: 0,
        }
    }

    fn attempt(number: u32, outcome: Outcome) -> Attempt {
        Attempt {
            number,
            at: Timestamp::from_micros(0),
            duration: Duration::ZERO,
            outcome,
            detail: None,
        }
    }

    fn answered(status: u16) -> Outcome {
        Outcome::Answered {
            status,
            retry_after: None,
        }
    }

    #[test]
    fn versions_tell_what_was_opened_before_a_change_however_the_clock_was_set() {
        let opened = |at, version| Delivery {
            opened_version: version,
            ..delivery(at)
        };
        for at in [1, 1000, 1_000_000] {
            let change = Timestamp::from_micros(1000);
            assert!(opened(at, 6).is_opened_before(7, change));
            assert!(!opened(at, 7).is_opened_before(7, change));
            assert!(!opened(at, 8).is_opened_before(7, change));
            for (opening, version) in [(0, 7), (8, 0), (0, 0)] {
                let before = opened(at, opening).is_opened_before(version, change);
                assert_eq!(before, at < 1000, "{opening} or {version} was not noted");
            }
            let never = Timestamp::from_micros(0);
            assert!(!opened(at, 8).is_opened_before(0, never), "it never was deactivated");
        }
    }

    #[test]
    fn only_2xx_is_success() {
        for status in 100..600 {
            let decision = decide(
                &delivery(0),
                &attempt(1, answered(status)),
                &RetryPolicy::default(),
                Timestamp::from_micros(1),
                0.5,
            );
            match status {
                200..=299 => assert_eq!(decision, Decision::Close(Closed::Delivered, None)),
                410 => assert_eq!(decision, Decision::CloseAndDeactivate),
                _ => assert!(matches!(decision, Decision::Retry(_)), "{status}"),
            }
        }
    }

    #[test]
    fn retry_after_is_obeyed_up_to_the_policys_maximum() {
        let policy = RetryPolicy {
            max: Duration::from_secs(100),
            ..RetryPolicy::default()
        };
        let due = |status, seconds| {
            let outcome = Outcome::Answered {
                status,
                retry_after: Some(Duration::from_secs(seconds)),
            };
            match decide(
                &delivery(0),
                &attempt(1, outcome),
                &policy,
                Timestamp::from_micros(0),
                0.5,
            ) {
                Decision::Retry(due) => due.as_unix_seconds(),
                other @ (Decision::Close(..) | Decision::CloseAndDeactivate) => panic!("{other:?}"),
            }
        };
        assert_eq!(due(429, 60), 60);
        assert_eq!(due(503, 6000), 100);
        assert_eq!(due(429, 1), 5, "never sooner than the schedule");
        for status in [301, 307, 401, 403, 404, 408, 413, 425, 500, 502, 504, 529] {
            assert_eq!(due(status, 60), 60, "{status}");
        }
    }

    proptest! {
        #[test]
        fn every_failure_is_retried_in_time_or_given_up_in_time(
            number in 1u32..100, elapsed in 0u64..400_000, give_up in 0u64..300_000, most in proptest::option::of(1u32..50), jitter in 0.0f64..1.0,
        ) {
            let policy = RetryPolicy { give_up_after: Duration::from_secs(give_up), max_attempts: most, ..RetryPolicy::default() };
            let now = Timestamp::from_micros(0).plus(Duration::from_secs(elapsed));
            match decide(&delivery(0), &attempt(number, answered(500)), &policy, now, jitter) {
                Decision::Retry(due) => {
                    prop_assert!(due > now);
                    prop_assert!(due <= Timestamp::from_micros(0).plus(policy.give_up_after));
                    prop_assert!(most.is_none_or(|most| number < most));
                }
                Decision::Close(Closed::Dead, Some(Reason::GaveUp)) => prop_assert!(elapsed >= give_up),
                Decision::Close(Closed::Dead, Some(Reason::MaxAttempts)) => prop_assert!(number >= most.unwrap()),
                other @ (Decision::Close(..) | Decision::CloseAndDeactivate) => prop_assert!(false, "{:?}", other),
            }
        }
    }

    #[test]
    fn names_and_codes_lead_back() {
        for end in Closed::ALL {
            assert_eq!(Closed::coded(end.code()), Some(end));
        }
        for status in Status::ALL {
            assert_eq!(Status::named(status.name()), Some(status));
        }
        for error in AttemptError::ALL {
            assert_eq!(AttemptError::named(error.name()), Some(error));
        }
        for reason in Reason::ALL {
            assert_eq!(Reason::named(reason.name()), Some(reason));
        }
    }
}
