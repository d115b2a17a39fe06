//! What holds a lane back.

/// What holds a lane back, for metrics; the first that does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum LaneState {
    /// Its breaker is open.
    BreakerOpen,
    /// An answer asked for a pause.
    Paused,
    /// Its rate.
    RateLimited,
    /// Its limit in flight is below `MaxInFlight`.
    Reduced,
    /// It has as many in flight as it may, and more wait: the subscriber answers too slowly.
    Full,
    /// Nothing of its own: what waits waits for this process.
    Free,
}

impl LaneState {
    /// Every state.
    pub const ALL: [Self; 6] = [
        Self::BreakerOpen,
        Self::Paused,
        Self::RateLimited,
        Self::Reduced,
        Self::Full,
        Self::Free,
    ];

    /// The name in metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::BreakerOpen => "breaker_open",
            Self::Paused => "paused",
            Self::RateLimited => "rate_limited",
            Self::Reduced => "reduced",
            Self::Full => "full",
            Self::Free => "free",
        }
    }
}
