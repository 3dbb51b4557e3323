//! Rounds in which every contender runs once.

use std::time::Duration;

use litefs_examples::Problem;
use litefs_examples::stats::median;

/// The amount of measuring.
#[derive(Debug, Clone, Copy)]
pub(super) struct Effort {
    /// Every part runs briefly. The figures are not meaningful.
    pub(super) quick: bool,
}

impl Effort {
    /// The number of rounds, given the number that reliable figures need.
    pub(super) fn rounds(self, needed: usize) -> usize {
        if self.quick { needed.min(2) } else { needed }
    }

    /// The length of a measurement.
    pub(super) fn time(self, needed: Duration) -> Duration {
        if self.quick { needed.min(Duration::from_millis(100)) } else { needed }
    }

    /// The number of items.
    pub(super) fn count(self, needed: usize) -> usize {
        if self.quick { needed.div_ceil(10) } else { needed }
    }
}

/// A contender: does its work once and returns the result.
pub(super) type Turn<'a, T> = Box<dyn FnMut() -> Result<T, Problem> + 'a>;

/// Runs every contender once per round. Each has every place and every pair of neighbours equally
/// often, so that disturbances of the machine and after-effects of the contender before affect all
/// alike. The first `warm_up` rounds are not counted. Returns the results, indexed by
/// `[contender][round]`.
pub(super) fn alternate<T>(
    warm_up: usize,
    rounds: usize,
    turns: &mut [Turn<'_, T>],
) -> Result<Vec<Vec<T>>, Problem> {
    let mut results: Vec<Vec<T>> = turns.iter().map(|_| Vec::with_capacity(rounds)).collect();
    let count = turns.len();
    for round in 0..warm_up + rounds {
        for turn in 0..count {
            // Forwards and backwards, starting with another contender each time.
            let step = if round % 2 == 0 { turn } else { count - 1 - turn };
            let who = (round / 2 + step) % count;
            let result = turns[who]()?;
            if round >= warm_up {
                results[who].push(result);
            }
        }
    }
    Ok(results)
}

/// The median over the rounds of one contender's result divided by the other's in the same round.
pub(super) fn ratio(of: &[f64], to: &[f64]) -> f64 {
    median(&mut of.iter().zip(to).map(|(of, to)| of / to).collect::<Vec<_>>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_contender_is_first_equally_often() {
        let (order, number) = (std::cell::RefCell::new(Vec::new()), std::cell::Cell::new(0));
        let turn = |who: char| -> Turn<'_, usize> {
            let (order, number) = (&order, &number);
            Box::new(move || {
                order.borrow_mut().push(who);
                Ok(number.replace(number.get() + 1))
            })
        };
        let results = alternate(1, 2, &mut [turn('a'), turn('b')]).expect("turns that succeed");
        assert_eq!(results, [[3, 5], [2, 4]]);
        assert_eq!(order.borrow().iter().collect::<String>(), "abbaba");
    }

    #[test]
    fn a_ratio_compares_within_rounds() {
        assert_eq!(ratio(&[2.0, 20.0, 6.0], &[1.0, 10.0, 1.0]), 2.0);
    }
}
