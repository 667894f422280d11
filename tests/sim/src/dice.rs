//! Randomness: every decision is a hash of (seed, component, ordinal), so that components do not disturb each other.
//!
//! A component is as small as it can be: one planned fault, one daemon run, one disk operation of a host, one direction
//! of a link, one step of a client. So a fault that is taken out of a scenario leaves all others as they are, and a
//! failing seed can be shrunk.

/// A stream of decisions for one component of the world.
#[derive(Clone, Debug)]
pub struct Dice {
    key: u64,
    ordinal: u64,
}

/// The index of a component that is known by two numbers.
pub fn both(one: usize, other: u32) -> u64 {
    ((one as u64) << 32) | u64::from(other)
}

/// The finaliser of splitmix64: a bijection that spreads every bit.
pub fn mix(mut x: u64) -> u64 {
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

impl Dice {
    /// The stream of `component`, whose `index` tells several of a kind apart.
    pub fn new(seed: u64, component: &str, index: u64) -> Dice {
        let name = component
            .bytes()
            .fold(0xcbf2_9ce4_8422_2325, |h: u64, b| (h ^ u64::from(b)).wrapping_mul(0x0000_0100_0000_01b3));
        Dice { key: mix(mix(seed.wrapping_add(0x9e37_79b9_7f4a_7c15)) ^ name ^ mix(index.wrapping_add(1))), ordinal: 0 }
    }

    /// 64 random bits.
    pub fn bits(&mut self) -> u64 {
        self.ordinal += 1;
        mix(self.key ^ mix(self.ordinal.wrapping_mul(0x9e37_79b9_7f4a_7c15)))
    }

    /// A number below `bound`.
    ///
    /// # Panics
    /// When `bound` is 0.
    pub fn below(&mut self, bound: u64) -> u64 {
        assert!(bound > 0, "no number is below 0");
        ((u128::from(self.bits()) * u128::from(bound)) >> 64) as u64
    }

    /// A number in `low..=high`.
    pub fn range(&mut self, low: u64, high: u64) -> u64 {
        low + self.below(high - low + 1)
    }

    /// True `per_million` times in a million.
    pub fn chance(&mut self, per_million: u64) -> bool {
        self.below(1_000_000) < per_million
    }

    /// One of `items`.
    pub fn pick<'a, T>(&mut self, items: &'a [T]) -> &'a T {
        &items[self.below(items.len() as u64) as usize]
    }

    /// Times around `mean`, most below it, seldom up to eight times as long.
    pub fn spread(&mut self, mean: u64) -> u64 {
        let long = self.below(100);
        let top = match long {
            0 => mean * 8,
            1..=9 => mean * 3,
            _ => mean,
        };
        self.range(mean / 8, top.max(mean / 8 + 1))
    }

    /// 128 random bits.
    pub fn uuid(&mut self) -> mxlock_format::Uuid {
        let (high, low) = (self.bits(), self.bits());
        mxlock_format::Uuid(((u128::from(high) << 64) | u128::from(low)).to_le_bytes())
    }
}
