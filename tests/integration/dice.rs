//! Choices that a seed repeats (as far as the machine's timing lets a run be repeated).

use std::cell::Cell;
use std::env;

/// SplitMix64, shared by all that choose in one test.
pub struct Dice(Cell<u64>);

impl Dice {
    /// From `MUFAKAT_TEST_SEED`, or another one in each run; printed.
    pub fn roll() -> Self {
        let seed = match env::var("MUFAKAT_TEST_SEED") {
            Ok(text) => text.parse().expect("MUFAKAT_TEST_SEED is a number"),
            Err(_) => rand::random(),
        };
        println!("MUFAKAT_TEST_SEED={seed}");
        Dice(Cell::new(seed))
    }

    /// A number below `end`.
    pub fn below(&self, end: u64) -> u64 {
        self.0.set(self.0.get().wrapping_add(0x9e37_79b9_7f4a_7c15));
        let mut mixed = self.0.get();
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % end
    }
}
