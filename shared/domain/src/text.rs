//! Texts that come from outside: which bytes are one, and which characters it may have.
//!
//! One rule holds at every entrance. A text is UTF-8 without a byte order mark. JSON's white space is space,
//! tab, line feed and carriage return alone (RFC 8259, 2). Half a surrogate pair, which JSON can write and no
//! text can hold, is refused wherever it stands. U+0000 is a character like others inside `Data`, which is
//! kept as it came; in a text of the API, which PostgreSQL could not keep, it is refused on either ledger.

use crate::problem::{Fault, pointer_to};
use serde::de::{DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use std::collections::HashSet;

/// How deep a fault's pointer goes; what lies deeper is named by what holds it.
const MAX_POINTER: usize = 8;

/// The characters that JSON passes over between its tokens.
const WHITE_SPACE: [char; 4] = [' ', '\t', '\n', '\r'];

/// The text of a body, or what the body is instead.
pub fn read(body: &[u8]) -> Result<&str, Fault> {
    let instead = match body {
        [0xef, 0xbb, 0xbf, ..] => {
            let detail = "the body begins with a byte order mark (U+FEFF); send it without";
            return Err(Fault::new("", "byte_order_mark", detail));
        }
        [0xff, 0xfe, ..] | [0xfe, 0xff, ..] => "it begins with the byte order mark of UTF-16".to_owned(),
        [0x1f, 0x8b, ..] => "it is compressed with gzip; send it as it is".to_owned(),
        _ => match std::str::from_utf8(body) {
            Ok(text) => return Ok(text),
            Err(error) => error.to_string(),
        },
    };
    Err(Fault::new("", "utf8", format!("the body is not UTF-8: {instead}")))
}

/// The text without JSON's white space around it.
pub(crate) fn trim(text: &str) -> &str {
    text.trim_matches(WHITE_SPACE)
}

/// Whether `name` is `known`, which is ASCII, to a reader that ignores the case of letters, and is written
/// otherwise. Two characters beyond ASCII fold to a letter of it: the Kelvin sign and the long s.
pub(crate) fn differs_in_case(name: &str, known: &str) -> bool {
    let fold = |c: char| match c {
        '\u{212a}' => 'k',
        '\u{17f}' => 's',
        other => other.to_ascii_lowercase(),
    };
    let same = if name.is_ascii() {
        name.eq_ignore_ascii_case(known)
    } else {
        name.chars().map(fold).eq(known.chars().map(fold))
    };
    same && name != known
}

/// The fault of a JSON text in which an object has a name twice, if there is one: readers differ in which of the two
/// they take. Of a text that is no JSON, as far as it is.
pub fn repeated_name(json: &str) -> Option<Fault> {
    let mut names = Names::default();
    let read = &mut serde_json::Deserializer::from_str(json);
    // What is no JSON has a fault of its own.
    let _read: Result<(), serde_json::Error> = DeserializeSeed::deserialize(&mut names, read);
    let (pointer, name) = names.repeated?;
    Some(Fault::new(pointer, "unique", format!("{name} is given more than once")))
}

/// Goes through a JSON text, and finds the first name that an object has twice.
#[derive(Default)]
struct Names {
    pointer: String,
    /// Where it stands, and the name.
    repeated: Option<(String, String)>,
}

impl Names {
    /// Reads what stands below that token.
    fn below<T>(&mut self, token: &str, read: impl FnOnce(&mut Self) -> T) -> T {
        let length = self.pointer.len();
        self.pointer.push_str(&pointer_to(token));
        let read = read(self);
        self.pointer.truncate(length);
        read
    }
}

impl<'de> DeserializeSeed<'de> for &mut Names {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for &mut Names {
    type Value = ();

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("JSON")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let mut seen = HashSet::new();
        while let Some(name) = map.next_key::<String>()? {
            self.below(&name, |names| map.next_value_seed(&mut *names))?;
            if self.repeated.is_none() && seen.contains(&name) {
                self.repeated = Some((format!("{}{}", self.pointer, pointer_to(&name)), name.clone()));
            }
            seen.insert(name);
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<(), A::Error> {
        let mut position = 0_usize;
        while self
            .below(&position.to_string(), |names| list.next_element_seed(&mut *names))?
            .is_some()
        {
            position += 1;
        }
        Ok(())
    }

    fn visit_bool<E>(self, _value: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E>(self, _value: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E>(self, _value: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E>(self, _value: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_str<E>(self, _value: &str) -> Result<(), E> {
        Ok(())
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }
}

/// The fault of a JSON text in which half a surrogate pair stands without the other, if there is one.
pub fn half_surrogate(json: &str) -> Option<Fault> {
    let place = find_half(json)?;
    let written = json.get(place..place + 6).unwrap_or_default();
    let detail = format!("{written} is half a surrogate pair; a character beyond U+FFFF is written as two such halves");
    Some(Fault::new(pointer_at(json, place), "half_surrogate", detail))
}

fn find_half(json: &str) -> Option<usize> {
    let bytes = json.as_bytes();
    let mut place = json.find('\\')?;
    loop {
        place += match (unit_at(bytes, place), unit_at(bytes, place + 6)) {
            (Some(0xd800..=0xdbff), Some(0xdc00..=0xdfff)) => 12,
            (Some(0xd800..=0xdfff), _) => return Some(place),
            (Some(_), _) => 6,
            // Another escape, or none that JSON knows.
            (None, _) => 2,
        };
        place += bytes.get(place..)?.iter().position(|byte| *byte == b'\\')?;
    }
}

/// The UTF-16 unit that is written as `\uXXXX` at that place.
fn unit_at(bytes: &[u8], place: usize) -> Option<u16> {
    let digits = bytes.get(place..place + 6)?.strip_prefix(b"\\u")?;
    digits.iter().try_fold(0, |unit, digit| {
        let digit = char::from(*digit).to_digit(16)?;
        Some(unit << 4 | u16::try_from(digit).ok()?)
    })
}

/// The JSON Pointer to the value in which that place of a JSON text lies.
fn pointer_at(json: &str, place: usize) -> String {
    let bytes = json.as_bytes();
    let mut levels: Vec<Level<'_>> = Vec::new();
    let (mut at, mut deeper) = (0, 0_usize);
    while at < place {
        match bytes[at] {
            b'{' | b'[' if levels.len() == MAX_POINTER => deeper += 1,
            opening @ (b'{' | b'[') => levels.push(Level {
                named: opening == b'{',
                name: None,
                index: 0,
            }),
            b'}' | b']' if deeper > 0 => deeper -= 1,
            b'}' | b']' => drop(levels.pop()),
            b',' if deeper == 0 => {
                if let Some(level) = levels.last_mut() {
                    level.name = None;
                    level.index += 1;
                }
            }
            b'"' => {
                let end = string_end(bytes, at);
                if place < end {
                    break;
                }
                if let Some(level) = levels.last_mut().filter(|level| deeper == 0 && level.name.is_none()) {
                    level.name = json.get(at..end);
                }
                at = end;
                continue;
            }
            _ => {}
        }
        at += 1;
    }
    levels.iter().map(Level::pointer).collect()
}

/// An object or array around a place.
struct Level<'a> {
    named: bool,
    /// The name that the place stands under, as it is written, in an object.
    name: Option<&'a str>,
    /// How many values stand before it, in an array.
    index: usize,
}

impl Level<'_> {
    fn pointer(&self) -> String {
        match self.name {
            _ if !self.named => format!("/{}", self.index),
            // The place is in the name itself: the object is at fault.
            None => String::new(),
            Some(written) => {
                let name = serde_json::from_str::<String>(written);
                pointer_to(name.as_deref().unwrap_or(written))
            }
        }
    }
}

/// Where the string that begins at that place has ended.
fn string_end(bytes: &[u8], start: usize) -> usize {
    let mut at = start + 1;
    while let Some(byte) = bytes.get(at) {
        match byte {
            b'"' => return at + 1,
            b'\\' => at += 2,
            _ => at += 1,
        }
    }
    bytes.len()
}

/// The most arrays and objects in one another that an event's `Data` may have, itself included. Readers have limits of
/// their own, of which that of .NET is the usual one; deeper, a message could never be delivered.
pub(crate) const MAX_DEPTH: usize = 64;

/// Whether no more than `most` arrays and objects of a JSON text lie in one another.
pub(crate) fn is_shallow(json: &str, most: usize) -> bool {
    let bytes = json.as_bytes();
    if bytes.iter().filter(|byte| matches!(byte, b'{' | b'[')).count() <= most {
        return true;
    }
    let (mut at, mut depth) = (0, 0_usize);
    while let Some(byte) = bytes.get(at) {
        match byte {
            b'{' | b'[' => depth += 1,
            b'}' | b']' => depth = depth.saturating_sub(1),
            b'"' => {
                at = string_end(bytes, at);
                continue;
            }
            _ => {}
        }
        if depth > most {
            return false;
        }
        at += 1;
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_body_that_is_no_text_is_called_what_it_is() {
        assert_eq!(read("ä".as_bytes()).unwrap(), "ä");
        for (body, rule, words) in [
            (b"\xef\xbb\xbf{}".as_slice(), "byte_order_mark", "byte order mark"),
            (b"\xff\xfe{\0}\0", "utf8", "byte order mark of UTF-16"),
            (b"\x1f\x8b\x08", "utf8", "gzip"),
            (b"\"\xff\"", "utf8", "index 1"),
        ] {
            let fault = read(body).unwrap_err();
            assert!(fault.rule == rule && fault.detail.contains(words), "{fault:?}");
        }
    }

    #[test]
    fn a_name_that_an_object_has_twice_is_found_wherever_it_stands() {
        for (json, pointer) in [
            (r#"{"a":1,"b":{"c":[0,{"d":1,"e":2,"d":3}]},"a":2}"#, "/b/c/1/d"),
            (r#"{"a/b":null,"a\u002fb":1.5}"#, "/a~1b"),
            (r#"[{"":true},{"":"x","":-1}]"#, "/1/"),
        ] {
            let fault = repeated_name(json).unwrap();
            assert_eq!((fault.pointer.as_str(), fault.rule), (pointer, "unique"));
        }
        for fine in [r#"{"a":{"a":[{"a":1},{"a":2}]},"A":1}"#, "3", r#"{"a":1,"#, ""] {
            assert!(repeated_name(fine).is_none(), "{fine}");
        }
    }

    #[test]
    fn half_a_surrogate_pair_is_named_by_the_field_that_it_stands_in() {
        for (json, pointer) in [
            (r#"{"a":"\ud83d"}"#, "/a"),
            (r#"{"a":"\uDE00\ud83d"}"#, "/a"),
            (r#"{"a":1,"b/c":{"d":[0,"x",{"e":"\ud83dx"}]}}"#, "/b~1c/d/2/e"),
            (r#"[{"a":"{\"["},{"\u0062":"\udfff"}]"#, "/1/b"),
            (r#"{"a":{"\ud800":1}}"#, "/a"),
            (r#""\ud83d\n""#, ""),
            ("[[[[[[[[[[[[\"\\ud800\"]]]]]]]]]]]]", "/0/0/0/0/0/0/0/0"),
        ] {
            let fault = half_surrogate(json).expect(json);
            assert_eq!(
                (fault.pointer.as_str(), fault.rule),
                (pointer, "half_surrogate"),
                "{json}"
            );
        }
        for whole in [
            r#"{"a":"\ud83d\ude00"}"#,
            r#""\\ud83d""#,
            r#""\u00e4\n\"\\""#,
            "{}",
            "\"😀\"",
            "\"\\",
        ] {
            assert_eq!(half_surrogate(whole), None, "{whole}");
        }
    }

    proptest! {
        #[test]
        fn what_has_no_half_a_reader_of_json_can_decode(units: Vec<u16>, slashes in "\\\\{0,4}") {
            let escaped: Vec<_> = units.iter().map(|unit| format!("\\u{unit:04x}")).collect();
            let escaped = escaped.concat();
            let json = format!("\"{slashes}{escaped}\"");
            if let Ok(decoded) = serde_json::from_str::<String>(&json) {
                prop_assert!(half_surrogate(&json).is_none(), "{decoded:?}");
            } else if slashes.len() % 2 == 0 {
                prop_assert!(half_surrogate(&json).is_some(), "{json}");
            }
        }

        #[test]
        fn no_text_makes_it_panic(json in "[\\[\\]{}\",:a\\\\u0d8äF]{0,60}") {
            drop(half_surrogate(&json));
            let _shallow = is_shallow(&json, 2);
        }
    }

    #[test]
    fn depth_is_counted_outside_of_strings() {
        let nested = |levels: usize| format!("{}{}", "[".repeat(levels), "]".repeat(levels));
        assert!(is_shallow(&nested(64), 64));
        assert!(!is_shallow(&nested(65), 64));
        assert!(is_shallow(&format!("[\"{}\\\"[\"]", "[".repeat(100)), 1));
        assert!(is_shallow(&format!("[{}]", ["{}"; 100].join(",")), 2));
    }

    #[test]
    fn the_kelvin_sign_and_the_long_s_are_letters_in_another_case() {
        for name in ["packetguid", "PACKETGUID", "Pac\u{212a}etGUID"] {
            assert!(differs_in_case(name, "PacketGUID"), "{name}");
        }
        assert!(differs_in_case("\u{17f}tatu\u{17f}", "Status"));
        for name in ["PacketGUID", "PacketGUI", "PäcketGUID", "PacketGUID\u{212a}"] {
            assert!(!differs_in_case(name, "PacketGUID"), "{name}");
        }
    }
}
