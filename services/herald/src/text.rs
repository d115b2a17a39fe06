//! Text as files have it: UTF-8 or UTF-16, with or without a byte order mark, as Windows' editors and shells write it.

use anyhow::Context;
use std::collections::VecDeque;
use std::io::{self, BufRead, BufReader, Cursor, ErrorKind, Read};
use std::path::Path;

/// The largest file of settings or certificates, in bytes.
const MAX_SETTINGS: u64 = 16 << 20;

/// The text of a file of settings or certificates. One that has no end is no such file.
pub(crate) fn read_settings(path: &Path) -> anyhow::Result<String> {
    let text = read_up_to(MAX_SETTINGS + 1, path)?;
    let is_settings = u64::try_from(text.len()).is_ok_and(|length| length <= MAX_SETTINGS);
    anyhow::ensure!(is_settings, "{} has more than {MAX_SETTINGS} bytes", path.display());
    Ok(text)
}

/// A file's text, or standard input's for `-`. The error says where it is no text.
pub(crate) fn read(path: &Path) -> anyhow::Result<String> {
    read_up_to(u64::MAX, path)
}

fn read_up_to(most: u64, path: &Path) -> anyhow::Result<String> {
    let mut bytes = Vec::new();
    let read = if path.as_os_str() == "-" {
        utf8(io::stdin().lock()).and_then(|input| input.take(most).read_to_end(&mut bytes))
    } else {
        std::fs::File::open(path)
            .and_then(|file| utf8(BufReader::new(file)))
            .and_then(|input| input.take(most).read_to_end(&mut bytes))
    };
    read.with_context(|| path.display().to_string())?;
    String::from_utf8(bytes).map_err(|error| {
        let good = error.as_bytes().get(..error.utf8_error().valid_up_to());
        let line = good.unwrap_or_default().split(|byte| *byte == b'\n').count();
        anyhow::anyhow!("{}, line {line}: neither UTF-8 nor UTF-16", path.display())
    })
}

/// What a text has, as UTF-8 and without a mark. That UTF-8 is valid is not checked.
pub(crate) fn utf8<'a>(mut input: impl BufRead + 'a) -> io::Result<Box<dyn BufRead + 'a>> {
    let mut head = [0; 4];
    let mut length = 0;
    while length < head.len() {
        match input.read(head.get_mut(length..).unwrap_or_default()) {
            Ok(0) => break,
            Ok(count) => length += count,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    let head = head.get(..length).unwrap_or_default();
    let after = |mark: usize| Cursor::new(head.get(mark..).unwrap_or_default().to_owned());
    // Without a mark, what begins with two ASCII characters tells by its zeros.
    let text: Box<dyn BufRead + 'a> = match head {
        [0xEF, 0xBB, 0xBF, ..] => Box::new(after(3).chain(input)),
        [0xFF, 0xFE, ..] => Box::new(utf16(after(2).chain(input), u16::from_le_bytes)),
        [0xFE, 0xFF, ..] => Box::new(utf16(after(2).chain(input), u16::from_be_bytes)),
        [1..=255, 0, 1..=255, 0] => Box::new(utf16(after(0).chain(input), u16::from_le_bytes)),
        [0, 1..=255, 0, 1..=255] => Box::new(utf16(after(0).chain(input), u16::from_be_bytes)),
        _ => Box::new(after(0).chain(input)),
    };
    Ok(text)
}

fn utf16<R: Read>(input: R, read_unit: fn([u8; 2]) -> u16) -> BufReader<Utf16<R>> {
    BufReader::new(Utf16 {
        input,
        read_unit,
        byte: None,
        unit: None,
        ready: VecDeque::new(),
    })
}

/// Reads UTF-16 as UTF-8.
struct Utf16<R> {
    input: R,
    read_unit: fn([u8; 2]) -> u16,
    /// Bytes and units that wait for their other half.
    byte: Option<u8>,
    unit: Option<u16>,
    ready: VecDeque<u8>,
}

impl<R: Read> Utf16<R> {
    /// Decodes some more; false at the end.
    fn decode(&mut self) -> io::Result<bool> {
        let mut bytes = [0; 4096];
        let count = self.input.read(&mut bytes)?;
        let half = |what: &str| Err(io::Error::new(ErrorKind::InvalidData, format!("UTF-16 with {what}")));
        if count == 0 {
            return match (self.byte, self.unit) {
                (None, None) => Ok(false),
                _ => half("half a character at the end"),
            };
        }
        let mut units: Vec<u16> = self.unit.take().into_iter().collect();
        for byte in bytes.iter().take(count) {
            match self.byte.take() {
                None => self.byte = Some(*byte),
                Some(first) => units.push((self.read_unit)([first, *byte])),
            }
        }
        self.unit = units.pop_if(|last| (0xD800..0xDC00).contains(last));
        for character in char::decode_utf16(units) {
            let Ok(character) = character else {
                return half("half a character");
            };
            self.ready.extend(character.encode_utf8(&mut [0; 4]).as_bytes());
        }
        Ok(true)
    }
}

impl<R: Read> Read for Utf16<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.ready.is_empty() {
            if !self.decode()? {
                return Ok(0);
            }
        }
        self.ready.read(buffer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_of_settings_has_an_end() {
        let error = read_settings(Path::new("/dev/zero")).unwrap_err();
        assert!(error.to_string().contains("/dev/zero has more than"), "{error:#}");
    }

    fn encoded(text: &str, write: fn(u16) -> [u8; 2]) -> Vec<u8> {
        text.encode_utf16().flat_map(write).collect()
    }

    fn decoded(bytes: &[u8]) -> io::Result<String> {
        // One byte at a time, as a pipe may have it.
        let mut text = String::new();
        utf8(BufReader::with_capacity(1, bytes))?.read_to_string(&mut text)?;
        Ok(text)
    }

    #[test]
    fn every_encoding_reads_the_same() {
        let text = "{\"Name\":\"Käse 🧀\"}\r\n";
        let marked = format!("\u{feff}{text}");
        let of = |text: &str| [encoded(text, u16::to_le_bytes), encoded(text, u16::to_be_bytes)];
        for bytes in [text.as_bytes().to_owned(), marked.as_bytes().to_owned()]
            .into_iter()
            .chain(of(text))
            .chain(of(&marked))
        {
            assert_eq!(decoded(&bytes).unwrap(), text, "{bytes:x?}");
        }
        for short in ["", "7", "ab\n"] {
            assert_eq!(decoded(short.as_bytes()).unwrap(), short);
        }
    }

    #[test]
    fn half_a_character_is_said() {
        let whole = encoded("\u{feff}🧀", u16::to_le_bytes);
        for cut in [whole.len() - 1, whole.len() - 2] {
            assert!(
                decoded(&whole[..cut])
                    .unwrap_err()
                    .to_string()
                    .contains("half a character")
            );
        }
    }

    #[test]
    fn what_is_no_text_is_named_with_its_line() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("latin1.txt");
        std::fs::write(&file, b"first\ncaf\xe9\n").unwrap();
        let error = format!("{:#}", read(&file).unwrap_err());
        assert!(error.contains("latin1.txt, line 2"), "{error}");
        let error = format!("{:#}", read(&folder.path().join("nowhere")).unwrap_err());
        assert!(error.contains("nowhere"), "{error}");
    }
}
