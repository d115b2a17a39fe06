//! Which signatures messages have.

/// Which signatures the messages of a subscription have; its `Signatures`. The symmetric one is always there: it is
/// what every library of Standard Webhooks verifies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Signatures {
    /// `v1`: HMAC-SHA256, with the secret.
    #[default]
    Symmetric,
    /// `v1` and `v1a`: Ed25519 too, which the public key verifies.
    Both,
}

impl Signatures {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::Symmetric, Self::Both];

    /// The names in `Signatures`.
    pub const fn names(self) -> &'static [&'static str] {
        match self {
            Self::Symmetric => &["v1"],
            Self::Both => &["v1", "v1a"],
        }
    }

    /// The number by which the ledger keeps it; never reused.
    pub const fn code(self) -> i16 {
        match self {
            Self::Symmetric => 1,
            Self::Both => 2,
        }
    }

    /// Those of that number.
    pub fn coded(code: i16) -> Option<Self> {
        Self::ALL.into_iter().find(|signatures| signatures.code() == code)
    }
}
