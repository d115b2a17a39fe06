//! What an answer says about when the next request may come: `Retry-After`, and the rate-limit fields in the
//! dialects that are in use.
//!
//! - `RateLimit: "policy";r=0;t=30`, a list of items (drafts 8 and later of the IETF);
//! - `RateLimit: limit=10, remaining=0, reset=30`, a dictionary (draft 7);
//! - `RateLimit-Remaining: 0` with `RateLimit-Reset: 30` (drafts up to 6);
//! - `X-RateLimit-Remaining: 0` or `X-Rate-Limit-Remaining: 0` with a `-Reset-After` in seconds, or a `-Reset`
//!   that is seconds for some services and an epoch for others.
//!
//! What cannot be read, and what cannot be meant, is passed over: see [`wait`].

use herald_domain::time::Timestamp;
use http::header::{DATE, RETRY_AFTER};
use http::{HeaderMap, StatusCode};
use std::time::{Duration, UNIX_EPOCH};

/// The longest wait that a number of seconds or a date is taken for.
const LONGEST: Duration = Duration::from_hours(31 * 24);

/// How long the receiver wants to wait for the next request: by `Retry-After`, unless it served this one, else
/// while its rate limit is exhausted.
pub(crate) fn pause(status: StatusCode, headers: &HeaderMap, now: Timestamp) -> Option<Duration> {
    let retry_after = (!status.is_success()).then(|| retry_after(headers, now)).flatten();
    retry_after.or_else(|| exhausted_for(headers, now))
}

/// `Retry-After` in seconds or as a date (RFC 9110, 10.2.3). A date is compared with the receiver's own, where
/// its answer has one.
fn retry_after(headers: &HeaderMap, now: Timestamp) -> Option<Duration> {
    let value = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    if let Some(number) = number(value) {
        return wait(number, now);
    }
    let date = |value: &str| {
        let since_epoch = httpdate::parse_http_date(value).ok()?.duration_since(UNIX_EPOCH).ok()?;
        Some(Timestamp::from_micros(i64::try_from(since_epoch.as_micros()).ok()?))
    };
    let answered_at = headers.get(DATE).and_then(|value| date(value.to_str().ok()?.trim()));
    let wait = date(value)?.since(answered_at.unwrap_or(now));
    (wait <= LONGEST).then_some(wait)
}

/// For how long nothing more may be sent, if nothing remains: the longest of all policies.
fn exhausted_for(headers: &HeaderMap, now: Timestamp) -> Option<Duration> {
    let field = |name: &str| number(headers.get(name)?.to_str().ok()?);
    let by_fields = ["ratelimit", "x-ratelimit", "x-rate-limit"]
        .into_iter()
        .filter_map(|prefix| {
            let reset = || field(&format!("{prefix}-reset-after")).or_else(|| field(&format!("{prefix}-reset")));
            is_nothing(field(&format!("{prefix}-remaining"))?).then(reset)?
        });
    let members: Vec<Member<'_>> = headers
        .get_all("ratelimit")
        .into_iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(members)
        .collect();
    let by_items = members.iter().filter_map(|member| {
        let parameter = |name| {
            member
                .parameters
                .iter()
                .find(|(key, _)| *key == name)?
                .1
                .and_then(number)
        };
        is_nothing(parameter("r")?).then(|| parameter("t"))?
    });
    let entry = |name| {
        members
            .iter()
            .rfind(|member| member.key == name)?
            .value
            .and_then(number)
    };
    let by_dictionary = entry("remaining")
        .filter(|remaining| is_nothing(*remaining))
        .and_then(|_| entry("reset"));
    by_fields
        .chain(by_items)
        .chain(by_dictionary)
        .filter_map(|number| wait(number, now))
        .max()
}

fn is_nothing(remaining: f64) -> bool {
    remaining < 1.0
}

/// A number of digits with or without a fraction; no sign, no exponent.
fn number(text: &str) -> Option<f64> {
    let text = text.trim();
    let digits = text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
    digits.then(|| text.parse().ok()).flatten()
}

/// The wait that a number means. Up to [`LONGEST`] it is seconds. A larger one is an epoch, in seconds or
/// milliseconds, if it lies between yesterday and [`LONGEST`] from now; anything else is passed over.
fn wait(number: f64, now: Timestamp) -> Option<Duration> {
    let seconds = |seconds: f64| Duration::try_from_secs_f64(seconds.ceil()).ok();
    if let Some(wait) = seconds(number).filter(|wait| *wait <= LONGEST) {
        return Some(wait);
    }
    [number, number / 1000.0].into_iter().find_map(|epoch| {
        let at = Timestamp::from_micros(i64::try_from(seconds(epoch)?.as_micros()).ok()?);
        let is_meant = at.since(now) <= LONGEST && now.since(at) <= Duration::from_hours(24);
        is_meant.then(|| at.since(now))
    })
}

/// A member of a list or a dictionary (RFC 9651, 3.1 and 3.2), as far as it matters here.
#[derive(Debug, Default)]
struct Member<'a> {
    /// The key of a dictionary's member, or the item of a list.
    key: &'a str,
    value: Option<&'a str>,
    parameters: Vec<(&'a str, Option<&'a str>)>,
}

fn members(field: &str) -> impl Iterator<Item = Member<'_>> {
    split(field, ',').filter_map(|member| {
        let mut parts = split(member, ';').map(|part| match part.split_once('=') {
            Some((key, value)) if !part.starts_with('"') => (key.trim(), Some(value.trim())),
            _ => (part, None),
        });
        let (key, value) = parts.next()?;
        Some(Member {
            key,
            value,
            parameters: parts.collect(),
        })
    })
}

