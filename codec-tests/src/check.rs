//! The properties that must hold for an input, and for its encoded bytes when they are damaged.

use std::{
    fmt,
    panic::{AssertUnwindSafe, catch_unwind},
};

use crate::{
    c::C,
    ours::{CODECS, Codec, Ours},
    random::Random,
};

/// The decoders' limit for damaged bytes, above the size of every input.
const LIMIT: usize = 4 << 20;

/// A difference between the codecs.
pub struct Finding {
    pub codec: Codec,
    pub what: String,
    /// The encoded bytes at fault; empty if the encoder failed.
    pub encoded: Vec<u8>,
}

/// The numbers of checks.
#[derive(Clone, Copy, Default)]
pub struct Counts {
    pub inputs: u64,
    pub round_trips: u64,
    pub damaged: u64,
    /// Damaged bytes that both decoders read, with the same output.
    pub both_read: u64,
    /// Damaged bytes that only the C library reads.
    pub only_c_reads: u64,
    /// Damaged zstd frames that only Ottla's decoder reads: it is less strict than C's about some
    /// invalid frames. The checksum of the record batch refuses such a frame before it is decoded.
    pub only_ours_reads: u64,
}

impl Counts {
    pub fn add(&mut self, other: &Counts) {
        self.inputs += other.inputs;
        self.round_trips += other.round_trips;
        self.damaged += other.damaged;
        self.both_read += other.both_read;
        self.only_c_reads += other.only_c_reads;
        self.only_ours_reads += other.only_ours_reads;
    }
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { inputs, round_trips, damaged, both_read, only_c_reads, only_ours_reads } = self;
        write!(
            f,
            "{inputs} inputs, {round_trips} round trips; {damaged} damaged, of which {both_read} read by both and \
             {only_c_reads} by the C library and {only_ours_reads} by ours alone"
        )
    }
}

/// Both sides, with their reused states.
#[derive(Default)]
pub struct Checker {
    ours: Ours,
    c: C,
    pub counts: Counts,
}

impl Checker {
    /// Checks all codecs with that input.
    pub fn check(&mut self, input: &[u8], random: &mut Random) -> Vec<Finding> {
        self.counts.inputs += 1;
        CODECS.into_iter().filter_map(|codec| self.codec(codec, input, random).err()).collect()
    }

    fn codec(&mut self, codec: Codec, input: &[u8], random: &mut Random) -> Result<(), Finding> {
        let level = level(codec, random);
        let described = format!("level {level}");
        let ours = self.ours(codec, |ours| ours.encode(codec, level, input));
        let ours = ours.map_err(|error| finding(codec, format!("encoding at {described}: {error}"), &[]))?;
        let read = self.c.decode(codec, &ours, input.len());
        same(codec, input, read, &ours, &format!("ours, at {described}, read by the C library"))?;
        self.reads(codec, input, &ours, &format!("ours, at {described}"))?;

        let (theirs, options) = self.c.encode(codec, input, random);
        self.reads(codec, input, &theirs, &format!("the C library's, {options}"))?;
        self.counts.round_trips += 3;

        for (good, by) in [(&ours, described), (&theirs, options)] {
            let bad = damage(good, random);
            self.damaged(codec, &bad, &by)?;
        }
        Ok(())
    }

    /// Checks that Ottla's decoder returns the input, and an error if the limit is one byte too
    /// low.
    fn reads(&mut self, codec: Codec, input: &[u8], encoded: &[u8], by: &str) -> Result<(), Finding> {
        let read = self.ours(codec, |ours| ours.decode(codec, encoded, input.len()));
        same(codec, input, read, encoded, &format!("{by}, read by ours"))?;
        if let Some(limit) = input.len().checked_sub(1) {
            let read = self.ours(codec, |ours| ours.decode(codec, encoded, limit));
            if let Ok(out) = read {
                let what = format!("{by}: {} bytes were read with a limit of {limit}", out.len());
                return Err(finding(codec, what, encoded));
            }
        }
        Ok(())
    }

