//! The demo's own account, kept beside Herald's and made without it: who should get which event, and
//! who did.

use crate::commands::listen::{Received, verify};
use crate::commands::samples::BROKEN;
use anyhow::{Context, anyhow};
use axum::http::StatusCode;
use herald_domain::address::EgressPolicy;
use herald_domain::catalogue::{
    Catalogue, EventType, EventTypeSpec, FIRST_REGISTERED, RegisteredType, read_event_type,
};
use herald_domain::delivery::{Closed, Status};
use herald_domain::event;
use herald_domain::id::{EventId, SubscriptionId};
use herald_domain::index::Index;
use herald_domain::signing::SigningKey;
use herald_domain::subscription;
use herald_domain::time::Timestamp;
use herald_ledger::audit::Account;
use serde_json::Value;
use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

/// A subscription as its owner knows it.
#[derive(Debug)]
struct Subscribed {
    key: SigningKey,
    custom_header: Option<(String, String)>,
    broken: bool,
}

type Pair = (SubscriptionId, EventId);

/// Who should get what, and did.
#[derive(Debug, Default)]
pub(super) struct Expectations {
    subscriptions: HashMap<SubscriptionId, Subscribed>,
    index: Index,
    catalogue: Catalogue,
    events: usize,
    matched: usize,
    to_deliver: BTreeSet<Pair>,
    to_die: BTreeSet<Pair>,
    delivered: BTreeSet<Pair>,
    faults: Vec<String>,
}

impl Expectations {
    /// Notes an event type that was registered so.
    pub(super) fn registered(&mut self, name: &str, request: &Value) -> anyhow::Result<()> {
        let draft = read_event_type(name, request, &self.catalogue);
        let draft = draft.map_err(|faults| anyhow!("{request}: {faults:?}"))?;
        let kind = RegisteredType {
            code: FIRST_REGISTERED,
            name: name.into(),
        };
        let never = Timestamp::from_micros(0);
        self.catalogue.put_event_type(EventTypeSpec {
            kind: EventType::Registered(Arc::new(kind)),
            draft,
            built_in: false,
            deleted: false,
            created_at: never,
            updated_at: never,
        });
        Ok(())
    }

    /// Notes a subscription: what was asked for, and what the API answered.
    pub(super) fn subscribed(&mut self, request: &Value, created: &Value, egress: &EgressPolicy) -> anyhow::Result<()> {
        let text = |name: &str| {
            created[name]
                .as_str()
                .with_context(|| format!("the answer has no {name}: {created}"))
        };
        let id: SubscriptionId = text("GUID")?.parse()?;
        let key = SigningKey::meant_by(text("SecretKey")?)?;
        let settings = subscription::parse(request, &self.catalogue, egress)
            .map_err(|faults| anyhow!("{request}: {faults:?}"))?
            .settings;
        self.index.add(&settings.interest, id);
        let broken = settings.url.ends_with(BROKEN);
        self.subscriptions.insert(
            id,
            Subscribed {
                key,
                custom_header: settings.custom_header.map(|header| *header),
                broken,
            },
        );
        Ok(())
    }

    /// Notes an event that was accepted under that `Id`, and says how many subscriptions it concerns.
    pub(super) fn published(&mut self, event: &Value, id: EventId) -> anyhow::Result<usize> {
        let text = event.to_string();
        let event = event::parse(&text, &self.catalogue).map_err(|faults| anyhow!("{text}: {faults:?}"))?;
        let matches = self.index.matches(&event.kind, &event.objects);
        self.events += 1;
        self.matched += matches.len();
        for (subscription, _) in &matches {
            let dies = self
                .subscriptions
                .get(subscription)
                .is_some_and(|subscribed| subscribed.broken);
            let pairs = if dies { &mut self.to_die } else { &mut self.to_deliver };
            pairs.insert((*subscription, id));
        }
        Ok(matches.len())
    }

    /// Notes a message, and says whether it is what it should be; if not, it is a fault.
    pub(super) fn arrived(&mut self, received: &Received) -> bool {
        let judged = self.judge(received);
        if let Err(fault) = &judged {
            self.faults.push(format!("a message to {}: {fault:#}", received.path));
        }
        judged.is_ok()
    }

    fn judge(&mut self, received: &Received) -> anyhow::Result<()> {
        let header = |name: &'static str| received.header(name).with_context(|| format!("it has no {name}"));
        let subscription: SubscriptionId = header("webhook-guid")?.parse()?;
        let event: EventId = header("webhook-event-id")?.parse()?;
        let subscribed = self
            .subscriptions
            .get(&subscription)
            .context("its subscription does not exist")?;
        verify(&received.headers, &received.body, &subscribed.key, received.at)?;
        if let Some((name, value)) = &subscribed.custom_header {
            let given = received.header(name).with_context(|| format!("it has no {name}"))?;
            anyhow::ensure!(given == value, "{name} is {given}");
        }
        let pair = (subscription, event);
        anyhow::ensure!(
            self.to_deliver.contains(&pair) || self.to_die.contains(&pair),
            "event {event} does not concern subscription {subscription}"
        );
        if received.answer.is_success() {
            self.delivered.insert(pair);
        }
        Ok(())
    }

