//! Which key comes next, and how it is written.
//!
//! Zipf ranks are drawn by rejection inversion (1), so a billion keys need no table and no start-up.
//! Ranks are scattered over the key space by a multiplication, or neighbours would be hot together.
//!
//! (1) Hörmann & Derflinger, "Rejection-inversion to generate variates from monotone discrete
//!     distributions", ACM TOMACS 6(3), 1996

use crate::base::prng::Prng;

/// A distribution over keys, as `--distribution` names it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Distribution {
    /// `zipf:S`: rank r is asked for in proportion to r^-S.
    Zipf(f64),
    /// `uniform`
    Uniform,
    /// `sequential`: one after the other, around.
    Sequential,
    /// `hotspot:SHARE:HEAT`: a share of the keys gets a share of the requests.
    Hotspot(f64, f64),
}

impl Distribution {
    /// Reads the command line's form.
    pub fn parse(text: &str) -> Result<Distribution, String> {
        let parts: Vec<&str> = text.split(':').collect();
        let number = |text: &str| text.parse::<f64>().ok().filter(|number| number.is_finite());
        match parts.as_slice() {
            ["uniform"] => Ok(Distribution::Uniform),
            ["sequential"] => Ok(Distribution::Sequential),
            ["zipf", skew] => number(skew)
                .filter(|skew| *skew > 0.0 && *skew <= 10.0)
                .map(Distribution::Zipf)
                .ok_or_else(|| format!("'{text}': the skew of zipf is a number above 0, like zipf:0.99")),
            ["hotspot", share, heat] => number(share)
                .zip(number(heat))
                .filter(|(share, heat)| (0.0..=1.0).contains(share) && (0.0..=1.0).contains(heat))
                .map(|(share, heat)| Distribution::Hotspot(share, heat))
                .ok_or_else(|| format!("'{text}': share and heat lie between 0 and 1, like hotspot:0.01:0.9")),
            _ => Err(format!("'{text}' is no distribution: zipf:S, uniform, sequential or hotspot:SHARE:HEAT")),
        }
    }
}

/// A seeded stream of key numbers below `count`.
pub struct Keys {
    distribution: Distribution,
    count: u64,
    next: u64,
    prng: Prng,
    zipf: Option<Zipf>,
    /// Coprime to `count`: multiplying by it permutes the keys.
    factor: u64,
}

impl Keys {
    /// The stream of `seed`; sequential ones begin at `start`.
    pub fn new(distribution: Distribution, count: u64, seed: u64, start: u64) -> Keys {
        let zipf = match distribution {
            Distribution::Zipf(skew) => Some(Zipf::new(count, skew)),
            _ => None,
        };
        Keys { distribution, count, next: start % count, prng: Prng::new(seed), zipf, factor: scatter_factor(count) }
    }

    /// The next key number.
    pub fn next_key(&mut self) -> u64 {
        match self.distribution {
            Distribution::Uniform => self.prng.below(self.count),
            Distribution::Sequential => {
                let key = self.next;
                self.next = (key + 1) % self.count;
                key
            }
            Distribution::Hotspot(share, heat) => {
                let hot = ((self.count as f64 * share) as u64).clamp(1, self.count);
                if self.prng.unit() < heat || hot == self.count {
                    self.prng.below(hot)
                } else {
                    hot + self.prng.below(self.count - hot)
                }
            }
            Distribution::Zipf(_) => {
                let rank = self.zipf.as_ref().map_or(1, |zipf| zipf.draw(&mut self.prng));
                scatter(rank - 1, self.factor, self.count)
            }
        }
    }

    /// The generator, for the other choices a request needs.
    pub fn prng(&mut self) -> &mut Prng {
        &mut self.prng
    }
}

/// Rejection-inversion sampling of Zipf ranks 1..=n.
struct Zipf {
    count: f64,
    skew: f64,
    h_first: f64,
    h_last: f64,
    shortcut: f64,
}

impl Zipf {
    fn new(count: u64, skew: f64) -> Zipf {
        let count = count as f64;
        let mut zipf = Zipf { count, skew, h_first: 0.0, h_last: 0.0, shortcut: 0.0 };
        zipf.h_first = zipf.h(1.5) - 1.0;
        zipf.h_last = zipf.h(count + 0.5);
        zipf.shortcut = 2.0 - zipf.h_inverse(zipf.h(2.5) - 2f64.powf(-skew));
        zipf
    }

