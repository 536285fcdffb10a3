//! A seeded generator that chooses as the streams of commands do.

use spinetail::base::prng::Prng;

/// A seeded sequence of choices.
#[derive(Clone, Debug)]
pub struct Dice(Prng);

impl Dice {
    pub fn new(seed: u64) -> Dice {
        Dice(Prng::new(seed))
    }

    pub fn next_u64(&mut self) -> u64 {
        self.0.next_u64()
    }

    pub fn below(&mut self, bound: u64) -> u64 {
        self.0.below(bound)
    }

    /// A number in [0, 1).
    pub fn unit(&mut self) -> f64 {
        self.0.unit()
    }

    pub fn one_in(&mut self, count: u64) -> bool {
        self.0.below(count) == 0
    }

    pub fn one_of<'a>(&mut self, words: &[&'a str]) -> &'a str {
        words[self.0.below(words.len() as u64) as usize]
    }

    /// A number from zero on, each with its weight.
    pub fn weighted(&mut self, weights: impl IntoIterator<Item = u64> + Clone) -> usize {
        let mut ticket = self.0.below(weights.clone().into_iter().sum());
        for (number, weight) in weights.into_iter().enumerate() {
            if ticket < weight {
                return number;
            }
            ticket -= weight;
        }
        unreachable!("a ticket below the sum")
    }

    /// A small count, each with its weight.
    pub fn few(&mut self, weights: &[u64]) -> u64 {
        self.weighted(weights.iter().copied()) as u64
    }
}
