//! Leaves out of a text what lets somebody in: in a URL the user and the password before the host.
//!
//! What receivers say is kept with an attempt and shown, and some say where they send a request on to. A URL is read
//! here as the readers of URLs do that are used most (<https://url.spec.whatwg.org>): `\` is `/`, and after `http:` there
//! may be any number of these. Where it is doubtful what belongs to a password, more is left out.

use url::{Position, Url};

/// A base that no receiver names: what stands under it was relative.
const BASE: &str = "https://relative.invalid/";

/// What is told of a `Location` that is no URL and may have a password in it.
const NO_URL: &str = "(no URL)";

/// A URL, or a reference to one from another, without what is often a token: the query, the fragment, user and
/// password.
pub(crate) fn of_location(location: &str) -> String {
    let location = location.trim();
    if let Ok(url) = Url::parse(location) {
        return in_text(&bare(&url), false);
    }
    let Ok(url) = Url::parse(BASE).and_then(|base| base.join(location)) else {
        return if location.contains('@') {
            NO_URL.to_owned()
        } else {
            until_query(location)
        };
    };
    if url.as_str().starts_with(BASE) {
        return in_text(&until_query(location), false);
    }
    // It begins with the host.
    let url = bare(&url);
    in_text(url.strip_prefix("https:").unwrap_or(&url), false)
}

fn bare(url: &Url) -> String {
    let has_userinfo = !url.username().is_empty() || url.password().is_some();
    if has_userinfo && url.path().contains('@') {
        // The password may go on there, with a slash in it.
        return NO_URL.to_owned();
    }
    if url.has_authority() {
        let (scheme, rest) = (
            &url[..Position::BeforeUsername],
            &url[Position::BeforeHost..Position::AfterPath],
        );
        return format!("{scheme}{rest}");
    }
    // Such as mailto: and jdbc:, of which nobody knows what their text means.
    let path = if url.as_str().contains('@') { "" } else { url.path() };
    format!("{}:{path}", url.scheme())
}

fn until_query(location: &str) -> String {
    location.chars().take_while(|char| !matches!(char, '?' | '#')).collect()
}

/// A text without what stands before the host in each URL in it. Where the text `is_cut`, its end may be the beginning
/// of such a thing.
pub(crate) fn in_text(text: &str, is_cut: bool) -> String {
    let mut kept = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(start) = authority(rest) {
        let (before, from) = rest.split_at(start);
        kept.push_str(before);
        let (whole, after) = from.split_at(from.find(char::is_whitespace).unwrap_or(from.len()));
        rest = from.split_at(userinfo(whole, is_cut && after.is_empty())).1;
    }
    kept.push_str(rest);
    kept
}

const fn is_slash(char: char) -> bool {
    matches!(char, '/' | '\\')
}

/// Where in a text the host of a URL begins, or what stands before it.
fn authority(text: &str) -> Option<usize> {
    let mut slashes = 0;
    for (at, char) in text.char_indices() {
        if is_slash(char) {
            slashes += 1;
        } else if slashes > 1 || is_web(text.split_at(at - slashes).0) {
            return Some(at);
        } else {
            slashes = 0;
        }
    }
    None
}

/// Whether the text ends with the scheme of a URL that needs no slashes after it.
fn is_web(text: &str) -> bool {
    let ends = |scheme: &str| {
        let start = text.len().checked_sub(scheme.len());
        let end = start.and_then(|start| text.get(start..));
        end.is_some_and(|end| end.eq_ignore_ascii_case(scheme))
    };
    ends("http:") || ends("https:")
}

