//! Reads events from a file or standard input, one at a time, however many there are.
//!
//! One event, several one after another (which NDJSON is), and an array are told apart by the first
//! character and read by one parser, so events may also stretch over several lines.

use anyhow::{Context, anyhow};
use herald_domain::event::{MAX_EVENT_BYTES, outline, with_id};
use herald_domain::id::EventId;
use serde::de::{DeserializeSeed, Deserializer, SeqAccess, Visitor};
use serde_json::value::RawValue;
use std::cell::Cell;
use std::fmt;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::Path;
use std::rc::Rc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout_at};
use uuid::Uuid;

/// Half of what a request may have, so that the last event of a batch always fits.
const MAX_BATCH_BYTES: usize = 4 << 20;

/// How long an incomplete batch waits for more, so that events that trickle in are published soon.
const LINGER: Duration = Duration::from_millis(100);

/// How many events are read ahead; with the largest ones that is 16 MiB.
const READ_AHEAD: usize = 64;

/// An event to publish.
#[derive(Debug)]
pub(super) struct Item {
    /// Its JSON, with an `Id` unless it is malformed, which is for Herald to say.
    pub(super) text: String,
    pub(super) id: Option<EventId>,
    /// The line that it begins on, from 1.
    pub(super) line: u64,
    /// How many bytes had been read after it.
    pub(super) end: u64,
}

impl Item {
    pub(super) fn new(raw: &str, line: u64, end: u64) -> anyhow::Result<Self> {
        let (text, id) = match outline(raw) {
            Ok(event) => {
                let id = event.id.unwrap_or_else(|| EventId(Uuid::now_v7()));
                (with_id(raw, event.id, id).into_owned(), Some(id))
            }
            Err(_faults) => (raw.to_owned(), None),
        };
        if text.len() > MAX_EVENT_BYTES {
            return Err(too_large(line));
        }
        Ok(Self { text, id, line, end })
    }
}

fn too_large(line: u64) -> anyhow::Error {
    anyhow!("line {line}: the event has more than {MAX_EVENT_BYTES} bytes (256 KiB)")
}

/// The events, in order.
#[derive(Debug)]
pub(super) struct Input {
    items: mpsc::Receiver<anyhow::Result<Item>>,
    /// Read, but not handed out.
    pending: Vec<Item>,
    /// The file's size, if it is a file.
    pub(super) bytes: Option<u64>,
}

impl Input {
    /// Opens the file, or standard input for `-`.
    pub(super) fn open(path: &Path) -> anyhow::Result<Self> {
        if path.as_os_str() == "-" {
            return Self::read(|| BufReader::new(io::stdin()), None);
        }
        let file = File::open(path).with_context(|| format!("cannot read {}", path.display()))?;
        let metadata = file
            .metadata()
            .with_context(|| format!("cannot read {}", path.display()))?;
        Self::read(|| BufReader::new(file), metadata.is_file().then_some(metadata.len()))
    }

    /// Reads on a thread of its own, not one of the runtime's: the runtime waits for its own, and
    /// standard input may never end.
    fn read<R: BufRead>(open: impl FnOnce() -> R + Send + 'static, bytes: Option<u64>) -> anyhow::Result<Self> {
        let (sender, items) = mpsc::channel(READ_AHEAD);
        std::thread::Builder::new()
            .name("reader".to_owned())
            .spawn(move || {
                let outcome = read_events(open(), &mut |item| sender.blocking_send(Ok(item)).is_ok());
                if let Err(error) = outcome {
                    // Nobody left to tell is no fault.
                    drop(sender.blocking_send(Err(error)));
                }
            })
            .context("cannot start a thread to read with")?;
        Ok(Self {
            items,
            pending: Vec::new(),
            bytes,
        })
    }

    /// The next events, at most `limit`; none at the end.
    pub(super) async fn batch(&mut self, limit: usize) -> anyhow::Result<Vec<Item>> {
        let mut bytes = 0;
        let mut deadline = None;
        while self.pending.len() < limit && bytes < MAX_BATCH_BYTES {
            let next = match deadline {
                None => self.items.recv().await,
                Some(deadline) => match timeout_at(deadline, self.items.recv()).await {
                    Ok(next) => next,
                    Err(_elapsed) => break,
                },
            };
            let Some(item) = next.transpose()? else { break };
            bytes += item.text.len();
            self.pending.push(item);
            deadline.get_or_insert_with(|| Instant::now() + LINGER);
        }
        Ok(std::mem::take(&mut self.pending))
    }

    /// After a failure to read: the first event that was read and not handed out.
    pub(super) fn first_pending(&self) -> Option<&Item> {
        self.pending.first()
    }
}

