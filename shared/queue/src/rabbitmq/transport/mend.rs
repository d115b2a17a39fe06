//! The mending of frames: parts that the client could not read are changed in place. No byte is added or removed.
//!
//! - Bytes of a short string that are not UTF-8 become `?`: of a property, a header's name, the exchange,
//!   the routing key. A header's value is a long string, of any bytes.
//! - A table or array deeper than [`MAX_DEPTH`] becomes plain bytes, which have the same form.
//!
//! RabbitMQ reads all properties of a message before it accepts it. So nothing else in them can be unknown to the
//! client.

const METHOD: u8 = 1;
const CONTENT_HEADER: u8 = 2;

/// `basic.deliver`, the method that carries a producer's own texts.
const DELIVER: [u8; 4] = [0, 60, 0, 60];

/// How deep tables and arrays in headers are read; Herald reads those at the top.
const MAX_DEPTH: usize = 16;

/// Which properties there are, from the highest bit of the flags on.
const PROPERTIES: [Property; 14] = [
    Property::Text,     // content_type
    Property::Text,     // content_encoding
    Property::Table,    // headers
    Property::Fixed(1), // delivery_mode
    Property::Fixed(1), // priority
    Property::Text,     // correlation_id
    Property::Text,     // reply_to
    Property::Text,     // expiration
    Property::Text,     // message_id
    Property::Fixed(8), // timestamp
    Property::Text,     // type
    Property::Text,     // user_id
    Property::Text,     // app_id
    Property::Text,     // cluster_id
];

#[derive(Debug, Clone, Copy)]
enum Property {
    Text,
    Table,
    Fixed(usize),
}

/// Whether a frame of that kind is checked.
pub(super) const fn concerns(kind: u8) -> bool {
    matches!(kind, METHOD | CONTENT_HEADER)
}

/// Mends a frame's payload. A payload that is shorter than it says is left to the client.
pub(super) fn frame(kind: u8, payload: &mut [u8]) {
    let rest = &mut Rest(payload);
    let _whole: Option<()> = match kind {
        METHOD if rest.0.starts_with(&DELIVER) => deliver(rest),
        CONTENT_HEADER => content_header(rest),
        _ => Some(()),
    };
}

fn deliver(rest: &mut Rest<'_>) -> Option<()> {
    rest.take(DELIVER.len())?;
    // The consumer's tag, the delivery's, whether it came before, the exchange, the routing key.
    rest.text()?;
    rest.take(8 + 1)?;
    rest.text()?;
    rest.text()
}

fn content_header(rest: &mut Rest<'_>) -> Option<()> {
    // The class, the weight, the body's length.
    rest.take(2 + 2 + 8)?;
    let flags = rest.take(2)?;
    let flags = u16::from_be_bytes([*flags.first()?, *flags.last()?]);
    for (place, property) in PROPERTIES.iter().enumerate() {
        if flags & (0x8000 >> place) != 0 {
            match property {
                Property::Text => rest.text()?,
                Property::Table => table(&mut rest.long()?, MAX_DEPTH)?,
                Property::Fixed(length) => {
                    rest.take(*length)?;
                }
            }
        }
    }
    Some(())
}

fn table(rest: &mut Rest<'_>, depth: usize) -> Option<()> {
    while !rest.0.is_empty() {
        rest.text()?;
        value(rest, depth)?;
    }
    Some(())
}

fn array(rest: &mut Rest<'_>, depth: usize) -> Option<()> {
    while !rest.0.is_empty() {
        value(rest, depth)?;
    }
    Some(())
}

fn value(rest: &mut Rest<'_>, depth: usize) -> Option<()> {
    let kind = rest.take(1)?.first_mut()?;
    let length = match (*kind, depth.checked_sub(1)) {
        (b'F', Some(depth)) => return table(&mut rest.long()?, depth),
        (b'A', Some(depth)) => return array(&mut rest.long()?, depth),
        (b'F' | b'A', None) => {
            *kind = b'x';
            rest.long()?;
            0
        }
        (b'S' | b'x', _) => {
            rest.long()?;
            0
        }
        (b't' | b'b' | b'B', _) => 1,
        (b's' | b'u' | b'U', _) => 2,
        (b'I' | b'i' | b'f', _) => 4,
        (b'D', _) => 5,
        (b'l' | b'L' | b'd' | b'T', _) => 8,
        (b'V', _) => 0,
        _ => return None,
    };
    rest.take(length).map(|_value| ())
}

/// The bytes that are still to be read.
struct Rest<'a>(&'a mut [u8]);

impl<'a> Rest<'a> {
    fn take(&mut self, length: usize) -> Option<&'a mut [u8]> {
        let (taken, rest) = std::mem::take(&mut self.0).split_at_mut_checked(length)?;
        self.0 = rest;
        Some(taken)
    }

    /// A value with its length before it, in four bytes.
    fn long(&mut self) -> Option<Self> {
        let length = self.take(4)?.first_chunk()?;
        let length = usize::try_from(u32::from_be_bytes(*length)).ok()?;
        self.take(length).map(Self)
    }

    /// A short string, which is UTF-8 afterwards.
    fn text(&mut self) -> Option<()> {
        let length = usize::from(*self.take(1)?.first()?);
        let mut text = self.take(length)?;
        while let Err(error) = std::str::from_utf8(text) {
            let (_valid, broken) = text.split_at_mut_checked(error.valid_up_to())?;
            let length = error.error_len().unwrap_or(broken.len());
            let (broken, rest) = broken.split_at_mut_checked(length)?;
            broken.fill(b'?');
            text = rest;
        }
        Some(())
    }
}
