//! This node's name. LiteFS reports it from the node's first term as primary on.

use litefs_core::{NodeName, Tracker};

/// LiteFS's name for this node. Asks LiteFS if it is not known yet.
pub(crate) async fn own_name(tracker: &Tracker) -> NodeName {
    if tracker.own_name().is_none() {
        tracker.confirm().await;
    }
    name_or_host(tracker)
}

/// LiteFS's name for this node if it is known, else the machine's host name.
pub(crate) fn name_or_host(tracker: &Tracker) -> NodeName {
    tracker.own_name().unwrap_or_else(host_name)
}

/// The names under which this node's terms may be recorded, LiteFS's own first.
pub(crate) fn own_names(tracker: &Tracker) -> Vec<NodeName> {
    tracker.own_name().into_iter().chain([host_name()]).collect()
}

fn host_name() -> NodeName {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    host.trim().parse().unwrap_or_else(|_| "localhost".parse().expect("localhost is a host name"))
}
