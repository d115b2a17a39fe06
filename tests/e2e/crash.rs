//! kill -9 of all of Herald at random moments under load, in a loop.

use crate::load::{Load, a_while, kills};
use crate::scene::Scene;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kill_9_under_load_loses_nothing_that_was_accepted() {
    let mut scene = Scene::start().await;
    let load = Load::start(&scene).await;
    for _ in 0..kills() {
        a_while().await;
        scene.herald.kill().await;
        drop(scene.herald.audit().exact());
        scene.herald.restart().await;
    }
    load.finish(&scene, &format!("kill -9: {} kills", kills())).await;
}
