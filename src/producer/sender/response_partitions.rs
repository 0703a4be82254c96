//! Matches the partitions of a response to those of its request.
//!
//! Sans-IO.

use smallvec::SmallVec;
use uuid::Uuid;

use crate::producer::sender::RequestPart;
use crate::wire::produce::ProducePartitionResponse;

/// The partitions of a response: found by the order of the request, or else by search.
pub(super) struct ResponsePartitions<'a> {
    partitions: SmallVec<[Option<ProducePartitionResponse<'a>>; 4]>,
    /// The remaining partitions, sorted, once one did not come in the request's order: brokers
    /// answer in the order of a hash table.
    sorted: Option<Vec<(ResponseKey<'a>, usize)>>,
}

type ResponseKey<'a> = (&'a str, Uuid, i32);

impl<'a> ResponsePartitions<'a> {
    pub(super) fn new(partitions: impl IntoIterator<Item = ProducePartitionResponse<'a>>) -> Self {
        Self { partitions: partitions.into_iter().map(Some).collect(), sorted: None }
    }

    /// Takes the answer for a part, once; if there are several, the first counts.
    pub(super) fn take(&mut self, guess: usize, part: &RequestPart) -> Option<ProducePartitionResponse<'a>> {
        let by_name = (&*part.topic, Uuid::nil(), part.partition);
        let by_id = Some(("", part.topic_id, part.partition)).filter(|_| !part.topic_id.is_nil());
        let at = match self.partitions.get(guess) {
            Some(Some(answer)) if key(answer) == by_name || Some(key(answer)) == by_id => guess,
            _ => self.find(by_name).or_else(|| self.find(by_id?))?,
        };
        self.partitions.get_mut(at)?.take()
    }

    fn find(&mut self, wanted: ResponseKey<'_>) -> Option<usize> {
        let partitions = &self.partitions;
        let sorted = self.sorted.get_or_insert_with(|| {
            let left = partitions.iter().enumerate().filter_map(|(at, answer)| Some((key(answer.as_ref()?), at)));
            let mut sorted: Vec<_> = left.collect();
            sorted.sort_unstable();
            sorted
        });
        let at = sorted.partition_point(|(key, _)| *key < wanted);
        sorted.get(at).filter(|(key, _)| *key == wanted).map(|(_, at)| *at)
    }

    pub(super) fn left(&self) -> usize {
        self.partitions.iter().flatten().count()
    }
}

/// Returns the topic's name or id, and the partition. A name takes precedence over an id beside it.
fn key<'a>(answer: &ProducePartitionResponse<'a>) -> ResponseKey<'a> {
    let id = if answer.topic.is_empty() { answer.topic_id } else { Uuid::nil() };
    (answer.topic, id, answer.partition)
}
