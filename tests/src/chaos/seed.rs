//! Chance that can be repeated: the same seed gives the same choices.

use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::ops::Range;
use std::time::Duration;

/// A source of choices (SplitMix64).
#[derive(Debug, Clone)]
pub struct Chance(u64);

impl Chance {
    /// The choices of this seed.
    #[must_use]
    pub fn of(seed: u64) -> Self {
        Self(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number of this range.
    ///
    /// # Panics
    /// Where the range is empty.
    pub fn number(&mut self, range: Range<u64>) -> u64 {
        assert!(!range.is_empty(), "an empty range");
        range.start + self.next() % (range.end - range.start)
    }

    /// A time of so many milliseconds.
    pub fn millis(&mut self, range: Range<u64>) -> Duration {
        Duration::from_millis(self.number(range))
    }

    /// Waits for a time of so many milliseconds: faults come at moments that nothing chose.
    pub async fn pause(&mut self, range: Range<u64>) {
        let pause = self.millis(range);
        tokio::time::sleep(pause).await;
    }

    /// Another source, whose choices do not depend on how often this one is asked later.
    #[must_use]
    pub fn branch(&mut self) -> Self {
        Self(self.next())
    }
}

/// A seed that nobody chose.
#[must_use]
pub fn fresh() -> u64 {
    // Short enough to be typed again.
    RandomState::new().build_hasher().finish() % 1_000_000
}
