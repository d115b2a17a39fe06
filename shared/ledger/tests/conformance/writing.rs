//! Group commit: each write whole or not at all, whatever becomes of those beside it.

use crate::rig::{Database, Rig, event};
use herald_ledger::Error;
use herald_ledger::sql::{all, execute, get};
use std::sync::Arc;
use uuid::Uuid;

async fn logged(rig: &Rig) -> Vec<String> {
    let rows = all(
        rig.ledger.store().read(),
        "SELECT action FROM audit_log ORDER BY action",
        [],
    )
    .await
    .unwrap();
    rows.iter().map(|row| get(row, "action").unwrap()).collect()
}

async fn a_write_that_fails_takes_nothing_else_with_it(database: Database) {
    let rig = Rig::new(database).await;
    let write = |name: &'static str, fails: bool| {
        rig.ledger.store().write(move |txn, now| {
            Box::pin(async move {
                let values = [now.as_micros().into(), name.into()];
                execute(
                    txn,
                    "INSERT INTO audit_log (at, action, subject) VALUES ($1, $2, '')",
                    values,
                )
                .await?;
                if fails {
                    execute(txn, "INSERT INTO events (uid) VALUES (NULL)", []).await?;
                }
                Ok::<_, Error>(())
            })
        })
    };
    let (a, b, c) = tokio::join!(write("a", false), write("b", true), write("c", false));
    assert!(a.is_ok() && b.is_err() && c.is_ok());
    assert_eq!(logged(&rig).await, ["a", "c"]);
}

async fn what_was_answered_is_there_after_a_crash(database: Database) {
    let mut rig = Rig::new(database).await;
    for _ in 0..20 {
        let new = event(Uuid::now_v7(), "a", &[]);
        let id = new.record.id;
        rig.record(vec![new]).await;
        rig.restart().await;
        assert_eq!(rig.ledger.events(id).await.unwrap().len(), 1);
    }
}

/// `Data` is a text to the ledger, which looks at nothing in it: neither at half a surrogate pair or U+0000, which no text
/// of PostgreSQL's can hold once they are decoded, nor at how deep it is.
async fn data_is_kept_to_the_byte_whatever_json_it_is(database: Database) {
    let rig = Rig::new(database).await;
    let subscription = rig.subscribe(1).await;
    let deep = format!("{}{}", "[".repeat(5000), "]".repeat(5000));
    let data = format!(r#"{{ "A":"\ud83d", "\udc00":"\u0000", "a" : 1.50, "Deep":{deep} }}"#);
    let mut new = event(Uuid::now_v7(), "a", &[subscription]);
    Arc::make_mut(&mut new.record).data.clone_from(&data);
    let id = new.record.id;
    rig.record(vec![new]).await;
    assert_eq!(rig.ledger.events(id).await.unwrap()[0].data, data);
    assert_eq!(rig.open(subscription, 1).await[0].1.data, data);
}

async fn the_schema_refuses_what_cannot_be(database: Database) {
    let rig = Rig::new(database).await;
    let zero = match rig.database() {
        Database::Sqlite => "x'00'".to_owned(),
        // Of today, for which there is a partition.
        Database::Postgres => format!("'{}'", Uuid::now_v7()),
    };
    for sql in [
        "INSERT INTO deliveries_closed (id, event, subscription, webhook, status, reason, attempts, created_at, closed_at) VALUES (ZERO, ZERO, ZERO, 1, 2, NULL, 0, 0, 0)",
        "INSERT INTO deliveries_closed (id, event, subscription, webhook, status, reason, attempts, created_at, closed_at, last_status_code) VALUES (ZERO, ZERO, ZERO, 1, 1, NULL, 1, 0, 0, 500)",
        "INSERT INTO deliveries_open (id, event, subscription, shard, webhook, attempts, due_at, created_at, opened_at) VALUES (ZERO, ZERO, ZERO, 256, 1, 0, 0, 0, 0)",
        "UPDATE registry_version SET one = 2",
    ] {
        let error = rig.execute(sql.replace("ZERO", &zero)).await.unwrap_err();
        assert!(
            format!("{error:?}").to_lowercase().contains("check"),
            "{sql}: {error:?}"
        );
    }
}

/// A full disk makes SQLite end the whole transaction by itself, savepoints and all.
#[tokio::test]
async fn a_full_disk_refuses_the_group_and_nothing_is_answered_that_is_not_there() {
    let rig = Rig::new(Database::Sqlite).await;
    let pages = "SELECT page_count AS n FROM pragma_page_count()";
    let fill = |subject: String| {
        rig.ledger.store().write(move |txn, _now| {
            Box::pin(async move {
                let insert = "INSERT INTO audit_log (at, action, subject) VALUES (0, 'fill', $1)";
                execute(txn, insert, [subject.into()]).await
            })
        })
    };
    rig.ledger
        .store()
        .write(move |txn, _now| {
            Box::pin(async move {
                let rows = all(txn, pages, []).await?;
                let n: i64 = get(&rows[0], "n")?;
                execute(txn, &format!("PRAGMA max_page_count = {}", n + 4), []).await
            })
        })
        .await
        .unwrap();
    let large = || fill("x".repeat(100_000));
    let (a, b, c, d) = tokio::join!(fill("small".to_owned()), large(), fill("small".to_owned()), large());
    let answered = [&a, &b, &c, &d].iter().filter(|write| write.is_ok()).count();
    assert!(b.is_err() && d.is_err(), "there was no room for them");
    assert_eq!(
        logged(&rig).await.len(),
        answered,
        "what was answered is there, and nothing else"
    );
    // The new connection has no limit: as after somebody made room.
    large().await.unwrap();
    assert_eq!(logged(&rig).await.len(), answered + 1);
    rig.assert_exact().await;
}

on_both!(
    data_is_kept_to_the_byte_whatever_json_it_is,
    a_write_that_fails_takes_nothing_else_with_it,
    what_was_answered_is_there_after_a_crash,
    the_schema_refuses_what_cannot_be,
);
