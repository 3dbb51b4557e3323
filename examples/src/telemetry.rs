//! The subscriber of a node's process for the library's spans and logs.

use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer};

use crate::app::CountTrips;

/// Counts forwarded calls; prints errors, or the events that `RUST_LOG` selects.
pub(crate) fn watch() {
    let wanted = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("error"));
    let printed = tracing_subscriber::fmt::layer().with_writer(std::io::stderr).with_filter(wanted);
    tracing_subscriber::registry().with(CountTrips).with(printed).init();
}
