//! The sources of the role: [`Detector`] and the built-in ones.

mod events;
pub(crate) mod http;
mod info;
mod primary_file;
mod sink;

use futures::future::BoxFuture;
use tokio_util::sync::CancellationToken;

pub(crate) use events::EventsDetector;
pub use events::{Event, EventError, parse_event};
pub(crate) use info::InfoDetector;
pub use info::{Info, InfoError, parse_info};
pub(crate) use primary_file::PrimaryFileDetector;
pub use sink::Sink;

/// A source of knowledge about the role. Several run side by side; what they report is merged in
/// one place.
pub trait Detector: Send + 'static {
    /// Its name in the status and the log.
    fn name(&self) -> &'static str;

    /// Watches until `stop` is cancelled and reports to `sink`. After a failure it retries by
    /// itself, with a pause that grows. It must not block the runtime.
    fn run(self: Box<Self>, sink: Sink, stop: CancellationToken) -> BoxFuture<'static, ()>;
}
