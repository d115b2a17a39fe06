//! `herald send`: publishes events from a file or standard input.

mod input;
mod producer;
mod trigger;

use crate::commands::listen::print_line;
use anyhow::Context;
use herald_domain::id::EventId;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use input::{Input, Item};
use producer::Producer;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
pub(crate) use trigger::{Trigger, trigger};

/// The options of `herald send`.
#[derive(Debug, clap::Args)]
pub(crate) struct Send {
    /// A file of one event, an array, or NDJSON; - for standard input
    file: PathBuf,
    #[command(flatten)]
    target: Target,
    #[arg(
        long,
        value_name = "URL",
        help = "Publish to RabbitMQ instead: amqp://user:password@host/vhost",
        conflicts_with_all = ["url", "key"]
    )]
    amqp: Option<String>,
    /// Whom to trust, beside the system's authorities, for amqps:// (PEM)
    #[arg(long, value_name = "FILE", requires = "amqp")]
    amqp_ca: Option<PathBuf>,
    /// How many events go in one request, or wait for their confirms together
    #[arg(long, value_name = "N", default_value_t = 500, value_parser = clap::value_parser!(u16).range(1..=10_000))]
    batch: u16,
    /// Write the accepted Ids to a file, one a line, as herald audit --ids reads them
    #[arg(long, value_name = "FILE")]
    ids: Option<PathBuf>,
}

/// Which Herald to publish to, and as whom.
#[derive(Debug, clap::Args)]
struct Target {
    /// Where Herald is
    #[arg(long, env = "HERALD_URL", default_value = "http://127.0.0.1:8080")]
    url: String,
    #[arg(
        long,
        help = "A producer's key; without it HERALD_OPERATOR_KEY is taken",
        env = "HERALD_KEY",
        hide_env_values = true
    )]
    key: Option<String>,
}

/// Publishes everything, or says what was accepted and what was not.
pub(crate) async fn run(options: Send) -> anyhow::Result<()> {
    let producer = producer(&options)?;
    let mut input = Input::open(&options.file)?;
    let mut tally = Tally::new(options.ids.as_deref())?;
    let mut progress = Progress::default();
    loop {
        let batch = match input.batch(options.batch.into()).await {
            Ok(batch) => batch,
            Err(error) => return Err(tally.interrupted(&crate::causes::of(&error), input.first_pending())),
        };
        let Some(last) = batch.last() else { break };
        match producer.publish(&batch, |reason| progress.note(reason)).await {
            Ok(ids) => tally.add(&ids)?,
            Err(reason) => return Err(tally.interrupted(&reason, batch.first())),
        }
        progress.advance(last.end, input.bytes, tally.count);
    }
    progress.finish();
    match tally.first {
        Some(id) if tally.count == 1 => print_line(id)?,
        _ => print_line(format!("accepted {} events", tally.count))?,
    };
    Ok(())
}

fn producer(options: &Send) -> anyhow::Result<Producer> {
    match &options.amqp {
        Some(url) => Producer::amqp(url, options.amqp_ca.as_deref()),
        None => options.target.producer(),
    }
}

impl Target {
    fn producer(&self) -> anyhow::Result<Producer> {
        let fallback = std::env::var("HERALD_OPERATOR_KEY").ok();
        // A shell makes an unset variable an empty text, and a file's line end a part of it.
        let key = [self.key.as_deref(), fallback.as_deref()]
            .into_iter()
            .flatten()
            .map(str::trim)
            .find(|key| !key.is_empty());
        let key = key.context("there is no key: give one with --key, HERALD_KEY or HERALD_OPERATOR_KEY")?;
        Producer::http(&self.url, key)
    }
}

/// The number of accepted events, the first of them, and the file that their `Id`s go to.
struct Tally {
    count: usize,
    first: Option<EventId>,
    ids: Option<BufWriter<File>>,
}

impl Tally {
    fn new(ids: Option<&Path>) -> anyhow::Result<Self> {
        let open = |path: &Path| {
            let file = File::create(path).with_context(|| format!("cannot write --ids {}", path.display()))?;
            anyhow::Ok(BufWriter::new(file))
        };
        Ok(Self {
            count: 0,
            first: None,
            ids: ids.map(open).transpose()?,
        })
    }

    fn add(&mut self, ids: &[EventId]) -> anyhow::Result<()> {
        self.count += ids.len();
        self.first = self.first.or_else(|| ids.first().copied());
        if let Some(file) = &mut self.ids {
            for id in ids {
                writeln!(file, "{id}").context("cannot write the file of --ids")?;
            }
            // After each batch, so that the file is right however this ends.
            file.flush().context("cannot write the file of --ids")?;
        }
        Ok(())
    }

    fn interrupted(&self, reason: &str, unsent: Option<&Item>) -> anyhow::Error {
        // Of a batch without an answer nobody knows; whoever sends it again with the same Ids need not.
        let first = unsent.map(|item| {
            let id = item.id.map(|id| format!(", Id {id}")).unwrap_or_default();
            format!("; the first not known to be accepted is on line {}{id}", item.line)
        });
        let first = first.unwrap_or_default();
        anyhow::anyhow!("{reason}\naccepted {} events{first}", self.count)
    }
}

/// A bar on stderr, from the second batch on, where stderr is a terminal.
#[derive(Default)]
struct Progress {
    batches: u64,
    bar: Option<ProgressBar>,
}

impl Progress {
    fn advance(&mut self, position: u64, length: Option<u64>, events: usize) {
        self.batches += 1;
        if self.batches > 1 {
            let bar = self.bar.get_or_insert_with(|| bar(length));
            bar.set_position(position);
            bar.set_message(format!("{events} events"));
        }
    }

    fn note(&self, reason: &str) {
        let line = format!("herald: {reason}");
        match self.bar.as_ref().filter(|bar| !bar.is_hidden()) {
            Some(bar) => bar.println(line),
            None => herald_telemetry::logs::say(&line),
        }
    }

    fn finish(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

/// By bytes: how many events there are is known only at the end.
fn bar(length: Option<u64>) -> ProgressBar {
    let bar = ProgressBar::with_draw_target(length, ProgressDrawTarget::stderr());
    let template = match length {
        Some(_) => "{wide_bar} {percent:>3}%  {msg}  {elapsed_precise}",
        None => "{spinner} {bytes}  {msg}  {elapsed_precise}",
    };
    bar.with_style(ProgressStyle::with_template(template).unwrap_or_else(|_invalid| ProgressStyle::default_bar()))
}
