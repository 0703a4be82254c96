//! Facts about a record that are not part of its content.

use std::num::NonZeroU32;

/// Facts about a record that are not part of its content, in one word: whether it has a tag, and
/// which producer has shown it to its interceptors. The latter keeps a record that is returned and
/// sent again from being shown to them twice.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Marks(u64);

const HAS_TAG: u64 = 1 << 32;

impl Marks {
    pub(crate) fn seen_by(self) -> Option<NonZeroU32> {
        NonZeroU32::new(self.0 as u32)
    }

    pub(crate) fn set_seen_by(&mut self, producer: Option<NonZeroU32>) {
        self.0 = (self.0 & HAS_TAG) | u64::from(producer.map_or(0, NonZeroU32::get));
    }

    pub(super) fn has_tag(self) -> bool {
        self.0 & HAS_TAG != 0
    }

    pub(super) fn set_has_tag(&mut self, has_tag: bool) {
        self.0 = if has_tag { self.0 | HAS_TAG } else { self.0 & !HAS_TAG };
    }
}

/// The producer that has seen a record is not part of the record's content.
impl PartialEq for Marks {
    fn eq(&self, other: &Self) -> bool {
        self.has_tag() == other.has_tag()
    }
}

impl Eq for Marks {}
