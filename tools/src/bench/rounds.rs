//! Rounds in which every contender gets a turn.

use std::time::Duration;

use litefs_examples::Problem;
use litefs_examples::stats::median;

/// How much to measure.
#[derive(Debug, Clone, Copy)]
pub(super) struct Effort {
    /// Only so much that every part runs. The figures mean little then.
    pub(super) quick: bool,
}

impl Effort {
    /// How many rounds, of those that figures to rely on need.
    pub(super) fn rounds(self, needed: usize) -> usize {
        if self.quick { needed.min(2) } else { needed }
    }

    /// How long to measure.
    pub(super) fn time(self, needed: Duration) -> Duration {
        if self.quick { needed.min(Duration::from_millis(100)) } else { needed }
    }

    /// How many of something.
    pub(super) fn count(self, needed: usize) -> usize {
        if self.quick { needed.div_ceil(10) } else { needed }
    }
}

/// One of those that are compared: does its work once and says what came of it.
pub(super) type Turn<'a, T> = Box<dyn FnMut() -> Result<T, Problem> + 'a>;

/// Gives each a turn in each round, and each other one's place and neighbours equally often: what
/// disturbs the machine for a while, or is left behind by the one before, disturbs all of them. The
/// first `warm_up` rounds do not count. Returns what came of it, `[who][round]`.
pub(super) fn alternate<T>(
    warm_up: usize,
    rounds: usize,
    turns: &mut [Turn<'_, T>],
) -> Result<Vec<Vec<T>>, Problem> {
    let mut results: Vec<Vec<T>> = turns.iter().map(|_| Vec::with_capacity(rounds)).collect();
    let count = turns.len();
    for round in 0..warm_up + rounds {
        for turn in 0..count {
            // There and back, from another one each time.
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

/// The median over the rounds of what one needed in a round, divided by what the other needed in
/// the same.
pub(super) fn ratio(of: &[f64], to: &[f64]) -> f64 {
    median(&mut of.iter().zip(to).map(|(of, to)| of / to).collect::<Vec<_>>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everybody_comes_first_equally_often_and_the_warm_up_does_not_count() {
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
