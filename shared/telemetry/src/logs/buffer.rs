//! Lines that wait to be written, in a bounded buffer that nobody waits for.

use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use prometheus::{IntCounterVec, Opts};
use std::io::{self, ErrorKind, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// How many bytes of lines wait at most; as many may be in the writer's hand.
const MAX_BYTES: usize = 1 << 20;

/// How soon a writer is tried again that cannot take more at the moment.
const PAUSE: Duration = Duration::from_millis(10);

/// Why a line was dropped.
#[derive(Debug, Clone, Copy)]
pub(super) enum Dropped {
    /// The buffer was full, because stderr was not read.
    NotRead,
    /// Stderr could not be written.
    Failed,
}

impl Dropped {
    const ALL: [Self; 2] = [Self::NotRead, Self::Failed];

    const fn label(self) -> &'static str {
        match self {
            Self::NotRead => "not_read",
            Self::Failed => "failed",
        }
    }
}

/// The buffer; cheap to clone.
#[derive(Debug, Clone, Default)]
pub(super) struct Buffer(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
    not_read: AtomicU64,
    failed: AtomicU64,
}

#[derive(Debug, Default)]
struct State {
    lines: Vec<u8>,
    /// A part of what came is being written.
    writing: bool,
}

impl Buffer {
    /// A buffer whose lines a thread of its own writes, for as long as the process lives.
    pub(super) fn written_to<W: Write>(open: impl FnOnce() -> W + Send + 'static) -> Self {
        let buffer = Self::default();
        let lines = buffer.clone();
        let writer = move || {
            let (mut out, mut told) = (open(), 0);
            loop {
                lines.write_next(&mut out, &mut told);
            }
        };
        // Without the thread the lines that do not fit are dropped and counted, as when nobody reads.
        drop(std::thread::Builder::new().name("log".to_owned()).spawn(writer));
        buffer
    }

    /// Adds a line, or drops it where there is no room.
    pub(super) fn push(&self, line: &[u8]) {
        let mut state = self.0.lock();
        if state.lines.len() + line.len() > MAX_BYTES {
            drop(state);
            self.count(Dropped::NotRead, line);
            return;
        }
        state.lines.extend_from_slice(line);
        drop(state);
        self.0.changed.notify_all();
    }

    /// Waits until everything is written, but no longer than that.
    pub(super) fn flush(&self, at_most: Duration) {
        let pending = |state: &mut State| state.writing || !state.lines.is_empty();
        let waited = self.0.changed.wait_timeout_while(self.0.lock(), at_most, pending);
        drop(waited.unwrap_or_else(PoisonError::into_inner));
    }

    pub(super) fn dropped(&self, why: Dropped) -> u64 {
        self.counter(why).load(Ordering::Relaxed)
    }

    /// Waits for lines, and writes what there is; then says how many were dropped that it has not told of yet.
    fn write_next(&self, out: &mut impl Write, told: &mut u64) {
        let state = self.0.changed.wait_while(self.0.lock(), |state| state.lines.is_empty());
        let mut state = state.unwrap_or_else(PoisonError::into_inner);
        let lines = std::mem::take(&mut state.lines);
        state.writing = true;
        drop(state);
        let rest = write(out, &lines);
        self.count(Dropped::Failed, rest);
        let mut state = self.0.lock();
        state.writing = false;
        drop(state);
        self.0.changed.notify_all();
        let dropped = self.dropped(Dropped::NotRead) - *told;
        if dropped > 0 && rest.is_empty() {
            *told += dropped;
            tracing::warn!(lines = dropped, "log lines were dropped, because stderr was not read");
        }
    }

