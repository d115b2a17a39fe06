//! Names are looked up at name servers that lie, change their minds or say nothing.

use crate::scene::{Scene, attempts, one_attempt};
use herald_tests::samples::{guid, merged, packet_of, packets_of, quick_retry};
use herald_tests::{Herald, NameAnswer, NameServer};
use serde_json::json;
use std::io::ErrorKind;
use std::net::{Ipv4Addr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

const ALLOWED: Ipv4Addr = Ipv4Addr::LOCALHOST;
const FORBIDDEN: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);

/// A scene in which one loopback address is allowed, and names are looked up at that server.
async fn scene(dns: &NameServer) -> Scene {
    let builder = Herald::builder()
        .public_only()
        .arg("--egress-allow")
        .arg(ALLOWED.to_string())
        .arg("--egress-dns")
        .arg(dns.address().to_string());
    Scene::with(builder).await
}

/// What listens at the forbidden address, on the receiver's port, for requests that should not come.
struct Trap(TcpListener);

impl Trap {
    fn beside(scene: &Scene) -> Self {
        let listener = TcpListener::bind((FORBIDDEN, scene.receiver.port())).expect("the port is free there");
        listener.set_nonblocking(true).expect("a listener need not block");
        Self(listener)
    }

    fn assert_untouched(&self) {
        let error = self.0.accept().expect_err("somebody connected");
        assert_eq!(error.kind(), ErrorKind::WouldBlock, "{error}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_name_whose_answer_changes_is_judged_at_every_connect() {
    let dns = NameServer::start().await;
    let turned = Arc::new(AtomicBool::new(false));
    let turn = Arc::clone(&turned);
    dns.script("turning.test", move |_| {
        let turned = turned.load(Ordering::SeqCst);
        NameAnswer::Addresses(vec![if turned { FORBIDDEN } else { ALLOWED }])
    });
    let scene = scene(&dns).await;
    let trap = Trap::beside(&scene);
    // The next message has to connect anew.
    let closing = |_: &_| herald_tests::Answer::ok().header("connection", "close");
    scene.receiver.script("/", closing);
    let url = format!("http://turning.test:{}/", scene.receiver.port());
    let made = scene
        .api
        .subscribe(&merged(packets_of(scene.company, &url), quick_retry()))
        .await;
    scene.publish().await;
    scene.receiver.wait_for("/", 1).await;
    scene.api.delivery_with(made.guid(), "Delivered").await;
    // Made while the name still leads where it may: later it would be refused.
    let company = guid();
    let made = scene
        .api
        .subscribe(&merged(packets_of(company, &url), quick_retry()))
        .await;
    turn.store(true, Ordering::SeqCst);
    scene.api.publish(&packet_of(company)).await;
    let delivery = scene.api.delivery_with(made.guid(), "Dead").await;
    assert_eq!(delivery["LastError"], "address_refused", "{delivery:#}");
    let [attempt] = attempts(&delivery) else {
        panic!("what can never succeed is not repeated: {delivery:#}")
    };
    let detail = attempt["Detail"].as_str().unwrap_or_default();
    assert!(detail.contains("--egress-allow"), "{attempt}");
    assert_eq!(scene.receiver.connections(), 1);
    trap.assert_untouched();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_several_addresses_only_those_that_are_allowed_are_tried() {
    let dns = NameServer::start().await;
    dns.script("both.test", |_| NameAnswer::Addresses(vec![FORBIDDEN, ALLOWED]));
    let scene = scene(&dns).await;
    let trap = Trap::beside(&scene);
    let url = format!("http://both.test:{}/", scene.receiver.port());
    scene.api.subscribe(&packets_of(scene.company, &url)).await;
    scene.publish().await;
    scene.receiver.wait_for("/", 1).await;
    trap.assert_untouched();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_name_that_is_not_there_is_dns_and_is_found_once_it_is() {
    let dns = NameServer::start().await;
    let there = Arc::new(AtomicBool::new(false));
    let appear = Arc::clone(&there);
    dns.script("new.test", move |_| {
        if there.load(Ordering::SeqCst) {
            NameAnswer::Addresses(vec![ALLOWED])
        } else {
            NameAnswer::NoSuchName
        }
    });
    let scene = scene(&dns).await;
    let url = format!("http://new.test:{}/", scene.receiver.port());
    let made = scene
        .api
        .subscribe(&merged(packets_of(scene.company, &url), quick_retry()))
        .await;
    // When it was made it was looked up, too.
    let asked = dns.asked("new.test");
    scene.publish().await;
    herald_tests::wait::wait_for("a failed attempt", herald_tests::PATIENCE, async || {
        dns.asked("new.test") > asked
    })
    .await;
    appear.store(true, Ordering::SeqCst);
    let delivery = scene.api.delivery_with(made.guid(), "Delivered").await;
    assert_eq!(attempts(&delivery)[0]["Error"], "dns", "{delivery:#}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_family_of_addresses_that_nobody_answers_for_delays_little() {
    let dns = NameServer::start().await;
    dns.script("half.test", |_| NameAnswer::OnlyIpv4(vec![ALLOWED]));
    let scene = scene(&dns).await;
    let url = format!("http://half.test:{}/", scene.receiver.port());
    let made = scene.api.subscribe(&packets_of(scene.company, &url)).await;
    scene.publish().await;
    let delivery = scene.api.delivery_with(made.guid(), "Delivered").await;
    let seconds = attempts(&delivery)[0]["DurationSeconds"].as_f64().expect("a number");
    // Less than any question waits for its answer.
    assert!(seconds < 1.5, "{delivery:#}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn names_that_nobody_answers_for_are_dns_and_delay_nobody() {
    const SILENT: usize = 64;
    let dns = NameServer::start().await;
    dns.script("healthy.test", |_| NameAnswer::Addresses(vec![ALLOWED]));
    let scene = scene(&dns).await;
    let names: Vec<String> = (0..SILENT).map(|number| format!("silent-{number}.test")).collect();
    // Each waits for a moment whether its name resolves, so all of them at once.
    let silent = futures_util::future::join_all(names.iter().map(async |name| {
        dns.script(name, |_| NameAnswer::Silence);
        let subscription = merged(packets_of(scene.company, &format!("http://{name}/")), one_attempt());
        scene.api.subscribe(&subscription).await
    }))
    .await;
    let asked: Vec<_> = names.iter().map(|name| dns.asked(name)).collect();
    scene.publish().await;
    herald_tests::wait::wait_for("all silent names to be asked for", herald_tests::PATIENCE, async || {
        names.iter().zip(&asked).all(|(name, before)| dns.asked(name) > *before)
    })
    .await;
    let company = guid();
    let url = format!("http://healthy.test:{}/healthy", scene.receiver.port());
    let healthy = scene.api.subscribe(&packets_of(company, &url)).await;
    scene.api.publish(&packet_of(company)).await;
    let delivery = scene.api.delivery_with(healthy.guid(), "Delivered").await;
    let seconds = attempts(&delivery)[0]["DurationSeconds"].as_f64().expect("a number");
    // Less than any of the others waits for its first question.
    assert!(seconds < 2.0, "{delivery:#}");
    for made in silent {
        let delivery = scene.api.delivery_with(made.guid(), "Dead").await;
        assert_eq!(delivery["LastError"], json!("dns"), "{delivery:#}");
    }
}
