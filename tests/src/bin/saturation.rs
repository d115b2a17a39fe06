//! How many events Herald accepts and delivers a second at saturation, on this machine.
//!
//! `cargo run --release -p herald-tests --bin saturation [SECONDS] [IN_FLIGHT] [SUBSCRIPTIONS]`
//!
//! A closed loop: so many requests are in flight at any time, each one event, until the time is over;
//! then all that was accepted is waited for. Generator, Herald and receiver share the machine, so the
//! numbers say little about another one; what counts is their ratio to another version's, measured
//! alternately on the same machine.

#![expect(clippy::print_stdout, reason = "the result")]

use axum::Router;
use axum::extract::State;
use axum::routing::post;
use herald_tests::herald::Herald;
use herald_tests::samples;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tokio::net::TcpListener;

fn argument(position: usize, default: u64) -> u64 {
    std::env::args()
        .nth(position)
        .and_then(|text| text.parse().ok())
        .unwrap_or(default)
}

#[tokio::main]
async fn main() {
    let (seconds, in_flight, subscriptions) = (argument(1, 10), argument(2, 128), argument(3, 1));
    let received = Arc::new(AtomicU64::new(0));
    let receiver = receiver(Arc::clone(&received)).await;
    let herald = Herald::builder().start().await;
    let company = uuid::Uuid::now_v7();
    for _ in 0..subscriptions {
        let body = samples::packets_of(company, &receiver);
        herald.api().subscribe(&body).await;
    }
    let before = herald.cpu_time();
    let began = Instant::now();
    let accepted = publish(&herald, company, Duration::from_secs(seconds), in_flight).await;
    let accepting = began.elapsed().as_secs_f64();
    let expected = accepted * subscriptions;
    while received.load(Ordering::Relaxed) < expected {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let delivering = began.elapsed().as_secs_f64();
    let cpu = herald.cpu_time().saturating_sub(before);
    let repeated = received.load(Ordering::Relaxed) - expected;
    #[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
    let (accepted_rate, delivered_rate, cpu_us) = (
        accepted as f64 / accepting,
        expected as f64 / delivering,
        cpu.as_micros() as f64 / expected as f64,
    );
    println!(
        "accepted {accepted} events, {accepted_rate:.0}/s; delivered {expected}, {delivered_rate:.0}/s; \
         {cpu_us:.0} us of Herald's CPU a delivery; {repeated} repeated"
    );
}

async fn receiver(received: Arc<AtomicU64>) -> String {
    let count = async |State(received): State<Arc<AtomicU64>>, _body: axum::body::Bytes| {
        received.fetch_add(1, Ordering::Relaxed);
    };
    let app = Router::new().route("/", post(count)).with_state(received);
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let url = format!("http://{}/", listener.local_addr().expect("it is bound"));
    tokio::spawn(async move { axum::serve(listener, app).await });
    url
}

async fn publish(herald: &Herald, company: uuid::Uuid, time: Duration, in_flight: u64) -> u64 {
    let (accepted, over) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
    let tasks: Vec<_> = (0..in_flight)
        .map(|_| {
            let (api, accepted, over) = (herald.api(), Arc::clone(&accepted), Arc::clone(&over));
            tokio::spawn(async move {
                // Without an Id, so that each is a new event.
                let event = samples::without(samples::packet_of(company), "/Id");
                while !over.load(Ordering::Relaxed) {
                    api.publish(&event).await;
                    accepted.fetch_add(1, Ordering::Relaxed);
                }
            })
        })
        .collect();
    tokio::time::sleep(time).await;
    over.store(true, Ordering::Relaxed);
    for task in tasks {
        task.await.expect("every publication is accepted");
    }
    accepted.load(Ordering::Relaxed)
}
