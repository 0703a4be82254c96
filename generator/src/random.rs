//! Messages with random contents, encoded straight from a schema. The encoder is independent, so
//! that it does not share a mistake with the generated ones.

use std::cmp::Ordering;

use crate::schema::{Field, Message, Type};

/// The values of a message's fields.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fill {
    /// Null if the field may be null, otherwise empty; the smallest numbers.
    Least,
    /// The largest numbers, long strings, no nulls.
    Most,
    /// Random values from this seed.
    Seed(u64),
    /// Random values from this seed, with short strings and few elements.
    Brief(u64),
    /// Two elements in each array above `depth`, and `count` elements in each array at it; all
    /// other values are as small as possible.
    Many {
        /// 1 for the arrays of the message itself, 2 for those of their elements.
        depth: u32,
        /// The number of elements.
        count: usize,
    },
}

/// Returns the body of a message in a version, without its header.
pub fn body(message: &Message, version: i16, fill: Fill) -> Vec<u8> {
    let seed = if let Fill::Seed(seed) | Fill::Brief(seed) = fill { seed } else { 0 };
    let flexible = message.flexible_versions.contains(version);
    let mut writer = Writer { message, version, flexible, fill, state: seed ^ 0x9e37_79b9_7f4a_7c15, depth: 0 };
    let mut out = Vec::new();
    writer.structure(&mut out, &message.fields);
    out
}

struct Writer<'m> {
    message: &'m Message,
    version: i16,
    flexible: bool,
    fill: Fill,
    state: u64,
    depth: u32,
}

