//! What a subscriber says about its own rate limit, in the header fields of an IETF draft: `RateLimit:
//! "policy";r=0;t=30`, and in its older form `RateLimit-Remaining: 0` with `RateLimit-Reset: 30`.

use http::HeaderMap;
use std::time::Duration;

/// For how long nothing more may be sent, if nothing remains: the longest of all policies. What cannot be
/// read is passed over.
pub(crate) fn exhausted_for(headers: &HeaderMap) -> Option<Duration> {
    let number = |name| headers.get(name)?.to_str().ok()?.trim().parse::<u64>().ok();
    let older = number("ratelimit-remaining")
        .filter(|remaining| *remaining == 0)
        .and_then(|_nothing| number("ratelimit-reset"));
    let policies = headers.get_all("ratelimit").into_iter();
    let policies = policies
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','));
    policies
        .filter_map(exhausted_policy)
        .chain(older)
        .max()
        .map(Duration::from_secs)
}

/// The `t` of one policy whose `r` is 0.
fn exhausted_policy(item: &str) -> Option<u64> {
    let parameter = |name: &str| {
        let mut parameters = item
            .split(';')
            .skip(1)
            .filter_map(|parameter| parameter.trim().split_once('='));
        parameters.find(|(key, _)| *key == name)?.1.parse::<u64>().ok()
    };
    parameter("r")
        .filter(|remaining| *remaining == 0)
        .and_then(|_nothing| parameter("t"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::{HeaderName, HeaderValue};

    type Fields = &'static [(&'static str, &'static str)];

    #[test]
    fn only_an_exhausted_limit_asks_for_a_pause() {
        let cases: [(Fields, Option<u64>); 9] = [
            (&[], None),
            (&[("RateLimit-Remaining", "0"), ("RateLimit-Reset", "7")], Some(7)),
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
        ];
        for (headers, seconds) in cases {
            let mut map = HeaderMap::new();
            for (name, value) in headers {
                map.append(
                    name.parse::<HeaderName>().unwrap(),
                    HeaderValue::from_str(value).unwrap(),
                );
            }
            assert_eq!(exhausted_for(&map), seconds.map(Duration::from_secs), "{headers:?}");
        }
    }
}
