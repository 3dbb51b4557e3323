//! How often skipped events are logged: a stream of nonsense must not fill the disk with warnings.

use std::time::Duration;

use tokio::time::Instant;

/// The shortest time between two warnings.
const PAUSE: Duration = Duration::from_secs(10);

/// Counts skipped events from one warning to the next.
#[derive(Debug, Default)]
pub(super) struct Skipped {
    warned: Option<Instant>,
    count: u64,
}

impl Skipped {
    /// Counts an event. If it is time for a warning, returns how many were skipped since the last
    /// one.
    pub(super) fn add(&mut self, now: Instant) -> Option<u64> {
        self.count += 1;
        if self.warned.is_some_and(|warned| now < warned + PAUSE) {
            return None;
        }
        self.warned = Some(now);
        Some(std::mem::take(&mut self.count))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_is_told_at_once_and_the_others_with_their_number() {
        let (mut skipped, start) = (Skipped::default(), Instant::now());
        let told: Vec<_> = [0, 0, 1, 9_999, 10_000, 10_001, 30_000, 30_000]
            .map(|at| skipped.add(start + Duration::from_millis(at)))
            .into();
        assert_eq!(told, [Some(1), None, None, None, Some(4), None, Some(2), None]);
    }
}
