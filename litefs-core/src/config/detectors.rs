//! The option that says which sources of the role are used.

/// Which sources of the role are used. All of them by default.
///
/// Environment: `LITEFS_DETECTORS`, a comma-separated list of the field names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Detectors {
    /// LiteFS's event stream, `GET /events`: authoritative while connected.
    pub events: bool,
    /// The `.primary` file of the mount.
    pub primary_file: bool,
    /// `GET /info`: says what an absent `.primary` means.
    pub info: bool,
    /// The row that a new primary writes to the tracking table. It is read by `litefs-diesel`.
    pub row: bool,
}

impl Detectors {
    /// Every detector on.
    pub const ALL: Self = Self { events: true, primary_file: true, info: true, row: true };

    /// Every detector off, to switch single ones on. By itself it is refused.
    pub const NONE: Self = Self { events: false, primary_file: false, info: false, row: false };
}

impl Default for Detectors {
    fn default() -> Self {
        Self::ALL
    }
}
