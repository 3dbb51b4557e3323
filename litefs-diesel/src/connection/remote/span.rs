//! The tracing span of a forwarded statement.

use std::time::Instant;

use diesel::result::QueryResult;
use litefs_core::Role;
use tracing::field::Empty;

use crate::node::Node;

/// One span per statement that leaves this node. It ends with the outcome.
pub(super) struct ForwardSpan {
    span: tracing::Span,
    started: Instant,
}

impl ForwardSpan {
    pub(super) fn start(node: &Node, access: &'static str) -> Self {
        let database = node.options.config.database_name();
        let span = tracing::info_span!(
            "litefs.forward",
            db = database,
            access,
            primary = Empty,
            outcome = Empty,
            reason = Empty,
            duration_us = Empty
        );
        if let Role::Replica { primary } = node.tracker.role() {
            span.record("primary", tracing::field::display(primary));
        }
        Self { span, started: Instant::now() }
    }

    pub(super) fn end<T>(self, result: &QueryResult<T>) {
        if self.span.is_disabled() {
            return;
        }
        // Never zero: zero stands for a duration that was not measured.
        let micros = self.started.elapsed().as_micros().max(1);
        self.span.record("duration_us", u64::try_from(micros).unwrap_or(u64::MAX));
        match result {
            Ok(_) => self.span.record("outcome", "ok"),
            Err(error) => self
                .span
                .record("outcome", "error")
                .record("reason", tracing::field::display(error)),
        };
        // Subscribers that look at events only see what was recorded, too.
        self.span.in_scope(|| tracing::debug!("forwarded"));
    }
}
