//! The route that the application has forced, with `on_primary` or `on_local`.

use crate::router::Route;

/// The route that the application has forced, if any.
#[derive(Debug, Default)]
pub(super) struct RouteOverride(Option<Route>);

impl RouteOverride {
    /// Whether a route is forced.
    #[inline]
    pub(super) fn is_set(&self) -> bool {
        self.0.is_some()
    }

    /// Whether every statement is to run on this node's file.
    pub(super) fn is_local(&self) -> bool {
        self.0 == Some(Route::Local)
    }

    pub(super) fn route(&self) -> Option<&Route> {
        self.0.as_ref()
    }

    /// Forces a route, or none, and returns what was in force before.
    pub(super) fn replace(&mut self, route: Option<Route>) -> Option<Route> {
        std::mem::replace(&mut self.0, route)
    }
}