    fn draw(&self, prng: &mut Prng) -> u64 {
        loop {
            let u = self.h_last + prng.unit() * (self.h_first - self.h_last);
            let x = self.h_inverse(u);
            let rank = x.round().clamp(1.0, self.count);
            if rank - x <= self.shortcut || u >= self.h(rank + 0.5) - rank.powf(-self.skew) {
                return rank as u64;
            }
        }
    }

    /// The integral of x^-skew, shifted so that it is continuous at skew 1.
    fn h(&self, x: f64) -> f64 {
        let exponent = 1.0 - self.skew;
        if exponent.abs() < 1e-9 { x.ln() } else { (x.powf(exponent) - 1.0) / exponent }
    }

    fn h_inverse(&self, y: f64) -> f64 {
        let exponent = 1.0 - self.skew;
        if exponent.abs() < 1e-9 { y.exp() } else { ((1.0 + y * exponent).max(0.0).ln() / exponent).exp() }
    }
}

/// Moves rank `rank` somewhere else below `count`, each rank somewhere of its own.
fn scatter(rank: u64, factor: u64, count: u64) -> u64 {
    match rank.checked_mul(factor) {
        Some(product) => product % count,
        None => ((u128::from(rank) * u128::from(factor)) % u128::from(count)) as u64,
    }
}

/// A number near the golden section of `count` that shares no divisor with it.
fn scatter_factor(count: u64) -> u64 {
    let mut factor = (count as f64 * 0.618_033_988_75) as u64 | 1;
    while gcd(factor, count) != 1 {
        factor += 2;
    }
    factor
}

fn gcd(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { gcd(b, a % b) }
}

/// Writes key number `number` as `bytes` decimal digits.
pub fn write_key(number: u64, bytes: &mut [u8]) {
    bytes.fill(b'0');
    let mut rest = number;
    for digit in bytes.iter_mut().rev() {
        if rest == 0 {
            break;
        }
        *digit = b'0' + (rest % 10) as u8;
        rest /= 10;
    }
}

/// Digits that `count` keys need.
pub fn key_digits(count: u64) -> usize {
    count.saturating_sub(1).max(1).ilog10() as usize + 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zipf_ranks_have_their_published_shares() {
        let (count, skew, draws) = (1000u64, 0.99, 400_000);
        let zipf = Zipf::new(count, skew);
        let mut prng = Prng::new(11);
        let mut seen = vec![0u32; count as usize + 1];
        (0..draws).for_each(|_| seen[zipf.draw(&mut prng) as usize] += 1);
        let norm: f64 = (1..=count).map(|rank| (rank as f64).powf(-skew)).sum();
        for rank in [1u64, 2, 3, 10, 100, 1000] {
            let expected = draws as f64 * (rank as f64).powf(-skew) / norm;
            let error = (f64::from(seen[rank as usize]) - expected).abs();
            assert!(error < 5.0 * expected.sqrt() + 1.0, "rank {rank}: {} for {expected}", seen[rank as usize]);
        }
    }

    #[test]
    fn scattering_loses_and_doubles_no_key() {
        for count in [1u64, 2, 10, 997, 1000, 4096] {
            let mut seen = vec![false; count as usize];
            let factor = scatter_factor(count);
            (0..count).for_each(|rank| seen[scatter(rank, factor, count) as usize] = true);
            assert!(seen.iter().all(|&seen| seen), "{count}");
        }
    }

    #[test]
    fn hotspots_get_their_heat_and_every_stream_stays_in_range() {
        for distribution in ["zipf:1", "zipf:0.5", "uniform", "sequential", "hotspot:0.1:0.9"] {
            let mut keys = Keys::new(Distribution::parse(distribution).unwrap(), 100, 3, 0);
            let drawn: Vec<u64> = (0..20_000).map(|_| keys.next_key()).collect();
            assert!(drawn.iter().all(|&key| key < 100), "{distribution}");
            if distribution.starts_with("hotspot") {
                let hot = drawn.iter().filter(|&&key| key < 10).count();
                assert!((17_500..18_500).contains(&hot), "{hot}");
            }
        }
    }

    #[test]
    fn bad_distributions_are_refused() {
        for text in ["zipf", "zipf:", "zipf:-1", "zipf:nan", "hotspot:2:1", "hotspot:0.1", "normal"] {
            assert!(Distribution::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn keys_are_written_in_full_width() {
        let mut key = [0; 6];
        write_key(42, &mut key);
        assert_eq!(&key, b"000042");
        assert_eq!([1, 10, 11, 1000, 1001].map(key_digits), [1, 1, 2, 3, 4]);
    }
}
