//! What ingest counts.

use herald_domain::catalogue::EventType;
use prometheus::{Error, Histogram, HistogramOpts, IntCounterVec, Opts, Registry};
use std::time::Duration;

/// Why a request was refused.
#[derive(Debug, Clone, Copy)]
pub(crate) enum RequestRefusal {
    Unauthorized,
    Forbidden,
    MediaType,
    TooLarge,
    Invalid,
    Unavailable,
    Overloaded,
}

impl RequestRefusal {
    const ALL: [Self; 7] = [
        Self::Unauthorized,
        Self::Forbidden,
        Self::MediaType,
        Self::TooLarge,
        Self::Invalid,
        Self::Unavailable,
        Self::Overloaded,
    ];

    pub(crate) const fn label(self) -> &'static str {
        match self {
            Self::Unauthorized => "unauthorized",
            Self::Forbidden => "forbidden",
            Self::MediaType => "media_type",
            Self::TooLarge => "too_large",
            Self::Invalid => "invalid",
            Self::Unavailable => "unavailable",
            Self::Overloaded => "overloaded",
        }
    }
}

#[derive(Debug, Clone)]
pub(crate) struct Metrics {
    accepted: IntCounterVec,
    refused: IntCounterVec,
    seconds: Histogram,
    confirm_seconds: Histogram,
}

impl Metrics {
    pub(crate) fn register(registry: &Registry) -> Result<Self, Error> {
        let accepted = IntCounterVec::new(
            Opts::new("herald_events_accepted_total", "Events answered with 202, by type."),
            &["type"],
        )?;
        let refused = IntCounterVec::new(
            Opts::new(
                "herald_publish_requests_refused_total",
                "Requests to publish that were refused whole, by reason.",
            ),
            &["reason"],
        )?;
        // A sync to disk takes from a tenth of a millisecond to some tens; a second is trouble.
        let buckets = vec![
            0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5,
        ];
        let seconds = Histogram::with_opts(
            HistogramOpts::new(
                "herald_accept_duration_seconds",
                "From a request to publish to its 202.",
            )
            .buckets(buckets.clone()),
        )?;
        let confirm_seconds = Histogram::with_opts(
            HistogramOpts::new(
                "herald_publish_confirm_duration_seconds",
                "From handing a message to the event queue to the confirm that it is durable.",
            )
            .buckets(buckets),
        )?;
        for kind in EventType::labels() {
            accepted.with_label_values(&[kind]);
        }
        for refusal in RequestRefusal::ALL {
            refused.with_label_values(&[refusal.label()]);
        }
        registry.register(Box::new(accepted.clone()))?;
        registry.register(Box::new(refused.clone()))?;
        registry.register(Box::new(seconds.clone()))?;
        registry.register(Box::new(confirm_seconds.clone()))?;
        Ok(Self {
            accepted,
            refused,
            seconds,
            confirm_seconds,
        })
    }

    pub(crate) fn accepted(&self, kinds: &[EventType], took: Duration) {
        for kind in kinds {
            self.accepted.with_label_values(&[kind.label()]).inc();
        }
        self.seconds.observe(took.as_secs_f64());
    }

    pub(crate) fn confirmed(&self, took: Duration) {
        self.confirm_seconds.observe(took.as_secs_f64());
    }

    pub(crate) fn refused(&self, refusal: RequestRefusal) {
        self.refused.with_label_values(&[refusal.label()]).inc();
    }
}
