//! The one source of chance: everything the simulator invents is a hash of the seed and of what it is about.
//!
//! Pure, and fast enough (about a nanosecond) to be computed again instead of being remembered.

/// Mixes `value` into `state`: the finalizer of SplitMix64, whose output bits are all evenly distributed.
#[must_use]
pub const fn mix(state: u64, value: u64) -> u64 {
    let mut z = state ^ value.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    z = z.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// Whether the event of probability `share` (0 to 1) happens for this `hash`.
#[must_use]
pub fn happens(hash: u64, share: f64) -> bool {
    unit(hash) < share
}

/// `hash` as an evenly distributed number in `[0, 1)`.
#[must_use]
pub fn unit(hash: u64) -> f64 {
    (hash >> 11) as f64 / (1_u64 << 53) as f64
}

/// A sequence of draws that belongs to one thing, such as one record.
#[derive(Debug, Clone)]
pub struct Draws(u64);

impl Draws {
    /// The draws of the thing that is identified by these two.
    #[must_use]
    pub const fn of(seed: u64, thing: u64) -> Self {
        Self(mix(seed, thing))
    }

    /// 64 random bits.
    pub const fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mix(self.0, 0)
    }

    /// A number below `bound`, which is not 0.
    pub const fn below(&mut self, bound: u64) -> u64 {
        self.bits() % bound
    }

    /// True once in `n` draws.
    pub const fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }

    /// One of `choices`, which are not empty.
    pub fn pick<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[usize::try_from(self.below(choices.len() as u64)).unwrap_or(0)]
    }
}
