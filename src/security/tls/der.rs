//! A DER reader (X.690), limited to the needs of naming and unwrapping certificates and keys.
//!
//! Sans-IO.

pub(super) const INTEGER: u8 = 0x02;
pub(super) const BIT_STRING: u8 = 0x03;
pub(super) const OCTET_STRING: u8 = 0x04;
pub(super) const OID: u8 = 0x06;
pub(super) const SEQUENCE: u8 = 0x30;

/// Returns the tag `[number]` of a constructed element.
pub(super) const fn context(number: u8) -> u8 {
    0xa0 | number
}

/// One element: its tag, its contents, and all of its bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Element<'a> {
    pub(super) tag: u8,
    pub(super) contents: &'a [u8],
    pub(super) whole: &'a [u8],
}

impl<'a> Element<'a> {
    /// Returns the elements inside this element.
    pub(super) fn inside(self) -> Der<'a> {
        Der(self.contents)
    }
}

/// Reads a sequence of elements.
#[derive(Clone, Copy, Debug)]
pub(super) struct Der<'a>(&'a [u8]);

impl<'a> Der<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    /// Returns the next element; `None` at the end, and if a length exceeds the remaining bytes.
    pub(super) fn any(&mut self) -> Option<Element<'a>> {
        let (&tag, rest) = self.0.split_first()?;
        // Certificates and keys contain no tag numbers of more than five bits.
        if tag & 0x1f == 0x1f {
            return None;
        }
        let (&first, rest) = rest.split_first()?;
        let (length, rest) = match first {
            0..=0x7f => (usize::from(first), rest),
            0x81..=0x84 => {
                let (digits, rest) = rest.split_at_checked(usize::from(first & 0x7f))?;
                let length = digits.iter().fold(0_u64, |length, digit| length << 8 | u64::from(*digit));
                (usize::try_from(length).ok()?, rest)
            }
            _ => return None,
        };
        let (contents, rest) = rest.split_at_checked(length)?;
        let whole = self.0.get(..self.0.len() - rest.len())?;
        self.0 = rest;
        Some(Element { tag, contents, whole })
    }

    /// Returns the next element if it has that tag; otherwise consumes nothing.
    pub(super) fn one(&mut self, tag: u8) -> Option<Element<'a>> {
        let mut ahead = *self;
        let element = ahead.any().filter(|element| element.tag == tag)?;
        *self = ahead;
        Some(element)
    }
}

/// Returns an object identifier in its dotted form.
pub(super) fn dotted(contents: &[u8]) -> String {
    // The longest identifier in use has about twenty bytes.
    if contents.is_empty() || contents.len() > 32 {
        return "(malformed)".to_owned();
    }
    let mut out = String::new();
    let mut arc = 0_u64;
    for byte in contents {
        arc = arc.wrapping_shl(7) | u64::from(byte & 0x7f);
        if byte & 0x80 != 0 {
            continue;
        }
        out.push_str(&match out.is_empty() {
            true if arc < 80 => format!("{}.{}", arc / 40, arc % 40),
            true => format!("2.{}", arc - 80),
            false => format!(".{arc}"),
        });
        arc = 0;
    }
    out
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn reads_nested_elements_in_sequence() {
        let mut der = Der::new(&[0x30, 0x03, 0x02, 0x01, 0x05, 0x04, 0x81, 0x01, 0x07]);
        assert_eq!(der.one(INTEGER), None);
        let sequence = der.one(SEQUENCE).unwrap();
        assert_eq!(sequence.whole, [0x30, 0x03, 0x02, 0x01, 0x05]);
        assert_eq!(sequence.inside().one(INTEGER).unwrap().contents, [5]);
        assert_eq!(der.any().unwrap().contents, [7]);
        assert_eq!(der.any(), None);
    }

    #[test]
    fn rejects_lengths_beyond_available_bytes() {
        for bytes in
            [&[][..], &[0x30], &[0x30, 1], &[0x30, 0x80, 0, 0], &[0x30, 0x84, 0xff, 0xff, 0xff, 0xff, 0], &[0x1f, 0]]
        {
            assert_eq!(Der::new(bytes).any(), None, "{bytes:?}");
        }
    }

    #[test]
    fn formats_object_identifiers_in_dotted_form() {
        assert_eq!(dotted(&[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x0a]), "1.2.840.113549.1.1.10");
        assert_eq!(dotted(&[0x55, 0x1d, 0x25, 0x00]), "2.5.29.37.0");
        assert_eq!(dotted(&[]), "(malformed)");
    }

    proptest! {
        #[test]
        fn reads_arbitrary_bytes_without_panic(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            let mut der = Der::new(&bytes);
            while let Some(element) = der.any() {
                prop_assert!(!element.whole.is_empty());
                let _ = dotted(element.contents);
            }
        }
    }
}
