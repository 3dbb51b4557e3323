//! [`Backoff`]: the pauses between attempts to reach a peer.

use std::time::Duration;

/// Pauses that double from a first to a longest one, each shortened at random by up to half.
///
/// The random part keeps clients that lost the same peer from returning at the same moment.
/// A `Backoff` only computes the pauses; waiting is up to the caller.
///
/// ```
/// # use std::time::Duration;
/// # use litefs_core::Backoff;
/// let ms = Duration::from_millis;
/// let mut backoff = Backoff::new(ms(50), ms(2000));
/// assert!((ms(25)..=ms(50)).contains(&backoff.next_pause()));
/// assert!((ms(50)..=ms(100)).contains(&backoff.next_pause()));
/// backoff.reset();
/// assert!((ms(25)..=ms(50)).contains(&backoff.next_pause()));
/// ```
#[derive(Debug, Clone)]
pub struct Backoff {
    min: Duration,
    max: Duration,
    next: Duration,
}

impl Backoff {
    /// Pauses from `min` to `max` before they are shortened. The first is `min` even if it is
    /// greater than `max`.
    #[must_use]
    pub const fn new(min: Duration, max: Duration) -> Self {
        Self { min, max, next: min }
    }

    /// The pause before the next attempt. The one after it is twice as long, up to the longest.
    #[must_use]
    pub fn next_pause(&mut self) -> Duration {
        let pause = self.next;
        self.next = pause.saturating_mul(2).min(self.max);
        pause.mul_f64(rand::random_range(0.5..=1.0))
    }

    /// Starts over with the first pause. Call it after an attempt that succeeded.
    pub const fn reset(&mut self) {
        self.next = self.min;
    }

    /// The longest pause. A connection that held for this long counts as a success.
    #[must_use]
    pub const fn max(&self) -> Duration {
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
                let pause = backoff.next_pause();
                assert!(pause >= ms(base) / 2 && pause <= ms(base), "{pause:?} for {base}");
                seen.insert(pause);
            }
            backoff.reset();
            assert!(backoff.next_pause() <= ms(50));
        }
        assert!(seen.len() > 100, "there is no jitter");
    }
}