    /// Whether Herald has done all that it was given: a state that it stays in.
    pub(super) fn settled(&self, account: &Account) -> bool {
        let events = usize::try_from(account.events).unwrap_or(0);
        events == self.events && count(account, Status::Open) + count(account, Status::Held) == 0
    }

    /// What is not as it should be, once everything is settled; none if all is well.
    pub(super) fn faults(mut self, account: &Account, in_transit: u64) -> Vec<String> {
        for (subscription, event) in self.to_deliver.difference(&self.delivered) {
            self.faults
                .push(format!("event {event} did not arrive at subscription {subscription}"));
        }
        for (subscription, event) in self.to_die.intersection(&self.delivered) {
            self.faults
                .push(format!("event {event} for subscription {subscription} should be dead"));
        }
        self.faults.extend(
            account
                .differences
                .iter()
                .map(|difference| format!("the audit differs: {difference}")),
        );
        let delivered = count(account, Status::Closed(Closed::Delivered));
        let dead = count(account, Status::Closed(Closed::Dead));
        for (what, is, should) in [
            ("events", account.events, self.events),
            ("matched", account.matched, self.matched),
            ("delivered", delivered, self.to_deliver.len()),
            ("dead", dead, self.to_die.len()),
            ("rejected", account.rejected, 0),
            ("in transit", i64::try_from(in_transit).unwrap_or(i64::MAX), 0),
        ] {
            if usize::try_from(is) != Ok(should) {
                self.faults
                    .push(format!("{what}: the audit says {is}, and it should be {should}"));
            }
        }
        self.faults
    }
}

/// How many deliveries have that status.
pub(super) fn count(account: &Account, status: Status) -> i64 {
    account
        .deliveries
        .iter()
        .filter(|(of, _)| *of == status)
        .map(|(_, count)| count)
        .sum()
}

/// What the receiver answers. It is healthy on all paths except two, and one of those recovers.
pub(super) fn answer(path: &str, attempt: u32) -> StatusCode {
    match (path, attempt) {
        (crate::commands::samples::RECOVERING, 1) => StatusCode::SERVICE_UNAVAILABLE,
        (BROKEN, _) => StatusCode::INTERNAL_SERVER_ERROR,
        _ => StatusCode::OK,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::HeaderMap;
    use herald_ledger::audit::Expired;
    use serde_json::json;
    use uuid::Uuid;

    fn account(events: i64, delivered: i64, dead: i64, open: i64) -> Account {
        let count = |status| match status {
            Status::Open => open,
            Status::Closed(Closed::Delivered) => delivered,
            Status::Closed(Closed::Dead) => dead,
            _ => 0,
        };
        let deliveries = Status::ALL.map(|status| (status, count(status))).to_vec();
        Account {
            events,
            matched: delivered + dead + open,
            deliveries,
            rejected: 0,
            expired: Expired::default(),
            differences: Vec::new(),
        }
    }

    /// Every sample is published, and nothing has arrived.
    fn published() -> Expectations {
        let mut expected = Expectations::default();
        let egress = EgressPolicy::new(vec!["127.0.0.1/32".parse().unwrap()]);
        for (number, request) in (1..).zip(crate::commands::samples::subscriptions("http://127.0.0.1:9000")) {
            let created = json!({"GUID": Uuid::from_u128(number), "SecretKey": "geheim"});
            expected.subscribed(&request, &created, &egress).unwrap();
        }
        for (number, event) in (1..).zip(crate::commands::samples::events()) {
            expected.published(&event, EventId(Uuid::from_u128(number))).unwrap();
        }
        expected
    }

    #[test]
    fn all_is_settled_when_every_event_is_recorded_and_nothing_is_open() {
        let expected = published();
        assert!(expected.settled(&account(12, 11, 1, 0)));
        assert!(!expected.settled(&account(11, 11, 1, 0)));
        assert!(!expected.settled(&account(12, 10, 1, 1)));
    }

    #[test]
    fn what_did_not_arrive_or_differs_is_a_fault() {
        let faults = published().faults(&account(12, 11, 1, 0), 0);
        assert_eq!(
            faults.iter().filter(|fault| fault.contains("did not arrive")).count(),
            11
        );
        assert_eq!(faults.len(), 11, "{faults:?}");
        let mut differing = account(12, 10, 2, 0);
        differing.differences.push("an event too many".to_owned());
        let faults = published().faults(&differing, 1).join("\n");
        for part in [
            "the audit differs: an event too many",
            "delivered: the audit says 10",
            "dead:",
            "in transit:",
        ] {
            assert!(faults.contains(part), "{part} in {faults}");
        }
    }

    #[test]
    fn a_message_that_is_not_verified_is_a_fault() {
        let mut expected = published();
        let mut headers = HeaderMap::new();
        headers.insert("webhook-guid", Uuid::from_u128(1).to_string().parse().unwrap());
        headers.insert("webhook-event-id", Uuid::from_u128(1).to_string().parse().unwrap());
        let (at, answer) = (Timestamp::from_micros(0), StatusCode::OK);
        assert!(!expected.arrived(&Received {
            at,
            path: "/packets".to_owned(),
            headers,
            body: "{}".into(),
            answer
        }));
        assert_eq!(expected.faults.len(), 1);
    }
}
