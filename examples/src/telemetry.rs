//! What a node's process does with the library's spans and logs.

use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer};

use crate::app::CountTrips;

/// Counts what leaves the node; prints errors, or what `RUST_LOG` asks for.
pub(crate) fn watch() {
    let wanted = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("error"));
    let printed = tracing_subscriber::fmt::layer().with_writer(std::io::stderr).with_filter(wanted);
    tracing_subscriber::registry().with(CountTrips).with(printed).init();
}