impl Writer<'_> {
    /// Returns the next number of SplitMix64.
    fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    /// Returns a number of `bytes` bytes: an end of its range, a small one, or any.
    fn number(&mut self, bytes: u32) -> i64 {
        let bits = bytes * 8;
        let (least, most) = (i64::MIN >> (64 - bits), i64::MAX >> (64 - bits));
        match self.fill {
            Fill::Least | Fill::Many { .. } => least,
            Fill::Most => most,
            Fill::Seed(_) | Fill::Brief(_) => match self.below(6) {
                0 => least,
                1 => most,
                2 => -1,
                3 => self.below(10) as i64,
                _ => (self.next() as i64) >> (64 - bits),
            },
        }
    }

    fn length(&mut self, most: usize, any: u64) -> usize {
        match self.fill {
            Fill::Least | Fill::Many { .. } => 0,
            Fill::Most => most,
            Fill::Seed(_) => self.below(any) as usize,
            Fill::Brief(_) => self.below(any / 3 + 2) as usize,
        }
    }

    /// Returns the number of an array's elements.
    fn count(&mut self) -> usize {
        match self.fill {
            Fill::Many { depth, count } => match self.depth.cmp(&depth) {
                Ordering::Less => 2,
                Ordering::Equal => count,
                Ordering::Greater => 0,
            },
            _ if self.depth > 3 => self.length(1, 2),
            _ => self.length(2, 4),
        }
    }

    fn is_null(&mut self, field: &Field) -> bool {
        field.nullable_versions.contains(self.version)
            && match self.fill {
                Fill::Least => true,
                Fill::Most => false,
                Fill::Seed(_) | Fill::Brief(_) => self.below(4) == 0,
                Fill::Many { depth, .. } => !matches!(field.kind, Type::Array(_)) || self.depth > depth,
            }
    }

    fn structure(&mut self, out: &mut Vec<u8>, fields: &[Field]) {
        self.depth += 1;
        let mut tagged = Vec::new();
        let version = self.version;
        for field in fields.iter().filter(|field| field.versions.contains(version)) {
            match field.tag.filter(|_| field.tagged_versions.contains(version)) {
                Some(tag) => tagged.push((tag, field)),
                None => self.field(out, field),
            }
        }
        if self.flexible {
            tagged.sort_by_key(|(tag, _)| *tag);
            let mut written = Vec::new();
            for (tag, field) in tagged {
                // A tagged field with its default is omitted, so a value that is written has to
                // differ from the default.
                if let Some(value) = self.tagged(field) {
                    written.push((tag, value));
                }
            }
            varint(out, written.len());
            for (tag, value) in written {
                varint(out, tag as usize);
                varint(out, value.len());
                out.extend(value);
            }
        }
        self.depth -= 1;
    }

    fn tagged(&mut self, field: &Field) -> Option<Vec<u8>> {
        if self.fill == Fill::Least || self.is_null(field) {
            return None;
        }
        let many = matches!(self.fill, Fill::Many { .. });
        if many && !(matches!(field.kind, Type::Array(_)) && self.count() > 0) {
            return None;
        }
        let mut value = Vec::new();
        match &field.kind {
            Type::Int16 | Type::Int32 | Type::Int64 if self.fill == Fill::Most && field.name == "HighWatermark" => {
                value.extend(7i64.to_be_bytes());
            }
            Type::Int16 => value.extend((self.below(1000) as i16 + 2).to_be_bytes()),
            Type::Int32 => value.extend((self.below(1000) as i32 + 2).to_be_bytes()),
            Type::Int64 => value.extend((self.below(1000) as i64 + 2).to_be_bytes()),
            Type::Bool => value.push(1),
            Type::String => self.text(&mut value, 1),
            Type::Uuid => value.extend([7; 16]),
            Type::Array(element) => {
                let count = if many { self.count() } else { 1 };
                self.long_length(&mut value, count);
                for _ in 0..count {
                    self.value(&mut value, element, field);
                }
            }
            // The first number of a struct is 9, so that the struct differs from its default.
            Type::Struct(name) => {
                self.structure(&mut value, fields_of(self.message, name, field));
                let at = value.first_mut()?;
                *at = 9;
            }
            other => unreachable!("no schema has a tagged field of type {other:?}"),
        }
        if matches!(field.kind, Type::Struct(_)) && !field.nullable_versions.is_empty() {
            value.insert(0, 1);
        }
        Some(value)
    }

    fn field(&mut self, out: &mut Vec<u8>, field: &Field) {
        let null = self.is_null(field);
        let nullable = field.nullable_versions.contains(self.version);
        match &field.kind {
            Type::String if null => self.null(out, 2),
            Type::Bytes | Type::Array(_) if null => self.null(out, 4),
            Type::Struct(_) if null => out.push(0xff),
            Type::Struct(_) if nullable => {
                out.push(1);
                self.value(out, &field.kind, field);
            }
            kind => self.value(out, kind, field),
        }
    }

    fn null(&self, out: &mut Vec<u8>, width: usize) {
        if self.flexible { out.push(0) } else { out.extend(vec![0xff; width]) }
    }

    fn text(&mut self, out: &mut Vec<u8>, least: usize) {
        let length = self.length(200, 24).max(least);
        let letters = ['a', 'z', '0', '-', '_', '.', 'é', '→', '𝄞', ' '];
        let text: String = (0..length).map(|_| letters[self.below(letters.len() as u64) as usize]).collect();
        if self.flexible {
            varint(out, text.len() + 1);
        } else {
            out.extend((text.len() as i16).to_be_bytes());
        }
        out.extend(text.as_bytes());
    }

    fn long_length(&self, out: &mut Vec<u8>, length: usize) {
        if self.flexible { varint(out, length + 1) } else { out.extend((length as i32).to_be_bytes()) }
    }

    fn value(&mut self, out: &mut Vec<u8>, kind: &Type, field: &Field) {
        match kind {
            Type::Bool => out.push(u8::from(self.number(1) > 0)),
            Type::Int8 => out.extend((self.number(1) as i8).to_be_bytes()),
            Type::Int16 => out.extend((self.number(2) as i16).to_be_bytes()),
            Type::Uint16 => out.extend((self.number(2) as u16).to_be_bytes()),
            Type::Int32 => out.extend((self.number(4) as i32).to_be_bytes()),
            Type::Int64 => out.extend(self.number(8).to_be_bytes()),
            Type::Float64 => out.extend((self.number(4) as f64 / 8.0).to_be_bytes()),
            Type::Uuid => {
                let half = self.number(8).to_be_bytes();
                out.extend(half);
                out.extend(self.number(8).to_be_bytes());
            }
            Type::String => self.text(out, 0),
            Type::Bytes => {
                let length = self.length(300, 40);
                self.long_length(out, length);
                for _ in 0..length {
                    out.push(self.next() as u8);
                }
            }
            Type::Array(element) => {
                let count = self.count();
                self.long_length(out, count);
                for _ in 0..count {
                    self.value(out, element, field);
                }
            }
            Type::Struct(name) => self.structure(out, fields_of(self.message, name, field)),
        }
    }
}

fn fields_of<'m>(message: &'m Message, name: &str, field: &'m Field) -> &'m [Field] {
    if field.fields.is_empty() { message.fields_of(name).unwrap_or_default() } else { &field.fields }
}

fn varint(out: &mut Vec<u8>, value: usize) {
    let mut rest = value;
    while rest > 0x7f {
        out.push(rest as u8 | 0x80);
        rest >>= 7;
    }
    out.push(rest as u8);
}
