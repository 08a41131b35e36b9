//! An export as it is sent: piece by piece, of any size, never all in memory.

use std::collections::VecDeque;

use super::text::write_wrapped;

/// An export on its way out.
#[derive(Clone, Debug)]
pub struct Export {
    pub(super) head: VecDeque<Vec<u8>>,
    pub(super) filler: Filler,
    pub(super) tail: VecDeque<Vec<u8>>,
    /// The bytes of head and tail.
    pub(super) fixed: u64,
}

impl Export {
    /// An export of just these pieces.
    pub(super) fn of_pieces(pieces: VecDeque<Vec<u8>>) -> Self {
        let fixed = pieces.iter().map(|piece| piece.len() as u64).sum();
        let filler = Filler {
            next: 0,
            budget: 0,
            seed: 0,
        };
        Self {
            head: pieces,
            filler,
            tail: VecDeque::new(),
            fixed,
        }
    }

    /// Its length in bytes, up to one line too small.
    pub fn approximate_len(&self) -> u64 {
        self.fixed + self.filler.budget
    }
}

impl Iterator for Export {
    type Item = Vec<u8>;

    fn next(&mut self) -> Option<Vec<u8>> {
        let head = self.head.pop_front();
        head.or_else(|| self.filler.next())
            .or_else(|| self.tail.pop_front())
    }
}

/// Entries of address lists until the budget of bytes is used up.
#[derive(Clone, Debug)]
pub(super) struct Filler {
    pub(super) next: u64,
    pub(super) budget: u64,
    pub(super) seed: u64,
}

impl Iterator for Filler {
    type Item = Vec<u8>;

    fn next(&mut self) -> Option<Vec<u8>> {
        if self.budget == 0 {
            return None;
        }
        let mut piece = Vec::with_capacity(96);
        if self.next == 0 {
            piece.extend_from_slice(b"/ip firewall address-list\r\n");
        } else {
            // 198.18.0.0/15 is set aside for benchmarks (RFC 2544), and no list repeats an address.
            let entry = self.next - 1;
            let (list, host) = (entry >> 17, entry & 0x1_FFFF);
            let address = format!(
                "198.{}.{}.{}",
                18 + (host >> 16),
                (host >> 8) & 255,
                host & 255
            );
            let ticket = mix(self.seed ^ entry) % 1_000_000;
            let line =
                format!("add address={address} comment=\"ticket {ticket:06}\" list=blocked{list}");
            write_wrapped(&mut piece, &line);
        }
        self.next += 1;
        self.budget = self.budget.saturating_sub(piece.len() as u64);
        Some(piece)
    }
}

/// The `SplitMix64` finaliser: spreads a counter over all bits.
/// <https://doi.org/10.1145/2714064.2660195>
pub(super) fn mix(seed: u64) -> u64 {
    let mut z = seed.wrapping_add(0x9E37_79B9_7F4A_7C15);
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}
