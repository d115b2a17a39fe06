//! JSON in another layout. Its tokens stay as they came: a message is shown as it was signed, digit for digit.

use serde_json::value::RawValue;

/// How many levels are indented; a message may have as many as fit into it, and the indents would be megabytes.
const LEVELS: usize = 64;

/// The text on several lines, if it is JSON.
pub(super) fn indented(body: &[u8]) -> Option<String> {
    Some(lay_out(json(body)?.get(), LEVELS))
}

/// The text on one line, if it is JSON.
pub(super) fn on_one_line(body: &[u8]) -> Option<Box<RawValue>> {
    RawValue::from_string(lay_out(json(body)?.get(), 0)).ok()
}

fn json(body: &[u8]) -> Option<&RawValue> {
    serde_json::from_slice(body).ok()
}

/// Lays out a text that is JSON, so that only what is between its tokens changes.
fn lay_out(json: &str, levels: usize) -> String {
    let mut out = String::with_capacity(json.len() * 2);
    let mut rest = json.chars().peekable();
    let mut depth = 0_usize;
    let line = |out: &mut String, within: usize, indent: usize| {
        if within <= levels {
            out.push('\n');
            out.extend(std::iter::repeat_n("  ", indent));
        }
    };
    while let Some(character) = rest.next() {
        match character {
            ' ' | '\t' | '\r' | '\n' => {}
            '"' => {
                out.push('"');
                let mut escaped = false;
                for character in rest.by_ref() {
                    out.push(character);
                    if character == '"' && !escaped {
                        break;
                    }
                    escaped = character == '\\' && !escaped;
                }
            }
            '{' | '[' => {
                out.push(character);
                while rest.next_if(char::is_ascii_whitespace).is_some() {}
                if let Some(close) = rest.next_if(|next| matches!(*next, '}' | ']')) {
                    out.push(close);
                } else {
                    depth += 1;
                    line(&mut out, depth, depth);
                }
            }
            '}' | ']' => {
                line(&mut out, depth, depth.saturating_sub(1));
                depth = depth.saturating_sub(1);
                out.push(character);
            }
            ',' => {
                out.push(',');
                line(&mut out, depth, depth);
            }
            ':' if levels > 0 => out.push_str(": "),
            other => out.push(other),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;

    /// What parsing and printing again would change.
    const ODD: &str = r#" {"n": 123456789012345678901234567890, "e":1.50e+02,"a":1,
        "a":2, "s":"\u00e9\/ \"{,:}\" \\", "half":"\ud800", "big":1E400, "none":{ }, "list":[ [],[1 ,2] ]}"#;

    #[test]
    fn tokens_stay_as_they_came() {
        let shown = indented(ODD.as_bytes()).unwrap();
        let expected = r#"{
  "n": 123456789012345678901234567890,
  "e": 1.50e+02,
  "a": 1,
  "a": 2,
  "s": "\u00e9\/ \"{,:}\" \\",
  "half": "\ud800",
  "big": 1E400,
  "none": {},
  "list": [
    [],
    [
      1,
      2
    ]
  ]
}"#;
        assert_eq!(shown, expected);
        let line = on_one_line(ODD.as_bytes()).unwrap();
        assert_eq!(
            line.get(),
            r#"{"n":123456789012345678901234567890,"e":1.50e+02,"a":1,"a":2,"s":"\u00e9\/ \"{,:}\" \\","half":"\ud800","big":1E400,"none":{},"list":[[],[1,2]]}"#
        );
    }

    #[test]
    fn plain_json_is_indented_as_usual() {
        for event in crate::commands::samples::events() {
            let text = event.to_string();
            assert_eq!(indented(text.as_bytes()).unwrap(), format!("{event:#}"));
            assert_eq!(on_one_line(format!("{event:#}").as_bytes()).unwrap().get(), text);
        }
        assert_eq!(indented(b"7").unwrap(), "7");
        assert_eq!(indented(b"7 8"), None);
        assert_eq!(indented(b"\xff"), None);
    }

    #[test]
    fn depth_costs_no_more_than_its_bytes() {
        let depth = 100_000;
        let deep = format!("{{\"a\":{}{}}}", "[".repeat(depth), "]".repeat(depth));
        let shown = indented(deep.as_bytes()).unwrap();
        assert!(shown.len() < deep.len() + 3 * LEVELS * LEVELS, "{}", shown.len());
        assert_eq!(shown.split_whitespace().collect::<String>(), deep);
        assert_eq!(on_one_line(deep.as_bytes()).unwrap().get(), deep);
        let shallow: Value = serde_json::from_str(&format!("{}{}", "[".repeat(60), "]".repeat(60))).unwrap();
        assert_eq!(
            indented(shallow.to_string().as_bytes()).unwrap(),
            format!("{shallow:#}")
        );
    }
}
