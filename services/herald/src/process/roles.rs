//! Which of Herald's services a process runs.

/// What a process is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    /// All roles in one process.
    Up,
    /// The HTTP entrance for producers.
    Ingest,
    /// Dispatch and deliver, which hand over within the process.
    Worker,
    /// Turns events into deliveries.
    Dispatch,
    /// Deliveries into HTTP requests.
    Deliver,
    /// Serves the management API.
    Manage,
}

impl Role {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Up => "up",
            Self::Ingest => "ingest",
            Self::Worker => "worker",
            Self::Dispatch => "dispatch",
            Self::Deliver => "deliver",
            Self::Manage => "manage",
        }
    }

    pub(crate) fn ingests(self) -> bool {
        matches!(self, Self::Up | Self::Ingest)
    }

    pub(crate) fn dispatches(self) -> bool {
        matches!(self, Self::Up | Self::Worker | Self::Dispatch)
    }

    pub(crate) fn delivers(self) -> bool {
        matches!(self, Self::Up | Self::Worker | Self::Deliver)
    }

    pub(crate) fn manages(self) -> bool {
        matches!(self, Self::Up | Self::Manage)
    }

    /// Whether it publishes to the event queue: events, or copies of dead letters.
    pub(crate) fn publishes(self) -> bool {
        self.ingests() || self.delivers()
    }
}
