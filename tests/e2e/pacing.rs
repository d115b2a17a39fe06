//! No subscriber is sent more than it can take: rates, pauses and the breaker.

use crate::scene::{Scene, id};
use herald_tests::samples::{merged, quick_retry};
use herald_tests::wait::wait_for;
use herald_tests::{Answer, PATIENCE, Subscription};
use serde_json::{Value, json};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rate_limit_is_kept_and_reached_retries_included() {
    let scene = Scene::shared_out().await;
    // Every delivery is attempted twice.
    scene.receiver.script("/", |request| {
        Answer::status(if request.repeat == 1 { 500 } else { 200 })
    });
    let made = scene
        .subscribe("/", merged(quick_retry(), json!({ "RateLimitPerSecond": 5 })))
        .await;
    scene.publish_many(10).await;
    scene.api.deliveries_with(made.guid(), 10, "Delivered").await;
    let requests = scene.receiver.requests_to("/");
    assert_eq!(requests.len(), 20);
    // Six of five a second may begin within a second; two more may be held up on their way here.
    for window in requests.windows(9) {
        let span = window[8].at.duration_since(window[0].at);
        assert!(span >= Duration::from_secs(1), "nine within {span:?}");
    }
    let span = requests[19].at.duration_since(requests[0].at);
    assert!(span >= Duration::from_millis(3500), "20 within {span:?}");
    assert!(span < Duration::from_secs(12), "20 took {span:?}");
}

/// Whoever answers so once is left in peace for two seconds, and not only by the delivery that it was about.
async fn the_lane_pauses_after(answer: Answer) {
    let scene = Scene::shared_out().await;
    let first = AtomicBool::new(true);
    scene.receiver.script("/", move |_| {
        if first.swap(false, Ordering::Relaxed) {
            answer.clone()
        } else {
            Answer::ok()
        }
    });
    let made = scene
        .subscribe(
            "/",
            json!({ "MaxInFlight": 1, "Retry": { "InitialSeconds": 0.05, "Multiplier": 1 } }),
        )
        .await;
    scene.publish_many(5).await;
    scene.api.deliveries_with(made.guid(), 5, "Delivered").await;
    let requests = scene.receiver.requests_to("/");
    let pause = requests[1].at.duration_since(requests[0].at);
    assert!(pause >= Duration::from_millis(1990), "after {pause:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn retry_after_pauses_the_whole_lane() {
    the_lane_pauses_after(Answer::status(429).header("Retry-After", "2")).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_exhausted_rate_limit_pauses_the_whole_lane() {
    the_lane_pauses_after(Answer::ok().header("RateLimit", "\"default\";r=0;t=2")).await;
}

/// A subscriber that fails until it is mended, and what waits behind its open breaker.
struct Broken {
    scene: Scene,
    made: Subscription,
    mended: Arc<AtomicBool>,
    /// The deliveries that came before the breaker opened.
    before: Vec<String>,
}

impl Broken {
    const BEFORE: usize = 30;
    const BEHIND: usize = 60;

    async fn start(settings: Value) -> Self {
        let scene = Scene::shared_out().await;
        let mended = Arc::new(AtomicBool::new(false));
        scene.receiver.script("/", {
            let mended = Arc::clone(&mended);
            move |_| Answer::status(if mended.load(Ordering::Relaxed) { 200 } else { 502 })
        });
        let made = scene.subscribe("/", merged(quick_retry(), settings)).await;
        scene.publish_many(Self::BEFORE).await;
        wait_for("the breaker opens", PATIENCE, async || {
            let opened = scene.herald.metrics().await;
            opened.sum(|name| name == "herald_breaker_openings_total") >= 1.0
        })
        .await;
        let before = scene.api.deliveries_of(made.guid()).await;
        let before: Vec<_> = before.iter().map(|delivery| id(delivery).to_owned()).collect();
        assert_eq!(before.len(), Self::BEFORE);
        scene.publish_many(Self::BEHIND).await;
        Self {
            scene,
            made,
            mended,
            before,
        }
    }

    /// Of what came later none was attempted more than once.
    fn check_behind(&self, deliveries: &[Value], most: u64) {
        for delivery in deliveries
            .iter()
            .filter(|it| !self.before.iter().any(|before| before == id(it)))
        {
            assert!(
                delivery["AttemptCount"].as_u64().is_some_and(|count| count <= most),
                "{delivery:#}"
            );
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_breaker_opens_probes_and_closes_and_everything_is_delivered() {
    let broken = Broken::start(json!({ "MaxInFlight": 4 })).await;
    let Broken { scene, made, .. } = &broken;
    let at_first = scene.receiver.requests_to("/").len();
    // What was in flight may still arrive, then one probe at a time.
    scene.receiver.wait_for("/", at_first + 2).await;
    let all = Broken::BEFORE + Broken::BEHIND;
    let waiting = scene.api.deliveries_with(made.guid(), all, "Open").await;
    broken.check_behind(&waiting, 1);
    assert!(
        scene.receiver.requests_to("/").len() <= at_first + 4 + 6,
        "not only probes"
    );
    let metrics = scene.herald.metrics().await;
    let open = metrics.sum(|name| name == "herald_lanes_by_state{state=\"breaker_open\"}");
    assert!((open - 1.0).abs() < f64::EPSILON, "{open} breakers are open");

    broken.mended.store(true, Ordering::Relaxed);
    let delivered = scene.api.deliveries_with(made.guid(), all, "Delivered").await;
    broken.check_behind(&delivered, 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_waits_behind_an_open_breaker_is_given_up_in_time() {
    let broken = Broken::start(json!({ "MaxInFlight": 4, "Retry": { "GiveUpAfterSeconds": 14 } })).await;
    let Broken { scene, made, .. } = &broken;
    let dead = scene
        .api
        .deliveries_with(made.guid(), Broken::BEFORE + Broken::BEHIND, "Dead")
        .await;
    assert!(dead.iter().all(|delivery| delivery["Reason"] == "gave_up"));
    broken.check_behind(&dead, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_of_the_subscription_ends_the_wait() {
    let broken = Broken::start(json!({ "MaxInFlight": 4 })).await;
    let Broken { scene, made, .. } = &broken;
    let mended = json!({ "SubscriberURL": scene.receiver.url("/mended") });
    let _patched = scene.api.patch(&made.path(), &mended).await.expect(200);
    let all = Broken::BEFORE + Broken::BEHIND;
    let delivered = scene.api.deliveries_with(made.guid(), all, "Delivered").await;
    broken.check_behind(&delivered, 2);
}
