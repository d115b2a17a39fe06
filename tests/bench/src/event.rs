//! Events that are cheap to make: a text with two places to fill in.

use bytes::Bytes;
use herald_tests::samples;
use serde_json::json;
use uuid::Uuid;

/// Stands before an event's number, and nowhere else in it.
const MARK: u8 = b'#';

const DIGITS: usize = 12;

/// A packet with everything that it may have, of one company.
#[derive(Debug)]
pub(crate) struct Template {
    text: Vec<u8>,
    id: usize,
    number: usize,
}

impl Template {
    /// For the packets of that company.
    pub(crate) fn new(company: Uuid) -> Self {
        Self::padded(company, 0)
    }

    /// The same, made that many bytes long if it is shorter.
    pub(crate) fn padded(company: Uuid, length: usize) -> Self {
        // In `Data`, because that is what a subscriber gets.
        let reference = format!("{}{:0DIGITS$}", char::from(MARK), 0);
        let blank = json!({ "Id": Uuid::nil().to_string(), "Data": { "Reference": reference } });
        let event = samples::merged(samples::packet_of(company), blank);
        let padding = |text: &str| json!({ "Data": { "Padding": text } });
        let least = samples::merged(event.clone(), padding("")).to_string().len();
        let text = match length.checked_sub(least) {
            Some(missing) => samples::merged(event, padding(&"x".repeat(missing))).to_string(),
            None => event.to_string(),
        };
        let id = text.find(&Uuid::nil().to_string()).expect("the Id is in the text");
        let number = text.find(char::from(MARK)).expect("the number is in the text") + 1;
        Self {
            text: text.into_bytes(),
            id,
            number,
        }
    }

    /// How long its events are.
    pub(crate) fn len(&self) -> usize {
        self.text.len()
    }

    /// A new event with that number.
    pub(crate) fn event(&self, number: usize) -> Bytes {
        let mut text = self.text.clone();
        let id = Uuid::now_v7().hyphenated();
        id.encode_lower(text.get_mut(self.id..).expect("the Id is inside"));
        let digits = text.get_mut(self.number..self.number + DIGITS);
        let mut rest = number;
        for digit in digits.expect("the number is inside").iter_mut().rev() {
            *digit = b'0' + u8::try_from(rest % 10).expect("a digit");
            rest /= 10;
        }
        text.into()
    }
}

/// The number of the event that a body is of, the event's own or the message's.
pub(crate) fn number_in(body: &[u8]) -> Option<usize> {
    let mark = body.iter().position(|byte| *byte == MARK)?;
    let digits = body.get(mark + 1..=mark + DIGITS)?;
    std::str::from_utf8(digits).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;

    #[test]
    fn events_have_an_id_of_their_own_and_the_number_that_they_were_given() {
        let company = Uuid::new_v4();
        let template = Template::new(company);
        let events = [7, 123_456_789_012].map(|number| {
            let text = template.event(number);
            assert_eq!(text.len(), template.len());
            assert_eq!(number_in(&text), Some(number));
            let event: Value = serde_json::from_slice(&text).unwrap();
            assert_eq!(number_in(event["Data"].to_string().as_bytes()), Some(number));
            assert_eq!(event["Objects"]["Company"], company.to_string());
            event
        });
        let id = |event: &Value| event["Id"].as_str().unwrap().parse::<Uuid>().unwrap();
        assert_ne!(id(&events[0]), id(&events[1]));
    }

    #[test]
    fn an_event_is_as_long_as_it_is_asked_to_be() {
        for length in [2_000, 256 * 1024] {
            let template = Template::padded(Uuid::new_v4(), length);
            assert_eq!((template.len(), template.event(3).len()), (length, length));
            assert_eq!(number_in(&template.event(3)), Some(3));
        }
        let short = Template::new(Uuid::nil()).len();
        assert_eq!(Template::padded(Uuid::nil(), short).len(), short);
    }

    #[test]
    fn what_has_no_number_has_none() {
        for body in ["", "{}", "#", "#12", "#abcdefghijkl"] {
            assert_eq!(number_in(body.as_bytes()), None);
        }
    }
}
