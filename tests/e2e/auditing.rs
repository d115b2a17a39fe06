//! `herald audit` beside a running Herald.

use crate::scene::Scene;
use herald_tests::PATIENCE;
use serde_json::json;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_audit_counts_and_names_what_is_missing() {
    let scene = Scene::start().await;
    scene.subscribe("/", json!({})).await;
    let known = scene.publish().await;
    scene.herald.settled(PATIENCE).await;
    let unknown = herald_tests::samples::guid().to_string();
    let audit = scene.herald.audit_ids([known.as_str(), unknown.as_str()]);
    assert_eq!(audit.account["Missing"], json!([unknown]), "{}", audit.output);
    assert_eq!(audit.exit_code, Some(1), "{}", audit.output);
    let upper = known.to_uppercase();
    let audit = scene.herald.audit_ids([upper.as_str()]).exact();
    assert_eq!(audit.account["Missing"], json!([]));
    for status in ["Open", "Held", "Delivered", "Dead", "Cancelled", "Refused"] {
        assert_eq!(audit.deliveries(status), u64::from(status == "Delivered"), "{status}");
    }
    for name in ["Events", "Matched"] {
        assert_eq!(audit.count(name), 1, "{name}");
    }
    assert_eq!((audit.count("InTransit"), audit.count("Rejected")), (0, 0));
}
