//! Failed attempts are repeated on schedule, until success or a known end.

use crate::scene::{Scene, attempts, id, numbers};
use herald_tests::api::text;
use herald_tests::samples::{merged, quick_retry};
use herald_tests::{Answer, PATIENCE, wait_until};
use http::Method;
use serde_json::json;
use std::time::Duration;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failure_is_repeated_until_success_and_each_attempt_is_listed() {
    let scene = Scene::start().await;
    scene.receiver.script("/", |request| {
        Answer::status(if request.repeat == 1 { 500 } else { 200 })
    });
    let made = scene.subscribe("/", quick_retry()).await;
    scene.publish().await;
    let delivery = scene.api.delivery_with(made.guid(), "Delivered").await;
    assert_eq!(numbers(&delivery), [1, 2]);
    let [first, second] = attempts(&delivery) else {
        panic!("{delivery:#}")
    };
    assert_eq!((&first["StatusCode"], &first["Error"]), (&json!(500), &json!("http")));
    assert!(first["NextDueAt"].is_string(), "{first}");
    assert_eq!((&second["StatusCode"], &second["Error"]), (&json!(200), &json!(null)));
    assert_eq!(
        (&delivery["AttemptCount"], &delivery["LastStatusCode"]),
        (&json!(2), &json!(200))
    );
    assert!(delivery["ClosedAt"].is_string(), "{delivery:#}");
    for attempt in attempts(&delivery) {
        assert!(
            attempt["DurationSeconds"]
                .as_f64()
                .is_some_and(|seconds| seconds >= 0.0),
            "{attempt}"
        );
        assert!(text(&attempt["At"]).ends_with('Z'), "{attempt}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn delays_follow_the_schedule() {
    let scene = Scene::start().await;
    scene.receiver.script("/", |request| {
        Answer::status(if request.repeat < 4 { 502 } else { 200 })
    });
    let schedule = json!({ "Retry": { "InitialSeconds": 0.25, "Multiplier": 2, "MaxSeconds": 60 } });
    scene.subscribe("/", schedule).await;
    scene.publish().await;
    let requests = scene.receiver.wait_for("/", 4).await;
    for (pair, base) in requests.windows(2).zip([0.25, 0.5, 1.0]) {
        let delay = pair[1].at.duration_since(pair[0].at).as_secs_f64();
        // The jitter is 20 %; how late an attempt may come is not for a busy machine to judge.
        assert!(delay >= base * 0.8 - 0.01, "{delay} s instead of about {base} s");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn retry_after_is_obeyed_and_capped() {
    let scene = Scene::start().await;
    for (path, status, seconds) in [
        ("/busy", 503, "2"),
        ("/limited", 429, "2"),
        ("/forbidden", 403, "2"),
        ("/greedy", 503, "86400"),
    ] {
        scene.receiver.script(path, move |request| match request.repeat {
            1 => Answer::status(status).header("Retry-After", seconds),
            _ => Answer::ok(),
        });
    }
    let patient = json!({ "Retry": { "InitialSeconds": 0.01, "Multiplier": 1, "MaxSeconds": 60 } });
    scene.subscribe("/busy", patient.clone()).await;
    scene.subscribe("/limited", patient.clone()).await;
    scene.subscribe("/forbidden", patient).await;
    scene
        .subscribe(
            "/greedy",
            json!({ "Retry": { "InitialSeconds": 0.01, "MaxSeconds": 0.5 } }),
        )
        .await;
    scene.publish().await;
    for path in ["/busy", "/limited", "/forbidden"] {
        let requests = scene.receiver.wait_for(path, 2).await;
        let delay = requests[1].at.duration_since(requests[0].at);
        assert!(delay >= Duration::from_millis(1990), "{path}: after {delay:?}");
    }
    scene.receiver.wait_for("/greedy", 2).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redirects_are_failures_and_not_followed() {
    let scene = Scene::start().await;
    let target = scene.receiver.url("/target");
    let statuses = [301, 302, 303, 307, 308];
    for status in statuses {
        let target = target.clone();
        let path = format!("/{status}");
        scene
            .receiver
            .script(&path, move |_| Answer::status(status).header("Location", &target));
        scene
            .subscribe(
                &path,
                json!({ "Retry": { "MaxAttempts": 1 }, "Name": status.to_string() }),
            )
            .await;
    }
    scene.publish().await;
    let dead = wait_until("five dead letters", PATIENCE, async || {
        let dead = scene.api.list("/v1/dead-letters").await;
        (dead.len() == statuses.len()).then_some(dead)
    });
    let mut codes: Vec<_> = dead
        .await
        .iter()
        .filter_map(|delivery| delivery["LastStatusCode"].as_u64())
        .collect();
    codes.sort_unstable();
    assert_eq!(codes, statuses.map(u64::from));
    assert!(scene.receiver.requests_to("/target").is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn gone_deactivates_the_subscription_and_cancels_the_rest() {
    let scene = Scene::start().await;
    scene.receiver.script("/", |_| Answer::status(410));
    let made = scene.subscribe("/", json!({ "MaxInFlight": 1 })).await;
    scene.publish_many(5).await;
    let audit = scene.herald.settled(PATIENCE).await;
    assert_eq!(audit.deliveries("Delivered"), 0, "{}", audit.output);
    assert_eq!(
        audit.deliveries("Dead") + audit.deliveries("Cancelled"),
        5,
        "{}",
        audit.output
    );
    let deliveries = scene.api.deliveries_of(made.guid()).await;
    let asked = scene.receiver.requests().len();
    assert_eq!(asked, 1, "who has said 410 is not asked again: {deliveries:#?}");
    let gone = deliveries
        .iter()
        .filter(|delivery| delivery["Reason"] == "gone")
        .count();
    assert_eq!(gone, 1, "{deliveries:#?}");
    let others = deliveries
        .iter()
        .filter(|delivery| delivery["Status"] == "Cancelled" && delivery["AttemptCount"] == 0);
    assert_eq!(others.count(), 4, "{deliveries:#?}");
    assert_eq!(scene.api.get(&made.path()).await.json()["Active"], false);
    scene.publish().await;
    let audit = scene.herald.settled(PATIENCE).await;
    assert_eq!(audit.count("Matched"), 5, "it does not match any more");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn max_attempts_ends_dead_with_the_last_attempt_shown() {
    let scene = Scene::start().await;
    scene.receiver.script("/", |_| Answer::status(500).body("no"));
    let made = scene
        .subscribe("/", merged(quick_retry(), json!({ "Retry": { "MaxAttempts": 3 } })))
        .await;
    let event = scene.publish().await;
    let delivery = scene.api.delivery_with(made.guid(), "Dead").await;
    assert_eq!(numbers(&delivery), [1, 2, 3]);
    assert_eq!(
        (&delivery["Reason"], &delivery["LastError"]),
        (&json!("max_attempts"), &json!("http"))
    );
    let dead = scene.api.list("/v1/dead-letters").await;
    let [dead_letter] = dead.as_slice() else {
        panic!("{dead:#?}")
    };
    assert_eq!(
        (&dead_letter["Id"], &dead_letter["EventId"]),
        (&delivery["Id"], &json!(event))
    );
    // The contract says "with the last attempt" and not under which name.
    let last = dead_letter
        .get("LastAttempt")
        .or_else(|| dead_letter["Attempts"].as_array()?.last());
    let last = last.unwrap_or_else(|| panic!("no last attempt in {dead_letter:#}"));
    assert_eq!((&last["Number"], &last["StatusCode"]), (&json!(3), &json!(500)));
    assert_eq!(scene.receiver.requests().len(), 3);
    let seen = scene.api.get(&format!("/v1/events/{event}")).await.expect(200);
    assert!(
        seen.text().contains(id(&delivery)),
        "an event is shown with its deliveries: {}",
        seen.text()
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn giving_up_comes_neither_early_nor_never() {
    let scene = Scene::start().await;
    scene.receiver.script("/", |_| Answer::status(500));
    let made = scene
        .subscribe(
            "/",
            json!({ "Retry": { "InitialSeconds": 0.2, "GiveUpAfterSeconds": 1.5 } }),
        )
        .await;
    scene.publish().await;
    let delivery = scene.api.delivery_with(made.guid(), "Dead").await;
    assert_eq!(delivery["Reason"], "gave_up");
    let requests = scene.receiver.requests();
    let (first, last) = (requests.first().unwrap(), requests.last().unwrap());
    assert!(requests.len() >= 2);
    // The clock starts when the event is recorded, a little before the first attempt arrives.
    let lasted = last.at.duration_since(first.at);
    assert!(lasted >= Duration::from_secs(1), "given up after {lasted:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_manual_retry_goes_on_where_it_ended() {
    let scene = Scene::start().await;
    scene.receiver.script("/", |request| {
        Answer::status(if request.repeat <= 2 { 500 } else { 200 })
    });
    let made = scene
        .subscribe("/", merged(quick_retry(), json!({ "Retry": { "MaxAttempts": 2 } })))
        .await;
    scene.publish().await;
    let dead = scene.api.delivery_with(made.guid(), "Dead").await;
    let path = format!("/v1/deliveries/{}/retry", id(&dead));
    let retried = scene.api.post(&path, &json!({})).await.expect(202);
    drop(retried);
    let delivery = scene.api.delivery_with(made.guid(), "Delivered").await;
    assert_eq!(id(&delivery), id(&dead));
    assert_eq!(numbers(&delivery), [1, 2, 3]);
    let requests = scene.receiver.requests();
    assert_eq!(
        requests.iter().map(herald_tests::Request::attempt).collect::<Vec<_>>(),
        [1, 2, 3]
    );
    assert!(requests.iter().all(|request| request.header("webhook-id") == id(&dead)));
    let _conflict = scene.api.post(&path, &json!({})).await.problem(409);
    assert!(scene.api.list("/v1/dead-letters").await.is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_manual_retry_that_fails_again_ends_dead_again() {
    let scene = Scene::start().await;
    scene.receiver.script("/", |_| Answer::status(500));
    let made = scene
        .subscribe("/", merged(quick_retry(), json!({ "Retry": { "MaxAttempts": 1 } })))
        .await;
    scene.publish().await;
    let dead = scene.api.delivery_with(made.guid(), "Dead").await;
    let path = format!("/v1/deliveries/{}/retry", id(&dead));
    let reply = scene.api.request(Method::POST, &path);
    let _retried = herald_tests::Reply::of(reply).await.unwrap().expect(202);
    scene.receiver.wait_for("/", 2).await;
    let again = scene.api.delivery_with(made.guid(), "Dead").await;
    assert_eq!(numbers(&again), [1, 2]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_dead_and_cancelled_deliveries_can_be_retried() {
    let scene = Scene::start().await;
    scene.receiver.script("/", |_| Answer::status(500));
    let made = scene.subscribe("/", json!({})).await;
    scene.publish().await;
    scene.receiver.wait_for("/", 1).await;
    let open = scene.api.delivery_with(made.guid(), "Open").await;
    let path = format!("/v1/deliveries/{}/retry", id(&open));
    let _conflict = scene.api.post(&path, &json!({})).await.problem(409);
    let nobody = format!("/v1/deliveries/{}/retry", herald_tests::samples::guid());
    let _missing = scene.api.post(&nobody, &json!({})).await.problem(404);
}
