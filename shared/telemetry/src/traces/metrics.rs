//! What becomes of spans.

use prometheus::{Error, IntCounter, IntCounterVec, Opts, Registry};

/// Why a span was not exported.
#[derive(Debug, Clone, Copy)]
pub(super) enum Dropped {
    /// More came than the collector took.
    QueueFull,
    /// The collector could not be reached, or refused it.
    ExportFailed,
}

impl Dropped {
    const ALL: [Self; 2] = [Self::QueueFull, Self::ExportFailed];

    const fn label(self) -> &'static str {
        match self {
            Self::QueueFull => "queue_full",
            Self::ExportFailed => "export_failed",
        }
    }
}

#[derive(Debug, Clone)]
pub(super) struct Metrics {
    exported: IntCounter,
    dropped: IntCounterVec,
}

impl Metrics {
    pub(super) fn register(registry: &Registry) -> Result<Self, Error> {
        let exported = IntCounter::new("herald_spans_exported_total", "Spans that the trace collector took.")?;
        let dropped = IntCounterVec::new(
            Opts::new(
                "herald_spans_dropped_total",
                "Spans that never got to the trace collector, by reason; deliveries do not wait for it.",
            ),
            &["reason"],
        )?;
        for reason in Dropped::ALL {
            dropped.with_label_values(&[reason.label()]);
        }
        registry.register(Box::new(exported.clone()))?;
        registry.register(Box::new(dropped.clone()))?;
        Ok(Self { exported, dropped })
    }

    pub(super) fn exported(&self, spans: usize) {
        self.exported.inc_by(count(spans));
    }

    pub(super) fn dropped(&self, why: Dropped, spans: usize) {
        self.dropped.with_label_values(&[why.label()]).inc_by(count(spans));
    }

    #[cfg(test)]
    pub(super) fn dropped_so_far(&self, why: Dropped) -> u64 {
        self.dropped.with_label_values(&[why.label()]).get()
    }
}

fn count(spans: usize) -> u64 {
    u64::try_from(spans).unwrap_or(u64::MAX)
}