/// Splits at a character that is not within a quoted string (RFC 9651, 3.3.3).
fn split(text: &str, at: char) -> impl Iterator<Item = &str> {
    let (mut quoted, mut escaped) = (false, false);
    text.split(move |char| {
        let ends = char == at && !quoted;
        match char {
            _ if escaped => escaped = false,
            '\\' if quoted => escaped = true,
            '"' => quoted = !quoted,
            _ => {}
        }
        ends
    })
    .map(str::trim)
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::{HeaderName, HeaderValue};
    use proptest::prelude::*;

    type Fields<'a> = &'a [(&'a str, &'a str)];

    fn now() -> Timestamp {
        Timestamp::from_micros(1_763_800_000_000_000)
    }

    fn headers(fields: Fields<'_>) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            let name = name.parse::<HeaderName>().unwrap();
            headers.append(name, HeaderValue::from_str(value).unwrap());
        }
        headers
    }

    fn assert_pauses(cases: &[(Fields<'_>, Option<u64>)]) {
        for (fields, seconds) in cases {
            let pause = pause(StatusCode::FORBIDDEN, &headers(fields), now());
            assert_eq!(pause, seconds.map(Duration::from_secs), "{fields:?}");
        }
    }

    #[test]
    fn only_an_exhausted_limit_asks_for_a_pause() {
        assert_pauses(&[
            (&[], None),
            (&[("RateLimit-Remaining", "0"), ("RateLimit-Reset", "7")], Some(7)),
            (&[("RateLimit-Remaining", "0"), ("RateLimit-Reset", "4.0")], Some(4)),
            (&[("RateLimit-Remaining", "1"), ("RateLimit-Reset", "7")], None),
            (&[("RateLimit-Remaining", "0")], None),
            (&[("RateLimit", "\"default\";r=0;t=30")], Some(30)),
            (&[("RateLimit", "\"default\";r=50;t=30")], None),
            (&[("RateLimit", "\"hour\";r=50;t=30, \"day\" ; t=9 ; r=0")], Some(9)),
            (
                &[("RateLimit", "\"a\";r=0;t=1"), ("RateLimit", "\"b\";r=0;t=2")],
                Some(2),
            ),
            (
                &[
                    ("RateLimit", "nonsense;r=;t=x"),
                    ("RateLimit-Remaining", "-"),
                    ("RateLimit-Reset", "7"),
                ],
                None,
            ),
        ]);
    }

    #[test]
    fn what_stands_in_quotes_is_no_parameter() {
        assert_pauses(&[
            (&[("RateLimit", "\"a;r=0;t=9, b\";r=5;t=1")], None),
            (&[("RateLimit", "\"a\\\";r=0;t=9, b\";r=5;t=1")], None),
            (&[("RateLimit", "\"a=0;r=5;t=1\";r=0;t=3")], Some(3)),
        ]);
    }

    #[test]
    fn a_dictionary_is_read_as_a_list_is() {
        assert_pauses(&[
            (&[("RateLimit", "limit=100, remaining=0, reset=50")], Some(50)),
            (&[("RateLimit", "limit=100,remaining=1,reset=50")], None),
            (
                &[
                    ("RateLimit", "limit=100"),
                    ("RateLimit", "remaining=0"),
                    ("RateLimit", "reset=5"),
                ],
                Some(5),
            ),
        ]);
    }

    #[test]
    fn fields_with_an_x_mean_seconds_or_an_epoch() {
        let pauses = |reset: &str, seconds| {
            for prefix in ["X-RateLimit", "x-rate-limit", "RateLimit"] {
                let (remaining, field) = (format!("{prefix}-Remaining"), format!("{prefix}-Reset"));
                assert_pauses(&[(&[(&remaining, "0"), (&field, reset)], seconds)]);
            }
        };
        pauses("30", Some(30));
        pauses("1763800030", Some(30));
        pauses("1763800030000", Some(30));
        pauses("1763799990", Some(0));
        // Of another year, or no time at all.
        pauses("1863800030", None);
        pauses("99999999999999999999999999", None);
        let both: Fields<'_> = &[
            ("X-RateLimit-Remaining", "0"),
            ("X-RateLimit-Reset", "1763800030.7"),
            ("X-RateLimit-Reset-After", "1.2"),
        ];
        assert_pauses(&[(both, Some(2))]);
    }

    #[test]
    fn retry_after_is_seconds_a_date_or_an_epoch() {
        let after = |value, seconds| assert_pauses(&[(&[("Retry-After", value)], seconds)]);
        after("5", Some(5));
        after(" 1.5 ", Some(2));
        after("-5", None);
        after("1763800005", Some(5));
        after("1000000000000000000", None);
        after("Sat, 22 Nov 2025 08:27:00 GMT", Some(20));
        after("Fri, 31 Dec 9999 23:59:59 GMT", None);
        after("soon", None);
        let by_its_own_clock: Fields<'_> = &[
            ("Retry-After", "Sat, 22 Nov 2025 09:00:05 GMT"),
            ("Date", "Sat, 22 Nov 2025 09:00:00 GMT"),
        ];
        assert_pauses(&[(by_its_own_clock, Some(5))]);
        assert_eq!(pause(StatusCode::ACCEPTED, &headers(by_its_own_clock), now()), None);
    }

    proptest! {
        #[test]
        fn whatever_is_said_is_a_bounded_wait_or_none(
            name in "(retry-after|ratelimit|ratelimit-reset|x-ratelimit-reset)", value in "[ -~]{0,40}|[0-9]{1,25}",
        ) {
            let fields = [(name.as_str(), value.as_str()), ("x-ratelimit-remaining", "0"), ("ratelimit-remaining", "0")];
            let pause = pause(StatusCode::OK, &headers(&fields), now());
            prop_assert!(pause.is_none_or(|pause| pause <= LONGEST), "{:?}", pause);
        }
    }
}
