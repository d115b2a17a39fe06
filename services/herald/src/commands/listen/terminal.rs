//! Lines on stdout, in colour where somebody looks at them.

use anyhow::Context;
use std::fmt::{self, Display};
use std::io::{ErrorKind, IsTerminal, Write};

/// ANSI colours, in the sense that they have here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tone {
    Good,
    Bad,
    Notable,
    Quiet,
    Strong,
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct Terminal {
    colour: bool,
}

impl Terminal {
    /// Colours only for people, and not for those who asked for none (<https://no-color.org>).
    pub(crate) fn stdout() -> Self {
        let unwanted = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        Self {
            colour: std::io::stdout().is_terminal() && !unwanted,
        }
    }

    /// The text in that tone.
    pub(crate) fn tint<T: Display>(self, tone: Tone, text: T) -> Tinted<T> {
        Tinted {
            tone: self.colour.then_some(tone),
            text,
        }
    }
}

/// Writes a line to stdout. False when nobody reads any more, which `println` would panic at.
pub(crate) fn print_line(line: impl Display) -> anyhow::Result<bool> {
    let mut out = std::io::stdout().lock();
    match writeln!(out, "{line}").and_then(|()| out.flush()) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(false),
        Err(error) => Err(error).context("cannot write to stdout"),
    }
}

/// A text with its tone.
#[derive(Debug)]
pub(crate) struct Tinted<T> {
    tone: Option<Tone>,
    text: T,
}

impl<T: Display> Display for Tinted<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(tone) = self.tone else {
            return self.text.fmt(f);
        };
        let code = match tone {
            Tone::Good => 32,
            Tone::Bad => 31,
            Tone::Notable => 33,
            Tone::Quiet => 2,
            Tone::Strong => 1,
        };
        write!(f, "\x1b[{code}m")?;
        self.text.fmt(f)?;
        f.write_str("\x1b[0m")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colour_is_around_the_padded_text_or_nowhere() {
        assert_eq!(
            format!("{:>4}|", Terminal { colour: true }.tint(Tone::Good, "ok")),
            "\x1b[32m  ok\x1b[0m|"
        );
        assert_eq!(
            format!("{:>4}|", Terminal { colour: false }.tint(Tone::Good, "ok")),
            "  ok|"
        );
    }
}
