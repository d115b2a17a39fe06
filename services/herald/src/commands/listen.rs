//! `herald listen`: a subscriber's endpoint to try things with, which verifies and prints what comes.

mod layout;
mod receiver;
mod terminal;
mod verify;

pub(crate) use receiver::{Received, Receiver};
pub(crate) use terminal::{Terminal, Tone, print_line};
use verify::verify_asymmetric;
pub(crate) use verify::{Wrong, verify};

use anyhow::Context;
use axum::http::StatusCode;
use herald_domain::signing::{PublicKey, SigningKey};
use herald_domain::time::Timestamp;
use serde::Serialize;
use serde_json::value::{RawValue, to_raw_value};
use std::fmt::Write as _;

/// The options of `herald listen`.
#[derive(Debug, clap::Args)]
pub(crate) struct Listen {
    /// The port on 127.0.0.1; 0 takes any that is free
    #[arg(long, default_value_t = 9000)]
    port: u16,
    #[arg(long, help = "The subscription's SecretKey or SigningSecret, to verify signatures with", value_parser = secret)]
    secret: Option<SigningKey>,
    #[arg(
        long,
        value_name = "KEY",
        help = "The subscription's PublicKey, to verify signatures of v1a with; beside --secret both must be right"
    )]
    public_key: Option<PublicKey>,
    /// The HTTP status to answer with
    #[arg(long, value_name = "CODE", default_value_t = 204, value_parser = clap::value_parser!(u16).range(200..=599))]
    status: u16,
    /// Print one JSON line per message
    #[arg(long)]
    json: bool,
}

/// The key of `--secret`.
fn secret(text: &str) -> Result<SigningKey, String> {
    if text.starts_with("whpk_") {
        return Err("is a PublicKey, which verifies signatures of v1a; give it as --public-key".to_owned());
    }
    SigningKey::meant_by(text).map_err(|wrong| wrong.to_string())
}

/// Receives until a signal, or until nobody reads what it prints.
pub(crate) async fn run(options: Listen) -> anyhow::Result<()> {
    let answer = StatusCode::from_u16(options.status).context("--status")?;
    let mut receiver = Receiver::start(options.port, move |_path, _attempt| answer).await?;
    herald_telemetry::logs::say(&format!(
        "listening on http://{} (every path), answering {answer}; Ctrl-C ends it\n\
         Herald sends here when it was started with --egress-allow 127.0.0.1",
        receiver.address()
    ));
    let terminal = Terminal::stdout();
    let mut ending = std::pin::pin!(crate::process::signals::next());
    loop {
        let received = tokio::select! {
            signal = &mut ending => return signal.map(drop),
            received = receiver.next() => received.context("the receiver ended by itself")?,
        };
        let judged = judge(&options, &received);
        let text = if options.json {
            line(&received, judged)?
        } else {
            readable(terminal, &received, judged)
        };
        if !print_line(text)? {
            return Ok(());
        }
    }
}

/// Verifies a message with each key that there is.
fn judge(options: &Listen, received: &Received) -> Judged {
    let Received { headers, body, at, .. } = received;
    let symmetric = options.secret.as_ref().map(|key| verify(headers, body, key, *at));
    let asymmetric = options.public_key.as_ref();
    let asymmetric = asymmetric.map(|key| verify_asymmetric(headers, body, key, *at));
    [symmetric, asymmetric].into_iter().flatten().reduce(Result::and)
}

/// Whether a message is verified; none where there was nothing to verify it with.
type Judged = Option<Result<(), Wrong>>;

fn readable(terminal: Terminal, received: &Received, judged: Judged) -> String {
    let mut text = String::new();
    let webhook = received.header("webhook-type").unwrap_or("message");
    let event = received.header("webhook-event-id").unwrap_or("-");
    let verdict = match judged {
        None => terminal.tint(Tone::Notable, "not verified (no --secret or --public-key)".to_owned()),
        Some(Ok(())) => terminal.tint(Tone::Good, "verified".to_owned()),
        Some(Err(wrong)) => terminal.tint(Tone::Bad, format!("signature WRONG: {wrong}")),
    };
    // Writing to a String cannot fail.
    let _infallible = write!(
        text,
        "{}  {}  attempt {}  event {event}  {verdict}\n{}",
        terminal.tint(Tone::Quiet, clock_time(received.at)),
        terminal.tint(Tone::Strong, webhook),
        received.attempt(),
        body_in_full(&received.body),
    );
    text
}

