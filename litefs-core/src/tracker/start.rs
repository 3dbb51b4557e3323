//! From a configuration to a running tracker.

use std::sync::Arc;

use tokio::time::{Instant, timeout_at};

use super::{DetectorState, Shared, Tracker, tasks};
use crate::detect::{EventsDetector, InfoDetector, PrimaryFileDetector, Sink, http};
use crate::mount::Presence;
use crate::sync::lock;
use crate::{Config, ConfigError, Detector};

/// Why a tracker does not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// LiteFS is required and was not found.
    #[error(
        "LiteFS is required but not found: {mount} holds neither .primary, .lag nor a position of the database, and \
         {info_url} {info}. Start LiteFS before this program (`litefs mount`, or its `exec` section), put the database \
         into the mount directory, or do not require LiteFS"
    )]
    RequireLiteFs {
        /// The directory in which LiteFS's files were looked for.
        mount: String,
        /// The address that was asked.
        info_url: String,
        /// What came of it.
        info: String,
    },
    /// The configuration cannot work.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// There is no tokio runtime to run on, or it is shutting down.
    #[error("a tracker must be started inside a tokio runtime")]
    NoRuntime,
    /// The HTTP client could not be set up.
    #[error("the HTTP client for LiteFS could not be set up: {0}")]
    HttpClient(String),
}

pub(super) async fn start(config: Config, extra: Vec<Box<dyn Detector>>) -> Result<Tracker, StartError> {
    tokio::runtime::Handle::try_current().map_err(|_| StartError::NoRuntime)?;
    let client = http::client(&config).map_err(|error| StartError::HttpClient(error.to_string()))?;
    let deadline = Instant::now() + config.http_timeout();
    // Finding the mount follows links on it, and a hung mount blocks.
    let shared = tokio::task::spawn_blocking(move || Shared::new(config)).await;
    let shared = Arc::new(shared.map_err(|_shutting_down| StartError::NoRuntime)?);
    // From here on, returning early drops the tracker and thereby ends what was started.
    let tracker = Tracker::new(Arc::clone(&shared));

    let built_in = BuiltIn::new(client, &shared.config);
    built_in.first_look(&shared).await;
    if shared.config.require_litefs() && *shared.presence.borrow() == Presence::NeverSeen {
        return Err(not_found(&shared));
    }

    tasks::spawn_all(&shared);
    built_in.spawn(&shared);
    for detector in extra {
        spawn_or_note(&shared, true, detector);
    }
    first_word(&shared, deadline).await;
    Ok(tracker)
}

/// The detectors of this crate.
struct BuiltIn {
    events: EventsDetector,
    primary_file: PrimaryFileDetector,
    info: InfoDetector,
}

impl BuiltIn {
    fn new(client: reqwest::Client, config: &Config) -> Self {
        Self {
            events: EventsDetector::new(client.clone(), config),
            primary_file: PrimaryFileDetector::new(),
            info: InfoDetector::new(client, config),
        }
    }

    /// What can be had by asking once.
    async fn first_look(&self, shared: &Arc<Shared>) {
        let on = shared.config.detectors();
        tasks::look_at_mount(shared).await;
        if on.primary_file {
            self.primary_file.read_once(&sink(shared, self.primary_file.name())).await.ok();
        }
        if on.info {
            self.info.ask_once(&sink(shared, self.info.name())).await;
        }
    }

    fn spawn(self, shared: &Arc<Shared>) {
        let on = shared.config.detectors();
        spawn_or_note(shared, on.events, Box::new(self.events));
        spawn_or_note(shared, on.primary_file, Box::new(self.primary_file));
        spawn_or_note(shared, on.info, Box::new(self.info));
    }
}

fn sink(shared: &Arc<Shared>, name: &'static str) -> Sink {
    Sink::new(Arc::clone(shared), name)
}

fn spawn_or_note(shared: &Arc<Shared>, on: bool, detector: Box<dyn Detector>) {
    let name = detector.name();
    if on {
        lock(&shared.detectors).entry(name).or_insert(DetectorState::Starting);
        tasks::spawn_detector(detector, sink(shared, name));
    } else {
        lock(&shared.detectors).insert(name, DetectorState::Off);
    }
}

/// Where LiteFS is here and `/info` has not settled the role, waits for the event stream to say or fail something.
async fn first_word(shared: &Shared, deadline: Instant) {
    let open = || {
        let starting = lock(&shared.detectors).get(EventsDetector::NAME) == Some(&DetectorState::Starting);
        *shared.presence.borrow() == Presence::Here && !shared.has_authority() && starting
    };
    let settled = async {
        while open() {
            shared.heard.notified().await;
        }
    };
    // At the deadline the role is what it is: unknown, and said so.
    let _ = timeout_at(deadline, settled).await;
}

fn not_found(shared: &Shared) -> StartError {
    let states = lock(&shared.detectors);
    let info = match states.get(InfoDetector::NAME) {
        Some(DetectorState::Failing(reason)) => format!("does not answer ({reason})"),
        Some(DetectorState::Working) => "belongs to another mount".to_owned(),
        _ => "was not asked".to_owned(),
    };
    StartError::RequireLiteFs {
        mount: shared.mount.dir().display().to_string(),
        info_url: format!("{}/info", shared.config.http_url()),
        info,
    }
}
