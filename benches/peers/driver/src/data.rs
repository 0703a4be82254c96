//! The values that all clients send, the same in every run.

use std::{fs, io, path::Path, path::PathBuf};

/// Number of values: too many for the window of any compressor at 1 KB, and few enough for the
/// processor's caches at 100 B.
const VALUES: usize = 10_000;
/// The first byte of every value.
pub const FIRST: u8 = b'{';

/// Writes the values of that size below `dir`, one after the other.
pub fn write(dir: &Path, size: usize) -> io::Result<PathBuf> {
    let path = dir.join(format!("values-{size}.bin"));
    fs::write(&path, values(size, VALUES))?;
    Ok(path)
}

/// Returns text like that of events: repeated names, and numbers without repetition.
fn values(size: usize, count: usize) -> Vec<u8> {
    const FIELDS: [&str; 8] = ["user", "session", "amount", "page", "latency", "device", "region", "status"];
    const WORDS: [&str; 8] = ["checkout", "search", "eu-central", "mobile", "us-east", "accepted", "pending", "basket"];
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    let mut all = Vec::with_capacity(size * count);
    for n in 0..count {
        let mut value = format!("{{\"id\":{n:08}");
        while value.len() < size {
            let number = random.next();
            let field = FIELDS[(number % 8) as usize];
            if number & 8 == 0 {
                value.push_str(&format!(",\"{field}\":{}", (number >> 8) % 10_000_000));
            } else {
                value.push_str(&format!(",\"{field}\":\"{}\"", WORDS[(number >> 8) as usize % 8]));
            }
        }
        value.truncate(size);
        all.extend_from_slice(value.as_bytes());
    }
    all
}

/// Marsaglia's xorshift with a fixed seed.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn generates_same_values_of_requested_size() {
        let first = values(100, 50);
        assert_eq!(first.len(), 5_000);
        assert_eq!(first, values(100, 50));
        assert_ne!(first[..100], first[100..200]);
        assert!(first.chunks(100).all(|value| value[0] == FIRST && value.starts_with(b"{\"id\":")));
    }
}
