//! The one source of chance in a simulation: xoshiro256** seeded by splitmix64.

use std::cell::RefCell;
use std::rc::Rc;

/// The generator's state.
#[derive(Debug)]
pub(super) struct Generator {
    state: [u64; 4],
}

impl Generator {
    /// The stream that belongs to `seed`.
    pub(super) fn new(seed: u64) -> Self {
        let mut mixed = seed;
        let mut next = || {
            mixed = mixed.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut z = mixed;
            z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            z ^ (z >> 31)
        };
        Generator { state: [next(), next(), next(), next()] }
    }

    /// The next number.
    pub(super) fn next(&mut self) -> u64 {
        let [a, b, c, d] = &mut self.state;
        let result = b.wrapping_mul(5).rotate_left(7).wrapping_mul(9);
        let shifted = *b << 17;
        *c ^= *a;
        *d ^= *b;
        *b ^= *c;
        *a ^= *d;
        *c ^= shifted;
        *d = d.rotate_left(45);
        result
    }

    /// The next 128 bits.
    pub(super) fn next_u128(&mut self) -> u128 {
        u128::from(self.next()) << 64 | u128::from(self.next())
    }

    /// A number below `bound`; 0 for a bound of 0. The bias of below 2^-32 does not matter here.
    pub(super) fn below(&mut self, bound: u64) -> u64 {
        ((u128::from(self.next()) * u128::from(bound)) >> 64) as u64
    }

    /// Whether an event of this chance in a thousand happens. Certain outcomes draw nothing.
    pub(super) fn chance(&mut self, per_mille: u32) -> bool {
        per_mille > 0 && (per_mille >= 1000 || self.below(1000) < u64::from(per_mille))
    }
}

/// Draws from the stream of a running simulation, for workloads and fault plans.
#[derive(Clone, Debug)]
pub struct SimulationRng {
    generator: Rc<RefCell<Generator>>,
}

impl SimulationRng {
    pub(super) fn new(generator: Rc<RefCell<Generator>>) -> Self {
        SimulationRng { generator }
    }

    /// A random number.
    pub fn next_u64(&self) -> u64 {
        self.generator.borrow_mut().next()
    }

    /// A random number below `bound`; 0 for a bound of 0.
    pub fn below(&self, bound: u64) -> u64 {
        self.generator.borrow_mut().below(bound)
    }

    /// Whether an event of this chance in a thousand happens.
    pub fn chance(&self, per_mille: u32) -> bool {
        self.generator.borrow_mut().chance(per_mille)
    }

    /// Fills `out` with random bytes.
    pub fn fill(&self, out: &mut [u8]) {
        let mut generator = self.generator.borrow_mut();
        for chunk in out.chunks_mut(8) {
            chunk.copy_from_slice(&generator.next().to_le_bytes()[..chunk.len()]);
        }
    }
}
