//! Over HTTP, to Herald's own entrance: a batch is one request.

use super::{Answer, Item, fault_line};
use crate::causes;
use anyhow::Context;
use herald_domain::id::EventId;
use reqwest::{Client, Response, StatusCode, Url, header, redirect};
use serde::Deserialize;
use std::error::Error;
use std::time::Duration;

/// Publishes to one Herald.
#[derive(Debug)]
pub(in crate::commands::send) struct Http {
    client: Client,
    url: String,
    authorization: String,
}

impl Http {
    pub(super) fn new(url: &str, key: &str) -> anyhow::Result<Self> {
        let base = Url::parse(url)
            .ok()
            .filter(|base| matches!(base.scheme(), "http" | "https"));
        let base = base.with_context(|| format!("--url {url} must be a URL such as http://127.0.0.1:8080"))?;
        let authorization = format!("Bearer {key}");
        header::HeaderValue::try_from(&authorization).context("--key has characters that no key has")?;
        let mut client = Client::builder()
            .user_agent(concat!("herald-send/", env!("CARGO_PKG_VERSION")))
            .redirect(redirect::Policy::none());
        // A proxy has no way to this machine's own Herald.
        if matches!(base.host_str(), Some("localhost" | "127.0.0.1" | "[::1]")) {
            client = client.no_proxy();
        }
        let client = client.build().context("the HTTP client could not be made")?;
        Ok(Self {
            client,
            url: format!("{}/v1/events", url.trim_end_matches('/')),
            authorization,
        })
    }

    pub(super) async fn attempt(&self, batch: &[Item], timeout: Duration) -> Answer {
        let request = self
            .client
            .post(&self.url)
            .header(header::AUTHORIZATION, &self.authorization)
            .header(header::CONTENT_TYPE, "application/json")
            .timeout(timeout)
            .body(body(batch));
        let response = match request.send().await {
            Ok(response) => response,
            Err(error) if error.is_builder() => return Answer::Refused(cause(&error)),
            Err(error) => {
                return match tls_fault(&error) {
                    Some(why) => Answer::Refused(format!("{}: {why}", self.url)),
                    None => Answer::TryAgain {
                        reason: format!("no answer from {}: {}", self.url, cause(&error)),
                        after: None,
                    },
                };
            }
        };
        let (status, after) = (response.status(), retry_after(&response));
        let text = match response.text().await {
            Ok(text) => text,
            Err(error) => {
                return Answer::TryAgain {
                    reason: format!("the answer broke off: {}", cause(&error)),
                    after: None,
                };
            }
        };
        match status {
            StatusCode::ACCEPTED => accepted(&text, batch),
            StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_MANY_REQUESTS => Answer::TryAgain {
                reason: brief(status, &text),
                after,
            },
            _ if status.is_server_error() => Answer::TryAgain {
                reason: brief(status, &text),
                after,
            },
            _ if status.is_client_error() => Answer::Refused(explain(status, &text, batch)),
            _ => Answer::Refused(format!(
                "{} answered {status}, which Herald never does; is --url right?",
                self.url
            )),
        }
    }
}

/// A single event goes as it is, several as an array.
fn body(batch: &[Item]) -> String {
    if let [one] = batch {
        return one.text.clone();
    }
    let mut body = String::with_capacity(batch.iter().map(|item| item.text.len() + 1).sum::<usize>() + 1);
    for item in batch {
        body.push(if body.is_empty() { '[' } else { ',' });
        body.push_str(&item.text);
    }
    body.push(']');
    body
}

/// `Retry-After` in seconds, which is how Herald gives it.
fn retry_after(response: &Response) -> Option<Duration> {
    let seconds = response
        .headers()
        .get(header::RETRY_AFTER)?
        .to_str()
        .ok()?
        .trim()
        .parse()
        .ok()?;
    Some(Duration::from_secs(seconds))
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Accepted {
    id: Option<EventId>,
    ids: Option<Vec<EventId>>,
}

fn accepted(text: &str, batch: &[Item]) -> Answer {
    let ids = match serde_json::from_str::<Accepted>(text) {
        Ok(Accepted { ids: Some(ids), .. }) => ids,
        Ok(Accepted { id, .. }) => id.into_iter().collect(),
        Err(error) => return Answer::Refused(format!("the answer to accepted events cannot be read: {error}")),
    };
    if ids.len() == batch.len() {
        return Answer::Accepted(ids);
    }
    Answer::Refused(format!(
        "{} events were sent, but the answer has {} Ids",
        batch.len(),
        ids.len()
    ))
}

#[derive(Default, Deserialize)]
struct Problem {
    #[serde(default)]
    detail: String,
    #[serde(default)]
    errors: Vec<Fault>,
}

#[derive(Deserialize)]
struct Fault {
    pointer: String,
    rule: String,
    detail: String,
}

/// The refusal in words, each fault on a line of its own with where the event is in the input.
fn explain(status: StatusCode, text: &str, batch: &[Item]) -> String {
    let mut words = format!("refused: {}", brief(status, text));
    let problem: Problem = serde_json::from_str(text).unwrap_or_default();
    for Fault { pointer, rule, detail } in problem.errors {
        let (item, pointer) = locate(&pointer, batch);
        words.push_str(&fault_line(item, pointer, &rule, &detail));
    }
    if status == StatusCode::UNAUTHORIZED {
        words.push_str("\n  give the key with --key or HERALD_KEY");
    }
    words
}

fn brief(status: StatusCode, text: &str) -> String {
    match serde_json::from_str::<Problem>(text) {
        Ok(problem) if !problem.detail.is_empty() => format!("{status}, {}", problem.detail),
        _ => status.to_string(),
    }
}

/// The event that a pointer leads to, and the pointer within it. In batches it begins with the index.
fn locate<'a, 'b>(pointer: &'a str, batch: &'b [Item]) -> (Option<&'b Item>, &'a str) {
    if let [one] = batch {
        return (Some(one), pointer);
    }
    let inner = pointer.strip_prefix('/').unwrap_or(pointer);
    let (index, length) = match inner.split_once('/') {
        Some((index, _)) => (index, index.len()),
        None => (inner, inner.len()),
    };
    match index.parse::<usize>().ok().and_then(|index| batch.get(index)) {
        Some(item) => (Some(item), inner.get(length..).unwrap_or_default()),
        None => (None, pointer),
    }
}

/// What of TLS stays as it is, however often it is tried.
fn tls_fault(error: &reqwest::Error) -> Option<String> {
    match tls_error(error)? {
        rustls::Error::InvalidMessage(_) => {
            Some("what answers there does not speak TLS; a Herald listens on http://, unless something in front of it has a certificate".to_owned())
        }
        rustls::Error::InvalidCertificate(why) => {
            Some(format!("its certificate is not trusted here ({why}); the system's authorities are the trusted ones"))
        }
        _ => None,
    }
}

fn tls_error(error: &reqwest::Error) -> Option<&rustls::Error> {
    let mut next: Option<&(dyn Error + 'static)> = Some(error);
    while let Some(error) = next {
        if let Some(tls) = error.downcast_ref() {
            return Some(tls);
        }
        // What an I/O error holds is not its source, but itself.
        let inner = error.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
        next = match inner {
            Some(inner) => Some(inner),
            None => error.source(),
        };
    }
    None
}

/// The innermost cause, which says most: the outer ones only name the URL.
fn cause(error: &reqwest::Error) -> String {
    if error.is_timeout() {
        return "it took too long".to_owned();
    }
    causes::innermost(error)
}

#[cfg(test)]
mod tests;
