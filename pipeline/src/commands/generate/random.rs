//! Randomness that repeats: the same seed gives the same numbers in every build and on every
//! platform.
//!
//! The generators of crate `rand` may change between its releases, and the standard library's `exp`
//! and
//! `ln` differ in the last bit between platforms; both would make recorded seeds worthless. So the
//! generator is `SplitMix64`, written out here, and the functions come from crate `libm`.

use std::f64::consts::TAU;

/// A small generator (`SplitMix64`): eight bytes of state, so that every task can carry its own.
#[derive(Clone, Debug)]
pub(super) struct Random(u64);

impl Random {
    pub(super) const fn new(seed: u64) -> Random {
        Random(seed)
    }

    pub(super) const fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        finish(self.0)
    }

    /// Evenly from `0.0..1.0`.
    pub(super) fn unit(&mut self) -> f64 {
        unit(self.next())
    }

    /// True in a share `p` of the calls.
    pub(super) fn chance(&mut self, p: f64) -> bool {
        self.unit() < p
    }

    /// Evenly from `0..end`; 0 if `end` is.
    pub(super) const fn below(&mut self, end: u32) -> u32 {
        (((self.next() >> 32) * end as u64) >> 32) as u32
    }

    /// Evenly from `low..high`.
    pub(super) fn between(&mut self, low: f64, high: f64) -> f64 {
        low + (high - low) * self.unit()
    }

    /// One of a fixed list.
    pub(super) const fn pick<T: Copy, const N: usize>(&mut self, from: &[T; N]) -> T {
        const { assert!(N > 0) };
        from[self.below(N as u32) as usize]
    }

    /// Time until the next of events that come independently, `mean` apart.
    pub(super) fn exponential(&mut self, mean: f64) -> f64 {
        -mean * libm::log(1.0 - self.unit())
    }

    /// A long-tailed positive quantity: half of the draws are below `median`.
    pub(super) fn lognormal(&mut self, median: f64, sigma: f64) -> f64 {
        let radius = libm::sqrt(-2.0 * libm::log(1.0 - self.unit()));
        let normal = radius * libm::cos(TAU * self.unit());
        median * libm::exp(sigma * normal)
    }
}

/// Two numbers stirred into one that tells nothing of either.
pub(super) const fn stir(a: u64, b: u64) -> u64 {
    finish(finish(a ^ 0x5851_f42d_4c95_7f2d).wrapping_add(b))
}

/// A number of `0.0..1.0` made of the upper 53 bits.
pub(super) fn unit(bits: u64) -> f64 {
    (bits >> 11) as f64 / (1_u64 << 53) as f64
}

const fn finish(state: u64) -> u64 {
    let z = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// Ranks drawn by Zipf's law: the first of `n` is drawn twice as often as the second, thrice as the
/// third.
#[derive(Debug)]
pub(super) struct Ranks(Vec<f64>);

impl Ranks {
    pub(super) fn new(n: u32) -> Ranks {
        let mut sum = 0.0;
        let cumulative = (1..=n).map(|rank| {
            sum += 1.0 / f64::from(rank);
            sum
        });
        Ranks(cumulative.collect())
    }

    /// A rank from 0.
    pub(super) fn draw(&self, random: &mut Random) -> u32 {
        let at = random.unit() * self.0.last().copied().unwrap_or(0.0);
        self.0.partition_point(|upto| *upto <= at) as u32
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sequence_is_that_of_the_published_generator() {
        // First outputs of the reference implementation for seed 1234567.
        let mut random = Random::new(1_234_567);
        let drawn = [random.next(), random.next(), random.next()];
        assert_eq!(
            drawn,
            [6_457_827_717_110_365_317, 3_203_168_211_198_807_973, 9_817_491_932_198_370_423]
        );
    }

    #[test]
    fn draws_have_the_shape_that_their_names_promise() {
        let mut random = Random::new(1);
        let n = 100_000;
        let mean = (0..n).map(|_| random.exponential(250.0)).sum::<f64>() / f64::from(n);
        assert!((240.0..260.0).contains(&mean), "{mean}");
        let below = (0..n).filter(|_| random.lognormal(80.0, 0.9) < 80.0).count();
        assert!((49_000..51_000).contains(&below), "{below}");
        assert!((0..n).all(|_| random.below(7) < 7));
    }

    #[test]
    fn ranks_follow_zipf() {
        let (ranks, mut random) = (Ranks::new(100), Random::new(2));
        let mut counts = [0_u32; 100];
        for _ in 0..100_000 {
            counts[ranks.draw(&mut random) as usize] += 1;
        }
        let ratio = f64::from(counts[0]) / f64::from(counts[1]);
        assert!((1.9..2.1).contains(&ratio), "{ratio}");
        assert!(counts.iter().all(|count| *count > 0));
    }
}
