//! The command line.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Parser, ValueEnum};
use litefs_examples::Problem;

use super::rounds::Effort;
use super::server::Setup;

/// Measures the cost of reads and writes through this library, as ratios to the same work without
/// it.
///
/// On real LiteFS: `bench bare-server --database URL --listen ADDR` beside an application (or
/// `bench litefs-server --database URL`) on the primary, then `bench all --replica URL --primary
/// ADDR` on a replica.
#[derive(Debug, Parser)]
#[command(name = "bench")]
pub struct Arguments {
    /// What to measure.
    #[arg(value_enum, default_value_t = What::All)]
    pub(super) what: What,
    /// Run every part briefly; the figures are not meaningful.
    #[arg(long)]
    quick: bool,
    /// Draw `group`'s throughput and latency over the number of callers into this SVG file.
    #[arg(long, value_name = "FILE")]
    pub(super) plot: Option<PathBuf>,
    /// Run `reads`, `forward`, `group` and `bulk`, or all of these, on this database of a real
    /// LiteFS replica instead of the embedded cluster. They write to a table `items`.
    #[arg(long, value_name = "URL", requires = "primary")]
    replica: Option<String>,
    /// The address of `bare-server` on the primary.
    #[arg(long, value_name = "ADDR", requires = "replica")]
    primary: Option<SocketAddr>,
    #[command(flatten)]
    pub(super) setup: Setup,
}

/// A replica on a real LiteFS mount, and the bare servers beside its primary.
#[derive(Debug, Clone)]
pub(super) struct Mount {
    pub(super) replica: String,
    pub(super) primary: SocketAddr,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum What {
    /// Reads on a replica.
    Reads,
    /// Single-row inserts on a replica, one at a time.
    Forward,
    /// Concurrent inserts, on a replica and on the primary.
    Group,
    /// Many rows in one call.
    Bulk,
    /// Transactions over a slow link.
    Transactions,
    /// Many replicas, many connections.
    Scale,
    /// All of these.
    All,
    /// A primary with the library's server. The benches start it themselves.
    LitefsServer,
    /// A primary with the bare servers.
    BareServer,
}

impl What {
    fn runs_on_mounts(self) -> bool {
        matches!(self, Self::Reads | Self::Forward | Self::Group | Self::Bulk)
    }
}

impl Arguments {
    /// The amount of measuring.
    pub(super) fn effort(&self) -> Effort {
        Effort { quick: self.quick }
    }

    /// The real nodes to measure on; `None` for the embedded cluster.
    pub(super) fn mount(&self) -> Option<Mount> {
        Some(Mount { replica: self.replica.clone()?, primary: self.primary? })
    }

    /// Whether a part was requested.
    pub(super) fn wants(&self, part: What) -> bool {
        self.what == part
            || (self.what == What::All && (self.replica.is_none() || part.runs_on_mounts()))
    }

    /// Checks that the arguments are consistent.
    pub(super) fn check(&self) -> Result<(), Problem> {
        if self.replica.is_none() || self.what == What::All || self.what.runs_on_mounts() {
            return Ok(());
        }
        Err("this part controls links or inspects the primary's process: it runs on the \
             embedded cluster only, without --replica"
            .into())
    }
}