/// Reads to the end, or until `take` wants no more.
fn read_events<R: BufRead>(input: R, take: &mut dyn FnMut(Item) -> bool) -> anyhow::Result<()> {
    let mut input = crate::text::utf8(input).context("cannot read")?;
    let position = Rc::new(Position::default());
    let first = skip_blanks(&mut input, &position)?;
    let mut events = 0_u64;
    let mut each = |raw: Box<RawValue>| {
        events += 1;
        let item = Item::new(raw.get(), position.start_line.get(), position.bytes.get())?;
        position.size.set(0);
        Ok(take(item))
    };
    let reader = Counted {
        input,
        position: Rc::clone(&position),
    };
    let mut json = serde_json::Deserializer::from_reader(reader);
    if first == Some(b'[') {
        let mut refused = None;
        let read = Elements {
            each: &mut each,
            refused: &mut refused,
        }
        .deserialize(&mut json)
        .and_then(|()| json.end());
        match (refused, read) {
            (Some(Ending::Failed(error)), _) => return Err(error),
            (Some(Ending::Enough), _) | (None, Ok(())) => {}
            (None, Err(error)) => return Err(position.explain(&error)),
        }
    } else {
        for raw in json.into_iter() {
            if !each(raw.map_err(|error| position.explain(&error))?)? {
                break;
            }
        }
    }
    if events == 0 {
        return Err(anyhow!(
            "there is no event to send: a file has one, several one after another, or an array"
        ));
    }
    Ok(())
}

/// Passes over white space; the byte that follows is left to be read.
fn skip_blanks(input: &mut impl BufRead, position: &Position) -> anyhow::Result<Option<u8>> {
    loop {
        let buffer = input.fill_buf().context("cannot read")?;
        let blanks = buffer.iter().take_while(|byte| byte.is_ascii_whitespace()).count();
        let next = buffer.get(blanks).copied();
        for byte in buffer.iter().take(blanks) {
            position.pass(*byte);
        }
        input.consume(blanks);
        if next.is_some() || blanks == 0 {
            return Ok(next);
        }
    }
}

/// The place in the input up to which events were read.
#[derive(Debug, Default)]
struct Position {
    /// Line ends so far.
    lines: Cell<u64>,
    bytes: Cell<u64>,
    /// Bytes of the event that is being read; 0 between two.
    size: Cell<usize>,
    /// The line that the event began on.
    start_line: Cell<u64>,
}

impl Position {
    fn pass(&self, byte: u8) {
        let between = self.size.get() == 0 && matches!(byte, b' ' | b'\t' | b'\r' | b'\n' | b',' | b'[');
        if !between {
            if self.size.get() == 0 {
                self.start_line.set(self.lines.get() + 1);
            }
            self.size.set(self.size.get() + 1);
        }
        self.bytes.set(self.bytes.get() + 1);
        if byte == b'\n' {
            self.lines.set(self.lines.get() + 1);
        }
    }

    fn explain(&self, error: &serde_json::Error) -> anyhow::Error {
        if error.is_io() {
            return if self.size.get() > MAX_EVENT_BYTES {
                too_large(self.start_line.get())
            } else {
                anyhow!("cannot read: {error}")
            };
        }
        // The parser counts lines from where it began; the position counts them from the file's start.
        let text = error.to_string();
        let what = text.split(" at line ").next().unwrap_or(&text);
        let hint = match what {
            // Commas without brackets, or something behind an array.
            "expected value" | "trailing characters" => {
                "; a file has one event, several one after another without commas, or one array"
            }
            _ => "",
        };
        anyhow!("line {}: this is not JSON: {what}{hint}", self.lines.get() + 1)
    }
}

/// Hands out one byte at a time, as the parser asks anyway, so that the position is exact.
struct Counted<R> {
    input: R,
    position: Rc<Position>,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let one = buffer.len().min(1);
        let count = self.input.read(&mut buffer[..one])?;
        for byte in &buffer[..count] {
            self.position.pass(*byte);
        }
        if self.position.size.get() > MAX_EVENT_BYTES {
            return Err(io::Error::other("an event is too large"));
        }
        Ok(count)
    }
}

/// Why the elements of an array were not read to the end.
enum Ending {
    Enough,
    Failed(anyhow::Error),
}

/// Hands out an array's elements while it is read.
struct Elements<'a> {
    each: &'a mut dyn FnMut(Box<RawValue>) -> anyhow::Result<bool>,
    refused: &'a mut Option<Ending>,
}

impl<'de> DeserializeSeed<'de> for Elements<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for Elements<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array of events")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<(), A::Error> {
        while let Some(raw) = elements.next_element()? {
            let ending = match (self.each)(raw) {
                Ok(true) => continue,
                Ok(false) => Ending::Enough,
                Err(error) => Ending::Failed(error),
            };
            *self.refused = Some(ending);
            return Err(serde::de::Error::custom("stopped"));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