    fn count(&self, why: Dropped, lines: &[u8]) {
        let count = lines.split(|byte| *byte == b'\n').count().saturating_sub(1);
        self.counter(why)
            .fetch_add(u64::try_from(count).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    fn counter(&self, why: Dropped) -> &AtomicU64 {
        match why {
            Dropped::NotRead => &self.0.not_read,
            Dropped::Failed => &self.0.failed,
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Takes everything: what logs has no use for an error.
impl Write for Buffer {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.push(line);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Writes; what could not be written is returned.
fn write<'a>(out: &mut impl Write, mut lines: &'a [u8]) -> &'a [u8] {
    while !lines.is_empty() {
        match out.write(lines) {
            Ok(0) => break,
            Ok(written) => lines = lines.get(written..).unwrap_or_default(),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            // A terminal that another program has set so.
            Err(error) if error.kind() == ErrorKind::WouldBlock => std::thread::sleep(PAUSE),
            Err(_away) => break,
        }
    }
    lines
}

/// How many lines were dropped, asked when somebody looks.
pub(super) struct DroppedLines {
    counter: IntCounterVec,
    buffer: Buffer,
}

impl DroppedLines {
    pub(super) fn new(buffer: &Buffer) -> Result<Self, prometheus::Error> {
        let counter = IntCounterVec::new(
            Opts::new(
                "herald_log_lines_dropped_total",
                "Lines of the log that were never written, by reason; nothing waits for the log.",
            ),
            &["reason"],
        )?;
        Ok(Self {
            counter,
            buffer: buffer.clone(),
        })
    }
}

impl Collector for DroppedLines {
    fn desc(&self) -> Vec<&Desc> {
        self.counter.desc()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        for why in Dropped::ALL {
            let counter = self.counter.with_label_values(&[why.label()]);
            counter.inc_by(self.buffer.dropped(why).saturating_sub(counter.get()));
        }
        self.counter.collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

    const PATIENCE: Duration = Duration::from_secs(10);

    /// Takes bytes when the test lets it.
    struct Pipe {
        room: Receiver<io::Result<()>>,
        written: SyncSender<Vec<u8>>,
    }

    impl Write for Pipe {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.room.recv().map_err(io::Error::other)??;
            self.written.send(bytes.to_owned()).map_err(io::Error::other)?;
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    struct Reader {
        room: SyncSender<io::Result<()>>,
        written: Receiver<Vec<u8>>,
    }

    fn buffer() -> (Buffer, Reader) {
        let (room, let_through) = sync_channel(1000);
        let (write, written) = sync_channel(1000);
        let pipe = Pipe {
            room: let_through,
            written: write,
        };
        (Buffer::written_to(move || pipe), Reader { room, written })
    }

    #[test]
    fn a_reader_that_is_away_stops_nobody_and_what_it_missed_is_counted() {
        let (buffer, reader) = buffer();
        let line = [&[b'x'; 1023][..], b"\n"].concat();
        // Some of them may be in the writer's hand, and nobody reads yet.
        for _ in 0..3 * 1024 {
            buffer.push(&line);
        }
        let dropped = buffer.dropped(Dropped::NotRead);
        assert!((1024..=2048).contains(&dropped), "{dropped}");
        buffer.flush(Duration::from_millis(1));
        let kept = 3 * 1024 - usize::try_from(dropped).unwrap();
        for _ in 0..1000 {
            reader.room.send(Ok(())).unwrap();
        }
        let mut read = Vec::new();
        while read.len() < kept * line.len() {
            read.extend(reader.written.recv_timeout(PATIENCE).unwrap());
        }
        assert_eq!(read, line.repeat(kept), "whole lines, in order");
        buffer.flush(PATIENCE);
        buffer.push(b"again\n");
        assert_eq!(reader.written.recv_timeout(PATIENCE).unwrap(), b"again\n");
        assert_eq!(buffer.dropped(Dropped::NotRead), dropped);
        assert_eq!(buffer.dropped(Dropped::Failed), 0);
    }

    #[test]
    fn a_writer_that_fails_is_tried_again_with_the_next_line() {
        let (buffer, reader) = buffer();
        reader.room.send(Err(io::Error::from(ErrorKind::StorageFull))).unwrap();
        buffer.push(b"one\ntwo\n");
        buffer.flush(PATIENCE);
        assert_eq!(buffer.dropped(Dropped::Failed), 2);
        for error in [ErrorKind::Interrupted, ErrorKind::WouldBlock] {
            reader.room.send(Err(io::Error::from(error))).unwrap();
        }
        reader.room.send(Ok(())).unwrap();
        buffer.push(b"three\n");
        assert_eq!(reader.written.recv_timeout(PATIENCE).unwrap(), b"three\n");
        assert_eq!(buffer.dropped(Dropped::Failed), 2);
    }

    #[test]
    fn the_counter_says_why_and_is_there_from_the_start() {
        let (buffer, _reader) = buffer();
        let registry = prometheus::Registry::new();
        registry
            .register(Box::new(DroppedLines::new(&buffer).unwrap()))
            .unwrap();
        let shown = || {
            let families = registry.gather();
            let counters = families[0].get_metric().iter();
            counters
                .map(|metric| metric.get_counter().get_value())
                .collect::<Vec<_>>()
        };
        assert_eq!(shown(), [0.0, 0.0]);
        buffer.count(Dropped::NotRead, b"a\nb\n");
        assert_eq!(shown(), [0.0, 2.0]);
        assert_eq!(shown(), [0.0, 2.0], "looking counts nothing");
    }
}
