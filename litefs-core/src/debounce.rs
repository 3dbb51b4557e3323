//! Not believing a dead primary that is named for a moment.

use std::time::Duration;

use tokio::time::Instant;

use crate::{NodeName, Role};

/// Decides when a merged role becomes the published one. Time is given, never asked for.
///
/// While LiteFS tries to reach a dead primary it names it once a second, for 0.1 to 10 ms
/// (`store.go:1374`). So a primary that was lost and is named again has to stay named for `hold`;
/// everything else is published at once.
#[derive(Debug)]
pub(crate) struct Debounce {
    hold: Duration,
    published: Option<Role>,
    lost: Option<NodeName>,
    pending: Option<(Role, Instant)>,
}

impl Debounce {
    pub(crate) const fn new(hold: Duration) -> Self {
        Self { hold, published: None, lost: None, pending: None }
    }

    /// Takes in the role as merged at `now`. Answers what to publish, if anything.
    pub(crate) fn offer(&mut self, role: Role, now: Instant) -> Option<Role> {
        if self.published.as_ref() == Some(&role) {
            self.pending = None;
            return None;
        }
        if !self.must_hold(&role) {
            return Some(self.publish(role));
        }
        match &self.pending {
            Some((pending, _)) if *pending == role => self.tick(now),
            _ => {
                self.pending = Some((role, now + self.hold));
                None
            }
        }
    }

    /// When [`tick`](Self::tick) has something to do.
    pub(crate) fn due(&self) -> Option<Instant> {
        self.pending.as_ref().map(|(_, due)| *due)
    }

    /// Publishes what has been held for long enough.
    pub(crate) fn tick(&mut self, now: Instant) -> Option<Role> {
        let (role, _) = self.pending.take_if(|(_, due)| *due <= now)?;
        Some(self.publish(role))
    }

    fn must_hold(&self, role: &Role) -> bool {
        self.published == Some(Role::Unknown)
            && role.primary().is_some()
            && role.primary() == self.lost.as_ref()
    }

    fn publish(&mut self, role: Role) -> Role {
        self.pending = None;
        self.lost = match (&role, self.published.take()) {
            (Role::Unknown, Some(Role::Replica { primary })) => Some(primary),
            (Role::Unknown, _) => self.lost.take(),
            _ => None,
        };
        self.published = Some(role.clone());
        role
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOLD: Duration = Duration::from_millis(20);
    const MS: Duration = Duration::from_millis(1);

    fn replica(name: &str) -> Role {
        Role::Replica { primary: name.parse().unwrap() }
    }

    /// A tracker that has lost the primary `a`.
    fn lost(now: Instant) -> Debounce {
        let mut debounce = Debounce::new(HOLD);
        debounce.offer(replica("a"), now);
        debounce.offer(Role::Unknown, now);
        debounce
    }

    #[test]
    fn the_first_role_is_published_at_once() {
        let now = Instant::now();
        for role in [Role::Standalone, Role::Primary, Role::Unknown, replica("a")] {
            assert_eq!(Debounce::new(HOLD).offer(role.clone(), now), Some(role));
        }
    }

    #[test]
    fn a_lost_primary_named_for_a_moment_is_not_published() {
        let now = Instant::now();
        let mut debounce = lost(now);
        for second in 1..5 {
            let now = now + second * 1000 * MS;
            assert_eq!(debounce.offer(replica("a"), now), None);
            assert_eq!(debounce.due(), Some(now + HOLD));
            assert_eq!(debounce.tick(now + 9 * MS), None);
            assert_eq!(debounce.offer(Role::Unknown, now + 10 * MS), None);
            assert_eq!(debounce.due(), None);
        }
    }

    #[test]
    fn a_lost_primary_that_stays_named_is_published_when_the_hold_is_over() {
        let now = Instant::now();
        let mut debounce = lost(now);
        assert_eq!(debounce.offer(replica("a"), now), None);
        // Hearing it again does not start the hold again.
        assert_eq!(debounce.offer(replica("a"), now + 15 * MS), None);
        assert_eq!(debounce.tick(now + 19 * MS), None);
        assert_eq!(debounce.tick(now + 20 * MS), Some(replica("a")));
        assert_eq!(debounce.due(), None);
    }

    #[test]
    fn another_name_and_becoming_primary_are_published_at_once() {
        let now = Instant::now();
        assert_eq!(lost(now).offer(replica("b"), now), Some(replica("b")));
        assert_eq!(lost(now).offer(Role::Primary, now), Some(Role::Primary));
        let mut debounce = lost(now);
        debounce.offer(replica("a"), now);
        assert_eq!(debounce.offer(Role::Primary, now), Some(Role::Primary));
        assert_eq!(debounce.due(), None);
        assert_eq!(debounce.offer(replica("a"), now), Some(replica("a")));
    }

    #[test]
    fn the_loss_of_any_role_is_published_at_once() {
        let now = Instant::now();
        for role in [Role::Primary, replica("a")] {
            let mut debounce = Debounce::new(HOLD);
            debounce.offer(role, now);
            assert_eq!(debounce.offer(Role::Unknown, now), Some(Role::Unknown));
        }
    }
}
