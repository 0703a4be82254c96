//! Makes new inputs from existing ones.

use crate::coverage::a_compared_value;

/// Pseudorandom numbers (SplitMix64), the same for the same seed.
pub struct Dice(u64);

impl Dice {
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// Returns a number below `end`, or 0 if `end` is 0.
    pub fn below(&mut self, end: usize) -> usize {
        (self.roll() % end.max(1) as u64) as usize
    }
}

/// Numbers at which decoders change their behaviour.
const EDGES: [i64; 18] = [
    0,
    1,
    -1,
    2,
    127,
    128,
    255,
    256,
    -128,
    0x7fff,
    0x8000,
    0xffff,
    0x7fff_ffff,
    0x8000_0000,
    0xffff_ffff,
    i64::MAX,
    i64::MIN,
    61,
];

/// Changes an input in some ways, one after the other; `other` is an input to copy from.
pub fn mutate(input: &mut Vec<u8>, other: &[u8], longest: usize, dice: &mut Dice) {
    let steps = 1 << dice.below(5);
    for _ in 0..steps {
        step(input, other, dice);
        input.truncate(longest);
    }
}

fn step(input: &mut Vec<u8>, other: &[u8], dice: &mut Dice) {
    let at = dice.below(input.len());
    match dice.below(12) {
        0 => flip(input, at, dice),
        1 => {
            if let Some(byte) = input.get_mut(at) {
                *byte = dice.roll() as u8;
            }
        }
        2 => {
            if let Some(byte) = input.get_mut(at) {
                *byte = byte.wrapping_add((dice.below(35) as u8).wrapping_sub(17));
            }
        }
        3 => number(input, at, EDGES[dice.below(EDGES.len())], dice),
        4 | 5 => {
            let value = a_compared_value(dice.roll()) as i64;
            // A compared value is often the input's plus or minus one, or has its bytes reversed.
            let value = match dice.below(4) {
                0 => value.swap_bytes(),
                1 => value.wrapping_add(dice.below(3) as i64 - 1),
                _ => value,
            };
            number(input, at, value, dice);
        }
        6 => {
            let end = at + dice.below(16.min(input.len() - at) + 1);
            input.drain(at..end.min(input.len()));
        }
        7 => {
            let more: Vec<u8> = (0..1 + dice.below(16)).map(|_| dice.roll() as u8).collect();
            input.splice(at..at, more);
        }
        8 => {
            let part = part_of(input, dice).to_vec();
            input.splice(at..at, part);
        }
        9 => {
            let part = part_of(other, dice).to_vec();
            if dice.below(2) == 0 {
                input.splice(at..at, part);
            } else {
                let end = (at + part.len()).min(input.len());
                input.splice(at..end, part);
            }
        }
        10 => input.truncate(at),
        _ => {
            // A varint of any size.
            let mut value = dice.roll() >> dice.below(64);
            let mut bytes = Vec::new();
            while value >= 0x80 {
                bytes.push(value as u8 | 0x80);
                value >>= 7;
            }
            bytes.push(value as u8);
            let end = if dice.below(2) == 0 { at } else { (at + 1).min(input.len()) };
            input.splice(at..end, bytes);
        }
    }
}

fn flip(input: &mut [u8], at: usize, dice: &mut Dice) {
    if let Some(byte) = input.get_mut(at) {
        *byte ^= 1 << dice.below(8);
    }
}

/// Overwrites a number of 1, 2, 4 or 8 bytes, with the highest byte first as in Kafka's protocol,
/// or last as in codecs.
fn number(input: &mut [u8], at: usize, value: i64, dice: &mut Dice) {
    let size = 1 << dice.below(4);
    let bytes = if dice.below(4) == 0 {
        value.to_le_bytes()[..size].to_vec()
    } else {
        value.to_be_bytes()[8 - size..].to_vec()
    };
    for (place, byte) in input.iter_mut().skip(at).zip(bytes) {
        *place = byte;
    }
}

fn part_of<'a>(bytes: &'a [u8], dice: &mut Dice) -> &'a [u8] {
    let start = dice.below(bytes.len());
    let length = 1 + dice.below(64.min(bytes.len().saturating_sub(start)).max(1));
    bytes.get(start..(start + length).min(bytes.len())).unwrap_or_default()
}
