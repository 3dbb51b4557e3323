//! Whether a detector works.

use serde::Serialize;

/// How a detector is doing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "state", content = "reason", rename_all = "lowercase")]
#[non_exhaustive]
pub enum DetectorState {
    /// Switched off in the configuration.
    Off,
    /// It has not learned anything yet.
    Starting,
    /// Its last attempt succeeded.
    Working,
    /// Its last attempt failed, for this reason. It goes on trying.
    Failing(String),
}

/// One detector by name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct DetectorStatus {
    /// [`Detector::name`](crate::Detector::name).
    pub name: &'static str,
    /// How it is doing.
    #[serde(flatten)]
    pub state: DetectorState,
}