    /// Checks that damaged bytes cause no panic, and are decoded to the C library's output or not
    /// at all.
    fn damaged(&mut self, codec: Codec, bad: &[u8], by: &str) -> Result<(), Finding> {
        self.counts.damaged += 1;
        let ours = self.ours(codec, |ours| ours.decode(codec, bad, LIMIT));
        let theirs = self.c.decode(codec, bad, LIMIT);
        match (ours, theirs) {
            (Ok(ours), Ok(theirs)) if ours == theirs => self.counts.both_read += 1,
            (Ok(_), Ok(_)) => return Err(finding(codec, format!("damaged ({by}): both read it, differently"), bad)),
            (Ok(_), Err(_)) if matches!(codec, Codec::Zstd) => self.counts.only_ours_reads += 1,
            (Ok(ours), Err(error)) => {
                let what = format!("damaged ({by}): ours reads {} bytes, the C library says: {error}", ours.len());
                return Err(finding(codec, what, bad));
            }
            (Err(error), _) if error.contains("panicked") => return Err(finding(codec, error, bad)),
            (Err(_), Ok(_)) => self.counts.only_c_reads += 1,
            (Err(_), Err(_)) => {}
        }
        Ok(())
    }

    /// Turns a panic into an error, and makes new states after it.
    fn ours<T>(&mut self, codec: Codec, run: impl FnOnce(&mut Ours) -> Result<T, String>) -> Result<T, String> {
        let ours = &mut self.ours;
        catch_unwind(AssertUnwindSafe(|| run(ours))).unwrap_or_else(|_| {
            self.ours = Ours::default();
            Err(format!("{codec:?} panicked"))
        })
    }
}

fn finding(codec: Codec, what: String, encoded: &[u8]) -> Finding {
    Finding { codec, what, encoded: encoded.to_vec() }
}

fn same(codec: Codec, input: &[u8], read: Result<Vec<u8>, String>, encoded: &[u8], by: &str) -> Result<(), Finding> {
    match read {
        Ok(out) if out == input => Ok(()),
        Ok(out) => {
            let at = out.iter().zip(input).take_while(|(out, input)| out == input).count();
            let what = format!("{by}: {} bytes of {}, another one at {at}", out.len(), input.len());
            Err(finding(codec, what, encoded))
        }
        Err(error) => Err(finding(codec, format!("{by}: {error}"), encoded)),
    }
}

/// Returns one of the levels that `compression.type` accepts.
fn level(codec: Codec, random: &mut Random) -> i32 {
    match codec {
        Codec::Gzip => *random.choose(&[-1, 1, 2, 3, 4, 5, 6, 7, 8, 9]),
        // Java's default, 3, is used most.
        Codec::Zstd => *random.choose(&[-7, -6, -5, -4, -3, -2, -1, 0, 1, 2, 3, 3, 4]),
        Codec::Snappy | Codec::Lz4 => 0,
    }
}

/// Returns the bytes with parts changed, cut or doubled.
fn damage(good: &[u8], random: &mut Random) -> Vec<u8> {
    let mut bad = good.to_vec();
    for _ in 0..random.between(1, 3) {
        if bad.is_empty() {
            break;
        }
        // Half of all damage is near the front, where headers and tables are.
        let end = if random.one_in(2) { bad.len().min(60) } else { bad.len() };
        let at = random.below(end);
        match random.below(6) {
            0 => bad[at] ^= 1 << random.below(8),
            1 => bad[at] = random.next() as u8,
            2 => bad[at] = *random.choose(&[0, 0xff, 0x7f, 0x80]),
            3 => bad.truncate(at),
            4 => {
                let piece: Vec<u8> = bad[at..(at + random.size(1, 64)).min(bad.len())].to_vec();
                let place = random.below(bad.len());
                bad.splice(place..place, piece);
            }
            _ => drop(bad.drain(at..(at + random.size(1, 8)).min(bad.len()))),
        }
    }
    bad
}
