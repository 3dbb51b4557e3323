//! Settings that the nodes of all benches share.

use litefs_core::Detectors;

/// The detectors that a node on FUSE has. FUSE does not notify of LiteFS's own changes. In the
/// directory of the embedded LiteFS the kernel would notify of each write to the database; the cost
/// of these notifications is not part of forwarding.
pub(super) const AS_ON_FUSE: Detectors = Detectors { primary_file: false, ..Detectors::ALL };

/// The database of all benches.
pub(super) const DATABASE: &str = "bench.db";
