//! Log lines for records that failed permanently: one line for each cause, with the number of
//! records.
//!
//! Sans-IO.

use std::{
    collections::BTreeSet,
    sync::Arc,
    time::{Duration, Instant},
};

use crate::{
    error::{DeliveryStatus, Error, ErrorCode, ErrorKind},
    log::{Origin, event, several},
};

/// Minimum time between two lines of one cause.
const INTERVAL: Duration = Duration::from_secs(10);
/// Maximum number of partitions that one line lists.
const PLACES: usize = 1024;

type Cause = (ErrorKind, Option<ErrorCode>);

/// Failures by cause. The first failure of a cause is logged at once; later ones within ten seconds
/// are summarized in one line.
#[derive(Debug, Default)]
pub(crate) struct Failures(Vec<(Cause, Gathered)>);

#[derive(Debug)]
struct Gathered {
    written: Instant,
    unwritten: Option<FailureLine>,
}

/// A topic, and the partition if the record had one.
pub(crate) type FailurePlace<'a> = (&'a str, Option<i32>);

/// One log line.
#[derive(Debug)]
pub(crate) struct FailureLine {
    error: Error,
    status: DeliveryStatus,
    records: u64,
    /// Batches, and records that failed individually.
    failures: u64,
    places: BTreeSet<(Arc<str>, Option<i32>)>,
}

impl FailureLine {
    fn new((topic, partition): FailurePlace<'_>, records: u32, error: &Error) -> Self {
        Self {
            error: error.clone(),
            status: error.delivery_status().unwrap_or(DeliveryStatus::NotPersisted),
            records: u64::from(records),
            failures: 1,
            places: BTreeSet::from([(topic.into(), partition)]),
        }
    }

    fn add(&mut self, (topic, partition): FailurePlace<'_>, records: u32, error: &Error) {
        self.records += u64::from(records);
        self.failures += 1;
        if error.delivery_status() == Some(DeliveryStatus::PossiblyPersisted) {
            self.status = DeliveryStatus::PossiblyPersisted;
        }
        if self.places.len() < PLACES {
            self.places.insert((topic.into(), partition));
        }
    }

    pub(crate) fn write(&self, origin: &Origin) {
        let places: Vec<String> = self.places.iter().map(|(topic, partition)| place(topic, *partition)).collect();
        let Some((topic, partition)) = self.places.first() else { return };
        let code = self.error.code().map(tracing::field::display);
        let (records, failures, status, error) = (self.records, self.failures, self.status, &self.error);
        event!(
            WARN, origin, topic = &**topic, partition, places = %several(&places), count = places.len(), records, failures,
            code, %error, ?status, advice = error.advice(),
            "records failed permanently: the producer does not send them again"
        );
    }
}

fn place(topic: &str, partition: Option<i32>) -> String {
    partition.map_or_else(|| topic.to_owned(), |partition| format!("{topic}[{partition}]"))
}

impl Failures {
    /// Adds failed records. Returns the line to write now, if any.
    pub(crate) fn failed(
        &mut self,
        at: FailurePlace<'_>,
        records: u32,
        error: &Error,
        now: Instant,
    ) -> Option<FailureLine> {
        let cause = (error.kind(), error.code());
        let Some((_, gathered)) = self.0.iter_mut().find(|(known, _)| *known == cause) else {
            self.0.push((cause, Gathered { written: now, unwritten: None }));
            return Some(FailureLine::new(at, records, error));
        };
        let line = match gathered.unwritten.take() {
            Some(mut line) => {
                line.add(at, records, error);
                line
            }
            None => FailureLine::new(at, records, error),
        };
        if now.saturating_duration_since(gathered.written) >= INTERVAL {
            gathered.written = now;
            return Some(line);
        }
        gathered.unwritten = Some(line);
        None
    }

    /// Returns the lines that are due, or all.
    pub(crate) fn take_due(&mut self, all: bool, now: Instant) -> Vec<FailureLine> {
        let mut due = Vec::new();
        for (_, gathered) in &mut self.0 {
            let is_due = all || now.saturating_duration_since(gathered.written) >= INTERVAL;
            if let Some(line) = gathered.unwritten.take_if(|_| is_due) {
                gathered.written = now;
                due.push(line);
            }
        }
        due
    }

    /// Returns the time at which the next line is due.
    pub(crate) fn next_due(&self) -> Option<Instant> {
        let gathered = self.0.iter().filter(|(_, gathered)| gathered.unwritten.is_some());
        gathered.map(|(_, gathered)| gathered.written + INTERVAL).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn error(status: DeliveryStatus) -> Error {
        Error::broker(ErrorCode::NOT_ENOUGH_REPLICAS, "produce").with_status(status)
    }

    #[test]
    fn summarizes_repeated_cause_every_ten_seconds() {
        let (mut failures, start) = (Failures::default(), Instant::now());
        let refused = error(DeliveryStatus::NotPersisted);
        assert_eq!(
            failures.failed(("t", Some(0)), 5, &refused, start).unwrap().records,
            5,
            "the first failure is logged at once"
        );
        for partition in 1..200 {
            assert!(failures.failed(("t", Some(partition)), 2, &refused, start + SECOND).is_none());
        }
        assert!(
            failures.failed(("t", Some(1)), 1, &error(DeliveryStatus::PossiblyPersisted), start + SECOND).is_none()
        );
        assert_eq!(failures.next_due(), Some(start + INTERVAL));
        assert!(failures.take_due(false, start + 9 * SECOND).is_empty());
        let [line] = <[FailureLine; 1]>::try_from(failures.take_due(false, start + INTERVAL)).unwrap();
        assert_eq!((line.records, line.failures, line.places.len()), (399, 200, 199));
        assert_eq!(line.status, DeliveryStatus::PossiblyPersisted, "the line has the worst status");
        assert!(failures.next_due().is_none() && failures.take_due(true, start + INTERVAL).is_empty());
    }

    #[test]
    fn every_cause_has_its_own_line() {
        let (mut failures, start) = (Failures::default(), Instant::now());
        let other = Error::new(ErrorKind::RecordTooLarge, "too large");
        assert!(failures.failed(("t", None), 1, &error(DeliveryStatus::NotPersisted), start).is_some());
        assert!(failures.failed(("t", None), 1, &other, start).is_some());
        assert!(failures.failed(("t", None), 1, &other, start + SECOND).is_none());
        assert!(failures.failed(("t", None), 1, &other, start + 99 * SECOND).is_some_and(|line| line.records == 2));
    }
}
