//! A ledger, a registry and the router over both; who calls, and what there is to look at.

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::http::{HeaderMap, Method, Request, StatusCode};
use herald_access::hash_key;
use herald_domain::access::{OPERATOR, Roles};
use herald_domain::address::EgressPolicy;
use herald_domain::catalogue::EnateEvent;
use herald_domain::delivery::{Attempt, Closed, Delivery, Outcome, Reason};
use herald_domain::event::Objects;
use herald_domain::id::{EventId, EventUid, KeyId, ObjectGuid};
use herald_domain::time::SystemClock;
use herald_ledger::Ledger;
use herald_ledger::accounts::ApiKey;
use herald_ledger::delivering::{NextStep, OutcomeRecord};
use herald_ledger::dispatching::{BatchResult, EventRecord, EventResult, NewEvent};
use herald_ledger::shards::ShardLeases;
use herald_manage::{Manage, router};
use herald_registry::Registry;
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;
use tempfile::TempDir;
use tower::ServiceExt as _;
use uuid::Uuid;

pub(crate) const KEY: &str = "herald_operator";

pub(crate) const COMPANY: &str = "6a1f0f5e-55a5-4f0c-9c39-0d5e2e0c1a01";

pub(crate) struct World {
    pub(crate) ledger: Ledger,
    registry: Arc<Registry>,
    owned: ShardLeases,
    router: Router,
    _folder: TempDir,
}

/// An answer, its body read.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) text: String,
}

/// An account with a key.
pub(crate) struct User {
    pub(crate) account: String,
    pub(crate) key: String,
}

impl World {
    pub(crate) async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (ledger, writer) = Ledger::open(&folder.path().join("herald.db"), Arc::new(SystemClock))
            .await
            .unwrap();
        tokio::spawn(writer.run());
        let key = ApiKey {
            id: KeyId(Uuid::now_v7()),
            account: OPERATOR,
            name: None,
            hash: hash_key(KEY),
            roles: Roles::OPERATOR,
            created_at: ledger.now(),
        };
        ledger.ensure_operator(Some(key)).await.unwrap();
        let owned = ledger.take_all_shards(Uuid::now_v7()).await.unwrap();
        let registry = Arc::new(Registry::load(ledger.clone(), None).await.unwrap());
        let egress = Arc::new(EgressPolicy::default());
        let router = router(Manage {
            ledger: ledger.clone(),
            registry: Arc::clone(&registry),
            egress,
        });
        Self {
            ledger,
            registry,
            owned,
            router,
            _folder: folder,
        }
    }

    /// Runs a statement on the ledger's database.
    pub(crate) async fn execute(&self, sql: &'static str) {
        let write = self
            .ledger
            .store()
            .write(move |txn, _now| Box::pin(async move { herald_ledger::sql::execute(txn, sql, []).await }));
        write.await.unwrap();
    }

    /// Sends a request as it is.
    pub(crate) async fn raw(&self, request: Request<Body>) -> Answer {
        let response = self.router.clone().oneshot(request).await.unwrap();
        let (parts, body) = response.into_parts();
        let bytes = to_bytes(body, usize::MAX).await.unwrap();
        Answer {
            status: parts.status,
            headers: parts.headers,
            text: String::from_utf8(bytes.to_vec()).unwrap(),
        }
    }

    pub(crate) async fn send(&self, key: &str, method: Method, path: &str, body: Option<Value>) -> Answer {
        let mut request = Request::builder()
            .method(method)
            .uri(path)
            .header("authorization", format!("Bearer {key}"));
        let body = match body {
            None => Body::empty(),
            Some(body) => {
                request = request.header("content-type", "application/json");
                Body::from(body.to_string())
            }
        };
        self.raw(request.body(body).unwrap()).await
    }

    pub(crate) async fn get(&self, key: &str, path: &str) -> Answer {
        self.send(key, Method::GET, path, None).await
    }

    pub(crate) async fn post(&self, key: &str, path: &str, body: Value) -> Answer {
        self.send(key, Method::POST, path, Some(body)).await
    }

    pub(crate) async fn put(&self, key: &str, path: &str, body: Value) -> Answer {
        self.send(key, Method::PUT, path, Some(body)).await
    }

    pub(crate) async fn patch(&self, key: &str, path: &str, body: Value) -> Answer {
        self.send(key, Method::PATCH, path, Some(body)).await
    }

    pub(crate) async fn delete(&self, key: &str, path: &str) -> Answer {
        self.send(key, Method::DELETE, path, None).await
    }

    /// An account with those roles and a key, made through the API.
    pub(crate) async fn user(&self, roles: &[&str]) -> User {
        let account = self
            .post(KEY, "/v1/accounts", json!({"Name": "somebody", "Roles": roles}))
            .await
            .expect(201);
        let account = account["Id"].as_str().unwrap().to_owned();
        let key = self
            .post(KEY, &format!("/v1/accounts/{account}/keys"), json!({}))
            .await
            .expect(201);
        User {
            account,
            key: key["Key"].as_str().unwrap().to_owned(),
        }
    }

    /// An account that may subscribe to every company.
    pub(crate) async fn builder(&self) -> User {
        let user = self.user(&["Producer", "ProcessBuilder"]).await;
        let grants = format!("/v1/accounts/{}/grants", user.account);
        self.post(KEY, &grants, json!({"ObjectType": "Company"}))
            .await
            .expect(201);
        user
    }

    /// A subscription to packets of [`COMPANY`]; its GUID.
    pub(crate) async fn subscription(&self, user: &User) -> String {
        let made = self
            .post(&user.key, "/v1/subscriptions", subscription())
            .await
            .expect(201);
        made["GUID"].as_str().unwrap().to_owned()
    }

    /// Records an event of [`COMPANY`] as if dispatch had; the deliveries that follow from it.
    pub(crate) async fn publish(&self, account: &str, id: Uuid, data: &str) -> (EventUid, Vec<Delivery>) {
        let company = ObjectGuid(COMPANY.parse().unwrap());
        let objects = Objects::from([("Company", company), ("Packet", company)]);
        let (matches, version) = {
            let view = self.registry.view();
            (
                view.index().matches(&EnateEvent::PacketCreated.into(), &objects),
                view.version(),
            )
        };
        let uid = EventUid(Uuid::now_v7());
        let record = Arc::new(EventRecord {
            uid,
            id: EventId(id),
            kind: EnateEvent::PacketCreated.into(),
            occurred_at: None,
            objects,
            data: data.to_owned(),
            accepted_at: self.ledger.now(),
            traceparent: None,
        });
        let event = NewEvent {
            record,
            account: account.into(),
            body_hash: 0,
            matches,
        };
        let recorded = self
            .ledger
            .record(vec![event], version, self.owned.clone())
            .await
            .unwrap();
        match recorded {
            BatchResult::Done(_, mut done) => match done.remove(0) {
                EventResult::New { mine, .. } => (uid, mine),
                EventResult::Repeated { .. } => panic!("that Id was used before"),
            },
            BatchResult::Stale => panic!("the registry changed meanwhile"),
        }
    }

    /// Fails an attempt and gives the delivery up.
    pub(crate) async fn kill(&self, event: EventUid, delivery: Delivery) {
        let attempt = Attempt {
            number: 1,
            at: self.ledger.now(),
            duration: Duration::from_millis(1500),
            outcome: Outcome::Answered {
                status: 503,
                retry_after: None,
            },
            detail: Some("503 Service Unavailable".to_owned()),
        };
        let next = NextStep::Close {
            status: Closed::Dead,
            reason: Some(Reason::GaveUp),
            deactivate: None,
        };
        let shard = herald_domain::id::Shard::of(delivery.subscription);
        let finish = OutcomeRecord {
            epoch: self.owned.epoch(shard).unwrap(),
            delivery,
            event,
            attempt: Some(attempt),
            next,
        };
        self.ledger.record_outcomes(vec![finish]).await.unwrap();
    }
}