/// How much of `whole`, which goes from a URL's host to the next white space, stands before the host. If more may
/// follow that was cut off, that may be all of it.
fn userinfo(whole: &str, is_cut: bool) -> usize {
    let end = whole.find(|char: char| is_slash(char) || matches!(char, '?' | '#'));
    let authority = whole.split_at(end.unwrap_or(whole.len())).0;
    let after_last = |text: &str| text.rfind('@').map_or(0, |at| at + 1);
    let start = after_last(authority);
    let host = authority.split_at(start).1;
    // A password with a character that should have been encoded looks like a port that is none.
    let port = host.split_once(':').map(|(_, port)| port);
    let is_odd = !host.starts_with('[') && port.is_some_and(|port| port.contains(|c: char| !c.is_ascii_digit()));
    if is_cut && (start > 0 || is_odd || end.is_none()) {
        whole.len()
    } else if start > 0 || is_odd {
        after_last(whole)
    } else {
        0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_location_is_told_without_what_lets_somebody_in() {
        for (location, told) in [
            ("https://u:p@b.example/new?token=x#y", "https://b.example/new"),
            ("//u:p@b.example/new?token=x", "//b.example/new"),
            ("\\\\u:p@b.example\\new", "//b.example/new"),
            ("/\tu:p@b.example/new", "/\tu:p@b.example/new"),
            ("/\t/u:p@b.example/new", "//b.example/new"),
            ("https:u:p@b.example/new", "https://b.example/new"),
            ("HTTP:\\u:p@b.example", "http://b.example/"),
            ("https://u:p@ss@b.example:8443/", "https://b.example:8443/"),
            ("https://u:p ss@b.example/", "https://b.example/"),
            ("https://u:pa/ss@b.example/", NO_URL),
            ("//u:pa?ss@b.example/", NO_URL),
            ("//u:@a/ss@b.example/", NO_URL),
            ("ftp://u:p@b.example/f", "ftp://b.example/f"),
            ("custom://u:p@b.example/f?x", "custom://b.example/f"),
            ("/login/https://u:p@b.example/?next=x", "/login/https://b.example/"),
            (
                "https://b.example/to/https://u:p@c.example/",
                "https://b.example/to/https://c.example/",
            ),
            ("/ä/new?token=x", "/ä/new"),
            ("/users/@me", "/users/@me"),
            ("new", "new"),
            ("mailto:somebody@b.example", "mailto:"),
            ("urn:example:a", "urn:example:a"),
        ] {
            assert_eq!(of_location(location), told, "{location:?}");
        }
    }

    #[test]
    fn a_text_keeps_all_but_what_stands_before_a_host() {
        for (text, kept) in [
            ("see https://u:p@b.example/a?b=c now", "see https://b.example/a?b=c now"),
            (
                r#"{"to":"https:\/\/u:p@b.example\/a"}"#,
                r#"{"to":"https:\/\/b.example\/a"}"#,
            ),
            ("Bearer realm=\"http:u:p@b.example\"", "Bearer realm=\"http:b.example\""),
            ("two: //a:b@c //d:e@f", "two: //c //f"),
            ("//u:pa/ss?w#o@b.example", "//b.example"),
            ("//u:@a/ss@b.example", "//b.example"),
            ("https://[::1]:8080/@me and a@b", "https://[::1]:8080/@me and a@b"),
            ("http://b.example:8080/@scope/x", "http://b.example:8080/@scope/x"),
            ("a // b", "a // b"),
            ("http://", "http://"),
            ("ask somebody@b.example", "ask somebody@b.example"),
        ] {
            assert_eq!(in_text(text, false), kept, "{text:?}");
        }
        for (cut, kept) in [
            ("see https://us", "see https://"),
            ("see https://user:pa", "see https://"),
            ("see //user:pa/s", "see //"),
            ("see //user:@pa/s", "see //"),
            ("see https://b.example/a", "see https://b.example/a"),
            ("see https://b.example ", "see https://b.example "),
        ] {
            assert_eq!(in_text(cut, true), kept, "{cut:?}");
        }
    }

    /// The beginning of a password that is not taken for a port, which would make a host of the user.
    fn in_password(more: String) -> String {
        let end = more.find(['/', '\\', '?', '#']);
        let is_port = end.is_some_and(|end| more.bytes().take(end).all(|byte| byte.is_ascii_digit()));
        if is_port { format!("x{more}") } else { more }
    }

    /// A user and a password that are found where they are kept.
    const USER: &str = "uSeR";
    const PASSWORD: &str = "pAsSwOrD";

    proptest! {
        #[test]
        fn neither_user_nor_password_is_told_of_a_location(
            scheme in prop::sample::select(vec!["", "http:", "https:", "HTTPS:", "ftp:", "wss:", "custom:", "jdbc:postgresql:"]),
            slashes in "[/\\\\]{2}", odd in "[ -~&&[^/\\\\?#]]{0,6}", more in "[!-~ ]{0,6}", after in "[/?#]?[!-~]{0,10}",
        ) {
            let more = in_password(more);
            let location = format!("{scheme}{slashes}{USER}{odd}:{more}{PASSWORD}@b.example{after}");
            let told = of_location(&location);
            prop_assert!(!told.contains(PASSWORD), "{location:?}: {told:?}");
            prop_assert!(!told.contains(USER), "{location:?}: {told:?}");
        }

        #[test]
        fn neither_user_nor_password_is_kept_of_a_text_wherever_it_is_cut(
            before in "[a-z \":{]{0,10}", scheme in prop::sample::select(vec!["", "http:", "https:", "x:"]),
            odd in "[!-~&&[^/\\\\?#]]{0,6}", more in "[!-~]{0,6}", after in "[ -~]{0,20}", cut in 0usize..80,
        ) {
            let more = in_password(more);
            let text = format!("{before}{scheme}//{USER}{odd}:{more}{PASSWORD}@b.example{after}");
            let begins = text.find(USER).unwrap();
            let kept = in_text(&text, false);
            prop_assert!(!kept.contains(PASSWORD) && !kept.contains(USER), "{text:?}: {kept:?}");
            let cut = text.split_at(cut.min(text.len())).0;
            let kept = in_text(cut, true);
            prop_assert!(!kept.contains(USER) && !kept.contains(PASSWORD), "{cut:?}: {kept:?}");
            prop_assert!(cut.len() < begins || kept.starts_with(text.split_at(begins).0), "{cut:?}: {kept:?}");
        }

        #[test]
        fn no_text_makes_it_panic_and_none_grows(text in "[ -~äh:/@?#\\\\\\[\\]]{0,60}", cut: bool) {
            prop_assert!(in_text(&text, cut).len() <= text.len());
            drop(of_location(&text));
        }
    }
}