/// Indented if it is JSON, else as it came.
fn body_in_full(body: &[u8]) -> String {
    layout::indented(body).unwrap_or_else(|| String::from_utf8_lossy(body).into_owned())
}

/// A message, as `--json` prints it.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Line<'a> {
    received_at: Timestamp,
    path: &'a str,
    webhook: Option<&'a str>,
    #[serde(rename = "SubscriptionGUID")]
    subscription_guid: Option<&'a str>,
    delivery_id: Option<&'a str>,
    event_id: Option<&'a str>,
    attempt: u32,
    verified: Option<bool>,
    wrong: Option<String>,
    answer: u16,
    body: Box<RawValue>,
}

fn line(received: &Received, judged: Judged) -> anyhow::Result<String> {
    let body = match layout::on_one_line(&received.body) {
        Some(json) => json,
        None => to_raw_value(&String::from_utf8_lossy(&received.body))?,
    };
    let line = Line {
        received_at: received.at,
        path: &received.path,
        webhook: received.header("webhook-type"),
        subscription_guid: received.header("webhook-guid"),
        delivery_id: received.header("webhook-id"),
        event_id: received.header("webhook-event-id"),
        attempt: received.attempt(),
        verified: judged.map(|judged| judged.is_ok()),
        wrong: judged.and_then(Result::err).map(|wrong| wrong.to_string()),
        answer: received.answer.as_u16(),
        body,
    };
    Ok(serde_json::to_string(&line)?)
}

/// The time of day, UTC, to the millisecond.
pub(crate) fn clock_time(at: Timestamp) -> String {
    let millis = at.as_unix_millis();
    let (seconds, minutes, hours) = (millis / 1000 % 60, millis / 60_000 % 60, millis / 3_600_000 % 24);
    format!("{hours:02}:{minutes:02}:{seconds:02}.{:03}", millis % 1000)
}

#[cfg(test)]
mod tests {
    use super::*;
    use herald_domain::time::{Clock, SystemClock};
    use serde_json::Value;

    #[test]
    fn the_time_of_day_is_as_in_the_timestamp() {
        let at = Timestamp::parse("2026-11-22T05:03:09.042Z").unwrap();
        assert_eq!(clock_time(at), "05:03:09.042");
    }

    #[test]
    fn a_public_key_is_no_secret() {
        let refused = secret("whpk_O2onvM62pC1io6jQKm8Nc2UyFXcd4kOmOsBIoYtZ2ik=").unwrap_err();
        assert!(refused.contains("--public-key"), "{refused}");
        assert!(secret("whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=").is_ok());
        assert!(secret("whsec_?").unwrap_err().contains("base64"));
    }

    #[tokio::test]
    async fn a_message_is_received_verified_and_answered_as_scripted() {
        let mut receiver = Receiver::start(0, |path, attempt| {
            if path == "/twice" && attempt < 2 {
                StatusCode::SERVICE_UNAVAILABLE
            } else {
                StatusCode::OK
            }
        })
        .await
        .unwrap();
        let key = SigningKey::meant_by("geheim").unwrap();
        let now = SystemClock.now();
        let body = r#"{"Name":"2022 Schedule"}"#;
        drop(rustls::crypto::ring::default_provider().install_default());
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        for (attempt, status) in [(1, 503), (2, 200)] {
            let answer = client
                .post(format!("http://{}/twice", receiver.address()))
                .header("webhook-id", "d1")
                .header("webhook-timestamp", now.as_unix_seconds())
                .header("webhook-signature", key.sign("d1", now, body.as_bytes()))
                .header("webhook-attempt", attempt)
                .body(body)
                .send()
                .await
                .unwrap();
            assert_eq!(answer.status(), status);
            let received = receiver.next().await.unwrap();
            assert_eq!(verify(&received.headers, &received.body, &key, received.at), Ok(()));
            let printed: Value = serde_json::from_str(&line(&received, Some(Err(Wrong::Signature))).unwrap()).unwrap();
            assert_eq!(printed["Attempt"], attempt);
            assert_eq!(printed["Verified"], false);
            assert_eq!(printed["Body"]["Name"], "2022 Schedule");
        }
        let answer = client
            .get(format!("http://{}/", receiver.address()))
            .send()
            .await
            .unwrap();
        assert_eq!(answer.status(), StatusCode::METHOD_NOT_ALLOWED);
    }
}
