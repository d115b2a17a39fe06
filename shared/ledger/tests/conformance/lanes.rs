//! What the lanes read: quickly, however much else is read, and in pieces.

use crate::rig::{Database, Rig};
use sea_orm::TransactionTrait;
use std::time::Duration;
use tokio::time::timeout;

async fn the_registry_is_compared_though_every_other_connection_is_in_use(database: Database) {
    let rig = Rig::new(database).await;
    let read = rig.ledger.store().read();
    let mut in_use = Vec::new();
    while let Ok(transaction) = timeout(Duration::from_millis(500), read.begin()).await {
        in_use.push(transaction.unwrap());
    }
    assert!(in_use.len() > 1);
    let version = timeout(Duration::from_secs(5), rig.ledger.registry_version()).await;
    let version = version.expect("it does not wait for them").unwrap();
    let mut heard = version;
    let changes = rig.ledger.changes_since(-1, |changes| heard = changes.version);
    timeout(Duration::from_secs(5), changes)
        .await
        .expect("nor does a load")
        .unwrap();
    assert_eq!(heard, version);
}

on_both!(the_registry_is_compared_though_every_other_connection_is_in_use);