impl Answer {
    /// The body, if the status is that one.
    #[track_caller]
    pub(crate) fn expect(self, status: u16) -> Value {
        assert_eq!(self.status.as_u16(), status, "{}", self.text);
        if self.text.is_empty() {
            Value::Null
        } else {
            serde_json::from_str(&self.text).unwrap()
        }
    }

    /// The problem, if it is one of that status.
    #[track_caller]
    pub(crate) fn problem(self, status: u16) -> Value {
        assert_eq!(
            self.headers.get("content-type").unwrap(),
            "application/problem+json",
            "{}",
            self.text
        );
        let problem = self.expect(status);
        assert_eq!(problem["status"], status);
        assert!(problem["detail"].as_str().is_some_and(|detail| !detail.is_empty()));
        problem
    }

    /// The pointers and rules of a 400.
    #[track_caller]
    pub(crate) fn faults(self) -> Vec<(String, String)> {
        let problem = self.problem(400);
        let faults = problem["errors"].as_array().unwrap().iter();
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        faults
            .map(|fault| (text(&fault["pointer"]), text(&fault["rule"])))
            .collect()
    }
}

pub(crate) fn subscription() -> Value {
    json!({
        "Webhook": "PacketCreated", "FilterObjectType": "Company", "FilterObjectGUID": COMPANY.to_uppercase(),
        "SubscriberURL": "https://example.com/hooks",
    })
}

/// A fault as [`Answer::faults`] gives it.
pub(crate) fn fault(pointer: &str, rule: &str) -> (String, String) {
    (pointer.to_owned(), rule.to_owned())
}
