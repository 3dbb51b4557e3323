//! Pauses between attempts.

use std::time::Duration;

/// Pauses that double from `min` to `max`, each shortened by up to half at random, so that the clients of a LiteFS that
/// comes back do not come back together.
#[derive(Debug)]
pub(super) struct Backoff {
    min: Duration,
    max: Duration,
    next: Duration,
}

impl Backoff {
    pub(super) const fn new(min: Duration, max: Duration) -> Self {
        Self { min, max, next: min }
    }

    /// The next pause.
    pub(super) fn pause(&mut self) -> Duration {
        let pause = self.next;
        self.next = (pause * 2).min(self.max);
        pause.mul_f64(rand::random_range(0.5..=1.0))
    }

    /// Starts over.
    pub(super) const fn reset(&mut self) {
        self.next = self.min;
    }

    /// How long an attempt must have held to count as a success.
    pub(super) const fn min_success(&self) -> Duration {
        self.max
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn d13_pauses_grow_are_bounded_and_jittered() {
        let ms = Duration::from_millis;
        let mut seen = std::collections::HashSet::new();
        for _ in 0..100 {
            let mut backoff = Backoff::new(ms(50), ms(2000));
            for base in [50, 100, 200, 400, 800, 1600, 2000, 2000] {
                let pause = backoff.pause();
                assert!(pause >= ms(base) / 2 && pause <= ms(base), "{pause:?} for {base}");
                seen.insert(pause);
            }
            backoff.reset();
            assert!(backoff.pause() <= ms(50));
        }
        assert!(seen.len() > 100, "there is no jitter");
    }
}
