//! `herald check-config`: every setting with its value and where that came from, and what is to be said of them.

use super::listen::print_line;
use crate::process::config::{self, Config, Flags};

/// Prints the effective settings.
pub(super) fn run(flags: &Flags) -> anyhow::Result<()> {
    for (setting, value, source) in config::explain(flags)? {
        print_line(format!("{setting:<23}{value:<28}{source}"))?;
    }
    for remark in config::remarks(&Config::load(flags)?) {
        print_line(format!("\n{remark}"))?;
    }
    Ok(())
}
