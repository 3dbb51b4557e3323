//! From a configuration to a running tracker.

use std::sync::Arc;

use tokio::time::{Instant, timeout_at};

use super::{DetectorState, Tracker, TrackerState, tasks};
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
        "LiteFS is required but not found: {mount} holds neither .primary, .lag nor a position of \
         the database, and {info_url} {info}. Start LiteFS before this program (`litefs mount`, \
         or its `exec` section), put the database into the mount directory, or do not require \
         LiteFS"
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

impl Tracker {
    /// Starts tracking. Returns when the first role is known, after at most [`http_timeout`] plus
    /// the time that checking the mount takes.
    ///
    /// [`http_timeout`]: crate::ConfigBuilder::http_timeout
    ///
    /// # Errors
    ///
    /// [`StartError`] if there is no tokio runtime, or no LiteFS where the configuration requires
    /// one.
    pub async fn start(config: Config) -> Result<Self, StartError> {
        Self::start_with(config, Vec::new()).await
    }

    /// Like [`start`](Self::start), with further detectors beside the built-in ones.
    ///
    /// # Errors
    ///
    /// As [`start`](Self::start).
    pub async fn start_with(
        config: Config,
        extra: Vec<Box<dyn Detector>>,
    ) -> Result<Self, StartError> {
        tokio::runtime::Handle::try_current().map_err(|_| StartError::NoRuntime)?;
        let client =
            http::client(&config).map_err(|error| StartError::HttpClient(error.to_string()))?;
        let deadline = Instant::now() + config.http_timeout();
        // Finding the mount follows links on it, and a hung mount blocks.
        let state = tokio::task::spawn_blocking(move || TrackerState::new(config)).await;
        let state = Arc::new(state.map_err(|_shutting_down| StartError::NoRuntime)?);
        // From here on, returning early drops the tracker and thereby ends what was started.
        let tracker = Tracker::new(Arc::clone(&state));

        let built_in = BuiltIn::new(client, &state.config);
        built_in.ask_once(&state).await;
        if state.config.require_litefs() && *state.presence.borrow() == Presence::NeverSeen {
            return Err(not_found(&state));
        }

        tasks::spawn_all(&state);
        built_in.spawn(&state);
        for detector in extra {
            spawn_or_note(&state, true, detector);
        }
        wait_for_first_report(&state, deadline).await;
        Ok(tracker)
    }
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
    async fn ask_once(&self, state: &Arc<TrackerState>) {
        let on = state.config.detectors();
        tasks::probe_mount(state).await;
        if on.primary_file {
            self.primary_file.read_once(&sink(state, self.primary_file.name())).await.ok();
        }
        if on.info {
            self.info.ask_once(&sink(state, self.info.name())).await;
        }
    }

    fn spawn(self, state: &Arc<TrackerState>) {
        let on = state.config.detectors();
        spawn_or_note(state, on.events, Box::new(self.events));
        spawn_or_note(state, on.primary_file, Box::new(self.primary_file));
        spawn_or_note(state, on.info, Box::new(self.info));
    }
}

fn sink(state: &Arc<TrackerState>, name: &'static str) -> Sink {
    Sink::new(Arc::clone(state), name)
}

fn spawn_or_note(state: &Arc<TrackerState>, on: bool, detector: Box<dyn Detector>) {
    let name = detector.name();
    if on {
        lock(&state.detectors).entry(name).or_insert(DetectorState::Starting);
        tasks::spawn_detector(detector, sink(state, name));
    } else {
        lock(&state.detectors).insert(name, DetectorState::Off);
    }
}

/// If LiteFS is here and `/info` has not decided the role, waits until the event stream has
/// reported something or has failed.
async fn wait_for_first_report(state: &TrackerState, deadline: Instant) {
    let open = || {
        let starting =
            lock(&state.detectors).get(EventsDetector::NAME) == Some(&DetectorState::Starting);
        *state.presence.borrow() == Presence::Here && !state.has_authority() && starting
    };
    let reported = async {
        while open() {
            state.reported.notified().await;
        }
    };
    // At the deadline the role stays unknown.
    let _ = timeout_at(deadline, reported).await;
}

fn not_found(state: &TrackerState) -> StartError {
    let states = lock(&state.detectors);
    let info = match states.get(InfoDetector::NAME) {
        Some(DetectorState::Failing(reason)) => format!("does not answer ({reason})"),
        Some(DetectorState::Working) => "belongs to another mount".to_owned(),
        _ => "was not asked".to_owned(),
    };
    StartError::RequireLiteFs {
        mount: state.mount.dir().display().to_string(),
        info_url: format!("{}/info", state.config.http_url()),
        info,
    }
}
