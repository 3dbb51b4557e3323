use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use diesel::connection::{Instrumentation, InstrumentationEvent};

/// Whether the user's instrumentation hears what happens on the local connection. It hears the user's queries, once,
/// and none of ours.
#[derive(Debug, Clone, Default)]
pub(super) struct Silence(Arc<AtomicBool>);

impl Silence {
    /// Until the guard drops, nothing is heard.
    pub(super) fn keep(&self) -> Silent {
        Silent { before: self.0.swap(true, Ordering::Relaxed), silence: self.clone() }
    }

    pub(super) fn gate(&self, user: impl Instrumentation) -> Gate {
        Gate { user: Box::new(user), silence: self.clone() }
    }
}

/// Ends the silence, unless an outer one goes on.
pub(super) struct Silent {
    silence: Silence,
    before: bool,
}

impl Drop for Silent {
    fn drop(&mut self) {
        self.silence.0.store(self.before, Ordering::Relaxed);
    }
}

/// The user's instrumentation as the local connection holds it.
pub(super) struct Gate {
    user: Box<dyn Instrumentation>,
    silence: Silence,
}

impl Instrumentation for Gate {
    fn on_connection_event(&mut self, event: InstrumentationEvent<'_>) {
        if !self.silence.0.load(Ordering::Relaxed) {
            self.user.on_connection_event(event);
        }
    }
}
