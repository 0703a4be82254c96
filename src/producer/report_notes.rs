//! Data of a report that the batch does not know: kept from `send` to the result, in as little
//! memory as possible.
//!
//! Sans-IO.

use std::ops::Range;

use smallvec::SmallVec;

/// The data of one record's report.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ReportNote {
    pub(crate) timestamp: i64,
    pub(crate) tag: Option<u64>,
}

/// The notes of consecutive records.
///
/// Thousands of records are sent within a millisecond, and most have no tag. So equal consecutive
/// timestamps are stored once, and tags only if there is one.
#[derive(Clone, Debug, Default)]
pub(crate) struct ReportNotes {
    count: u32,
    stretches: SmallVec<[TimestampRun; 1]>,
    /// One tag for each record, or none at all.
    tags: Vec<Option<u64>>,
}

/// Records up to `end` with one timestamp.
#[derive(Clone, Copy, Debug)]
struct TimestampRun {
    timestamp: i64,
    end: u32,
}

impl ReportNotes {
    pub(crate) fn len(&self) -> u32 {
        self.count
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.count == 0
    }

    #[inline]
    pub(crate) fn push(&mut self, ReportNote { timestamp, tag }: ReportNote) {
        if tag.is_some() || !self.tags.is_empty() {
            self.push_tag(tag);
        }
        self.count += 1;
        match self.stretches.last_mut() {
            Some(last) if last.timestamp == timestamp => last.end = self.count,
            _ => self.stretches.push(TimestampRun { timestamp, end: self.count }),
        }
    }

    fn push_tag(&mut self, tag: Option<u64>) {
        if self.tags.is_empty() {
            // Its neighbours probably have a tag, too; a list grows by about that number anyway.
            self.tags.reserve(self.count as usize + 64);
            self.tags.resize(self.count as usize, None);
        }
        self.tags.push(tag);
    }

    /// Returns the note at that place.
    pub(crate) fn get(&self, place: u32) -> Option<ReportNote> {
        let at = self.stretches.partition_point(|stretch| stretch.end <= place);
        let timestamp = self.stretches.get(at)?.timestamp;
        Some(ReportNote { timestamp, tag: self.tag(place) })
    }

    /// Returns all notes from that place on, with their places.
    pub(crate) fn from(&self, place: u32) -> impl Iterator<Item = (u32, ReportNote)> {
        let first = self.stretches.partition_point(|stretch| stretch.end <= place);
        let mut start = place;
        self.stretches.get(first..).unwrap_or_default().iter().flat_map(move |stretch| {
            let places = start..stretch.end;
            start = stretch.end;
            places.map(|place| (place, ReportNote { timestamp: stretch.timestamp, tag: self.tag(place) }))
        })
    }

    /// Returns the notes of a part of the records.
    pub(crate) fn part(&self, range: Range<u32>) -> Self {
        let mut part = Self::default();
        let notes = self.from(range.start).take_while(|(place, _)| *place < range.end);
        notes.for_each(|(_, note)| part.push(note));
        part
    }

    #[inline]
    fn tag(&self, place: u32) -> Option<u64> {
        self.tags.get(place as usize).copied().flatten()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use crate::producer::report_notes::*;

    proptest! {
        #[test]
        fn returns_pushed_entries_unchanged_for_any_range(
            notes in prop::collection::vec((0..3i64, prop::option::weighted(0.2, any::<u64>())), 0..40),
            cut in 0..40u32,
            length in 0..40u32,
        ) {
            let notes: Vec<ReportNote> = notes.into_iter().map(|(timestamp, tag)| ReportNote { timestamp, tag }).collect();
            let mut kept = ReportNotes::default();
            notes.iter().for_each(|note| kept.push(*note));
            prop_assert_eq!((kept.len() as usize, kept.is_empty()), (notes.len(), notes.is_empty()));
            let all: Vec<ReportNote> = (0..).map_while(|place| kept.get(place)).collect();
            prop_assert_eq!(&all, &notes);
            let rest: Vec<(u32, ReportNote)> = kept.from(cut).collect();
            let expected = (0..).zip(notes.iter().copied()).skip(cut as usize);
            prop_assert_eq!(rest, expected.collect::<Vec<_>>());
            let part = kept.part(cut..cut + length);
            let expected: Vec<ReportNote> = notes.iter().skip(cut as usize).take(length as usize).copied().collect();
            prop_assert_eq!(part.from(0).map(|(_, note)| note).collect::<Vec<_>>(), expected);
        }
    }
}
