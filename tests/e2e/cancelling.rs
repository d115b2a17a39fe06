//! A subscription that ends: what is in flight counts, the rest is cancelled, and there is a way back.

use crate::scene::Scene;
use herald_tests::api::text;
use herald_tests::metrics::Metrics;
use herald_tests::receiver::Gate;
use herald_tests::{Answer, Api, PATIENCE, Subscription, wait_until};
use serde_json::{Value, json};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

const IN_FLIGHT: usize = 5;

/// A subscription with one delivery that waits an hour for its next attempt, and several in flight until the gate
/// opens. Whatever comes then is answered 410.
async fn half_way(scene: &Scene, path: &str, gate: &Arc<Gate>) -> Subscription {
    let (asked, behind) = (AtomicUsize::new(0), Arc::clone(gate));
    scene
        .receiver
        .script(path, move |_| match asked.fetch_add(1, Ordering::Relaxed) {
            0 => Answer::status(500),
            1..=IN_FLIGHT => Answer::ok().behind(&behind),
            _ => Answer::status(410),
        });
    let made = scene
        .subscribe(
            path,
            json!({ "TimeoutSeconds": 30, "Retry": { "InitialSeconds": 3600 } }),
        )
        .await;
    scene.publish().await;
    scene.receiver.wait_for(path, 1).await;
    scene.publish_many(IN_FLIGHT).await;
    scene.receiver.wait_for(path, 1 + IN_FLIGHT).await;
    made
}

/// Waits until that many of a subscription's deliveries have that status, and gives them.
async fn those(scene: &Scene, made: &Subscription, count: usize, status: &str) -> Vec<Value> {
    wait_until(&format!("{count} are {status}"), PATIENCE, async || {
        let mut deliveries = scene.api.deliveries_of(made.guid()).await;
        deliveries.retain(|delivery| delivery["Status"] == status);
        (deliveries.len() == count).then_some(deliveries)
    })
    .await
}

/// The rest is cancelled while the gate is shut, and all in flight is delivered once it is open.
async fn counts(scene: &Scene, made: &Subscription, path: &str, gate: &Gate) {
    let waiting = those(scene, made, 1, "Cancelled").await.remove(0);
    let last = (&waiting["AttemptCount"], &waiting["LastStatusCode"]);
    assert_eq!(last, (&json!(1), &json!(500)), "{path}");
    let asked = scene.receiver.requests_to(path).len();
    those(scene, made, IN_FLIGHT, "Open").await;
    gate.open();
    let delivered = those(scene, made, IN_FLIGHT, "Delivered").await;
    let once = delivered.iter().all(|delivery| delivery["AttemptCount"] == 1);
    assert!(once, "{path}: {delivered:#?}");
    let asked_since = scene.receiver.requests_to(path).len() - asked;
    assert_eq!(asked_since, 0, "{path}: nothing more is sent");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_in_flight_when_a_subscription_ends_is_delivered() {
    let scene = Scene::start().await;
    for path in ["/deactivated", "/deleted"] {
        let gate = Arc::default();
        let made = half_way(&scene, path, &gate).await;
        if path == "/deleted" {
            let _deleted = scene.api.delete(&made.path()).await.expect(204);
        } else {
            let _patched = scene
                .api
                .patch(&made.path(), &json!({ "Active": false }))
                .await
                .expect(200);
        }
        counts(&scene, &made, path, &gate).await;
    }
    let audit = scene.herald.settled(PATIENCE).await;
    assert_eq!(
        (audit.deliveries("Delivered"), audit.deliveries("Cancelled")),
        (10, 2),
        "{}",
        audit.output
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_410_says_why_counts_what_is_in_flight_and_can_be_taken_back() {
    let scene = Scene::start().await;
    let gate = Arc::default();
    let made = half_way(&scene, "/", &gate).await;
    let before = scene.api.get(&made.path()).await.expect(200).json();
    assert_eq!(
        (&before["DeactivatedAt"], &before["DeactivationReason"]),
        (&Value::Null, &Value::Null)
    );
    scene.publish().await;
    let gone = those(&scene, &made, 1, "Dead").await;
    assert_eq!(gone[0]["Reason"], "gone");
    let deactivated = scene.api.get(&made.path()).await.expect(200).json();
    assert_eq!(
        (&deactivated["Active"], &deactivated["DeactivationReason"]),
        (&json!(false), &json!("gone"))
    );
    let at = text(&deactivated["DeactivatedAt"]).to_owned();
    counts(&scene, &made, "/", &gate).await;
    let mut metrics = Metrics::default();
    for address in scene.herald.addresses() {
        let api = Api::new(&format!("http://{address}"), "").without_key();
        metrics.add(&api.get("/metrics").await.expect(200));
    }
    assert!((metrics.sum(|name| name == "herald_subscriptions_deactivated_total") - 1.0).abs() < 0.1);

    scene.receiver.script("/", |_| Answer::ok());
    let again = format!("{}/retry", made.path());
    let cancelled = json!({ "Status": "Cancelled", "Since": at });
    scene.api.post(&again, &cancelled).await.problem(409).saying("Active");
    let active = scene
        .api
        .patch(&made.path(), &json!({ "Active": true }))
        .await
        .expect(200)
        .json();
    assert_eq!(
        (&active["DeactivatedAt"], &active["DeactivationReason"]),
        (&Value::Null, &Value::Null)
    );
    for body in [cancelled, json!({ "Status": "Dead" })] {
        let retried = scene.api.post(&again, &body).await.expect(202).json();
        assert_eq!(retried, json!({ "Retried": 1, "More": false }), "{body}");
    }
    those(&scene, &made, 2 + IN_FLIGHT, "Delivered").await;
    assert_eq!(
        scene.receiver.requests_to("/").len(),
        2 + IN_FLIGHT + 2,
        "nothing that had arrived is sent again"
    );
}
