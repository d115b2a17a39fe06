use super::*;

const EVENT: &str = r#"{"Type":"BusinessObjectUpdated","Objects":{"Company":"6a1f0f5e-55a5-4f0c-9c39-0d5e2e0c1a01"},"Data":{"Name":"Globex Corporation"}}"#;

fn read(text: &str) -> anyhow::Result<Vec<Item>> {
    let mut items = Vec::new();
    read_events(text.as_bytes(), &mut |item| {
        items.push(item);
        true
    })
    .map(|()| items)
}

fn lines(text: &str) -> Vec<u64> {
    read(text).unwrap().iter().map(|item| item.line).collect()
}

fn error(text: &str) -> String {
    read(text).unwrap_err().to_string()
}

#[test]
fn one_event_an_array_and_ndjson_are_told_apart() {
    let pretty = format!("{:#}", serde_json::from_str::<serde_json::Value>(EVENT).unwrap());
    assert_eq!(lines(EVENT), [1]);
    assert_eq!(lines(&format!("\u{feff}{EVENT}\n")), [1]);
    assert_eq!(lines(&format!("\n\n{pretty}\n{EVENT}")), [3, 12]);
    assert_eq!(lines(&format!("{EVENT}\r\n\r\n{EVENT}\n")), [1, 3]);
    assert_eq!(lines(&format!("[{EVENT}]")), [1]);
    assert_eq!(lines(&format!("[\n{EVENT},\n{EVENT}\n  ,{EVENT}]\n")), [2, 3, 4]);
    assert_eq!(
        lines("{}\n7\n\"x\"\n[1]\n"),
        [1, 2, 3, 4],
        "what is no event is left to Herald"
    );
}

#[test]
fn a_file_from_windows_is_read() {
    let text = format!("\u{feff}{EVENT}\r\n{EVENT}\r\n");
    assert_eq!(lines(&text), [1, 2]);
    let mut items = Vec::new();
    let wide: Vec<_> = text.encode_utf16().flat_map(u16::to_le_bytes).collect();
    read_events(&*wide, &mut |item| {
        items.push(item);
        true
    })
    .unwrap();
    assert_eq!(items.iter().map(|item| item.line).collect::<Vec<_>>(), [1, 2]);
}

#[test]
fn depth_is_no_matter() {
    let depth = 100_000;
    let deep = EVENT.replace(
        "\"Name\"",
        &format!("\"Deep\":{}{},\"Name\"", "[".repeat(depth), "]".repeat(depth)),
    );
    assert_eq!(lines(&format!("{deep}\n{deep}")), [1, 2]);
}

#[test]
fn every_event_has_an_id_and_keeps_its_own() {
    let own = EVENT.replacen('{', r#"{"Id":"0193F1A0-7C1E-7D1A-B1F0-3A5C7E9D1B2F","#, 1);
    let items = read(&format!("{own}\n{EVENT}\n{EVENT}")).unwrap();
    assert_eq!(items[0].text, own);
    assert_eq!(items[0].id.unwrap().to_string(), "0193f1a0-7c1e-7d1a-b1f0-3a5c7e9d1b2f");
    assert_ne!(items[1].id, items[2].id);
    for item in items {
        assert_eq!(outline(&item.text).unwrap().id, item.id);
    }
}

#[test]
fn what_cannot_be_read_is_named_with_its_line() {
    assert!(error(" \n").starts_with("there is no event to send"));
    assert!(error("[]").starts_with("there is no event to send"));
    assert!(error(&format!("{EVENT}\n{{\"Type\": nonsense}}\n")).starts_with("line 2: this is not JSON"));
    assert!(error("\n\nId,Type\n").starts_with("line 3: this is not JSON"));
    assert!(error(&format!("[{EVENT},\n{EVENT}")).starts_with("line 2: this is not JSON"));
    assert!(error(&format!("[{EVENT}]\n{EVENT}")).starts_with("line 2: this is not JSON"));
    let large = EVENT.replace("Globex", &"x".repeat(MAX_EVENT_BYTES));
    assert!(error(&format!("{EVENT}\n{large}\n")).starts_with("line 2: the event has more than"));
    let almost = EVENT.replace("Globex", &"x".repeat(MAX_EVENT_BYTES - EVENT.len()));
    assert!(
        error(&almost).starts_with("line 1: the event has more than"),
        "with its Id it is too large"
    );
}

#[tokio::test]
async fn batches_have_at_most_so_many_events_and_bytes() {
    let text = format!("{EVENT}\n").repeat(25);
    let mut input = Input::read(move || io::Cursor::new(text), None).unwrap();
    let mut sizes = Vec::new();
    while let Some(size) = Some(input.batch(10).await.unwrap().len()).filter(|size| *size > 0) {
        sizes.push(size);
    }
    assert_eq!(sizes, [10, 10, 5]);

    let large = EVENT.replace("Globex", &"x".repeat(200 * 1024));
    let text = format!("{large}\n").repeat(25);
    let mut input = Input::read(move || io::Cursor::new(text), None).unwrap();
    let batch = input.batch(100).await.unwrap();
    assert!(batch.iter().map(|item| item.text.len()).sum::<usize>() < MAX_BATCH_BYTES + MAX_EVENT_BYTES);
    assert!(batch.len() < 25);
}

#[tokio::test]
async fn after_a_fault_the_unsent_events_are_known() {
    let text = format!("{EVENT}\n{EVENT}\n{EVENT}\nnonsense");
    let mut input = Input::read(move || io::Cursor::new(text), None).unwrap();
    assert_eq!(input.batch(2).await.unwrap().len(), 2);
    assert!(input.batch(2).await.is_err());
    assert_eq!(input.first_pending().unwrap().line, 3);
}
