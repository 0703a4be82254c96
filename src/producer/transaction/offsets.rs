//! The offsets of a transaction: calls that wait, the one that is sent, and the groups that were
//! added.
//!
//! Sans-IO.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
};

use super::request::CallId;
use crate::{
    error::{Error, ErrorKind, Result, clean},
    record::{GroupMetadata, OffsetAndMetadata, TopicPartition},
};

/// Checks the arguments of a call before anything is done. `cluster_id` is the id of the producer's
/// cluster, once it is known.
///
/// # Errors
/// `InvalidArgument`: a consumer without a group, a consumer of another cluster, or a negative
/// offset. `NotAssigned`: a partition that the consumer did not own at the time of its metadata.
pub(crate) fn check_arguments(
    group: &GroupMetadata,
    offsets: &[(TopicPartition, OffsetAndMetadata)],
    cluster_id: Option<&str>,
) -> Result<()> {
    let invalid = |message: String| Err(Error::new(ErrorKind::InvalidArgument, message));
    if group.group_id().is_empty() {
        return invalid("the consumer has no group.id, so its offsets cannot be committed".to_owned());
    }
    if let (Some(ours), Some(theirs)) = (cluster_id, group.cluster_id())
        && ours != theirs
    {
        return invalid(format!(
            "the consumer of group \"{}\" reads from cluster {}, but the producer writes to cluster {}: a transaction \
             cannot span both",
            group.group_id(),
            clean(theirs),
            clean(ours)
        ));
    }
    if let Some((of, at)) = offsets.iter().find(|(_, at)| at.offset < 0) {
        return invalid(format!("the offset of {of} is negative: {}", at.offset));
    }
    match offsets.iter().find(|(of, _)| !group.owns(of)) {
        Some((of, _)) => Err(Error::new(
            ErrorKind::NotAssigned,
            format!(
                "{of} is not among the partitions that member \"{}\" of group \"{}\" owned in generation {}: another \
                 member reads its records by now",
                clean(group.member_id()),
                group.group_id(),
                group.generation()
            ),
        )),
        None => Ok(()),
    }
}

/// Offsets of one group that are sent together, and the calls that wait for them.
#[derive(Debug)]
struct OffsetsCall {
    calls: Vec<CallId>,
    group: GroupMetadata,
    offsets: BTreeMap<TopicPartition, OffsetAndMetadata>,
}

/// The offsets of one transaction.
#[derive(Debug, Default)]
pub(crate) struct Offsets {
    waiting: VecDeque<OffsetsCall>,
    sending: Option<OffsetsCall>,
    /// Groups that the coordinator has added (first protocol).
    added: BTreeSet<Arc<str>>,
    /// Offsets of requests without an answer, of which a copy may still arrive.
    lost: BTreeMap<(Arc<str>, TopicPartition), OffsetAndMetadata>,
}

/// The next request for offsets.
#[derive(Debug)]
pub(crate) enum NextOffsets {
    None,
    Send(GroupMetadata, Vec<(TopicPartition, OffsetAndMetadata)>),
    /// A late copy of an earlier request could undo the next one: the coordinator stores offsets in
    /// the order of arrival.
    Conflict(TopicPartition),
}

impl Offsets {
    /// Adds a call. It joins the last call of its group if that still waits and has the same
    /// metadata: the last offset of a partition counts. Offsets of an older generation keep theirs,
    /// so that the coordinator refuses them.
    pub(crate) fn push(
        &mut self,
        call: CallId,
        group: GroupMetadata,
        offsets: impl IntoIterator<Item = (TopicPartition, OffsetAndMetadata)>,
    ) {
        let last = self.waiting.iter_mut().rfind(|waiting| waiting.group.group_id() == group.group_id());
        match last.filter(|waiting| waiting.group == group) {
            Some(waiting) => {
                waiting.calls.push(call);
                waiting.offsets.extend(offsets);
            }
            None => {
                let offsets = offsets.into_iter().collect();
                self.waiting.push_back(OffsetsCall { calls: vec![call], group, offsets });
            }
        }
    }

    /// Returns the next group that the coordinator has to add (first protocol).
    pub(crate) fn group_to_add(&self) -> Option<Arc<str>> {
        let missing = self.waiting.iter().find(|waiting| !self.added.contains(waiting.group.group_id()))?;
        Some(missing.group.group_id().into())
    }

    pub(crate) fn group_added(&mut self, group: Arc<str>) {
        self.added.insert(group);
    }

    /// Starts the next request. Groups have to be added first if `needs_adding`.
    pub(crate) fn start_sending(&mut self, needs_adding: bool) -> NextOffsets {
        let is_ready = |waiting: &OffsetsCall| !needs_adding || self.added.contains(waiting.group.group_id());
        let Some(next) = self.waiting.iter().position(is_ready).and_then(|at| self.waiting.remove(at)) else {
            return NextOffsets::None;
        };
        let group: Arc<str> = next.group.group_id().into();
        let differs = |(partition, offset): &(&TopicPartition, &OffsetAndMetadata)| {
            self.lost.get(&(Arc::clone(&group), (*partition).clone())).is_some_and(|lost| lost != *offset)
        };
        let conflict = next.offsets.iter().find(differs).map(|(partition, _)| partition.clone());
        let data = (next.group.clone(), next.offsets.iter().map(|(of, at)| (of.clone(), at.clone())).collect());
        self.sending = Some(next);
        conflict.map_or_else(|| NextOffsets::Send(data.0, data.1), NextOffsets::Conflict)
    }

    /// Notes that the request that is sent got no answer.
    pub(crate) fn mark_lost(&mut self) {
        if let Some(sending) = &self.sending {
            let group: Arc<str> = sending.group.group_id().into();
            let lost = sending.offsets.iter().map(|(of, at)| ((Arc::clone(&group), of.clone()), at.clone()));
            self.lost.extend(lost);
        }
    }

    /// Ends the request that was sent; returns the calls that waited for it.
    pub(crate) fn confirm_sent(&mut self) -> Vec<CallId> {
        self.sending.take().map_or_else(Vec::new, |sent| sent.calls)
    }

    /// Drops everything that waits or is sent, because the transaction will not commit; returns the
    /// calls.
    pub(crate) fn fail_all(&mut self) -> Vec<CallId> {
        let sending = self.sending.take();
        sending.into_iter().chain(self.waiting.drain(..)).flat_map(|call| call.calls).collect()
    }

    pub(crate) fn is_done(&self) -> bool {
        self.waiting.is_empty() && self.sending.is_none()
    }

    pub(crate) fn has_added(&self) -> bool {
        !self.added.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(offset: i64) -> Vec<(TopicPartition, OffsetAndMetadata)> {
        vec![(TopicPartition::new("in", 0), OffsetAndMetadata::new(offset))]
    }

    fn group(id: &str) -> GroupMetadata {
        GroupMetadata::without_member(id)
    }

    #[test]
    fn refuses_foreign_clusters_and_missing_groups() {
        let ours = group("g").with_cluster_id(Some("a".into()));
        check_arguments(&ours, &one(0), Some("a")).unwrap();
        check_arguments(&ours, &one(0), None).unwrap();
        check_arguments(&group("g"), &[], Some("a")).unwrap();
        for (group, offsets, word) in [
            (&ours, one(0), "cluster b"),
            (&group(""), one(0), "group.id"),
            (&group("g"), one(-1), "in[0] is negative"),
        ] {
            let error = check_arguments(group, &offsets, Some("b")).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidArgument);
            assert!(error.to_string().contains(word), "{error}");
        }
    }

    #[test]
    fn refuses_partitions_that_member_did_not_own() {
        let owned = Arc::new(BTreeMap::from([(TopicPartition::new("in", 0), 1)]));
        let member = group("g").with_generation("m", 2).with_owned(owned);
        check_arguments(&member, &one(5), None).unwrap();
        let both = [one(5), vec![(TopicPartition::new("in", 1), OffsetAndMetadata::new(5))]].concat();
        let error = check_arguments(&member, &both, None).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotAssigned);
        assert!(error.to_string().contains("in[1]"), "{error}");
        check_arguments(&group("g"), &both, None).unwrap();
    }

    #[test]
    fn calls_of_two_generations_stay_apart() {
        let mut offsets = Offsets::default();
        let member = |generation| group("g").with_generation("m", generation);
        for (call, generation, offset) in [(1, 2, 5), (2, 3, 8), (3, 3, 9)] {
            offsets.push(CallId(call), member(generation), one(offset));
        }
        for (generation, offset, calls) in [(2, 5, vec![CallId(1)]), (3, 9, vec![CallId(2), CallId(3)])] {
            let NextOffsets::Send(first, sent) = offsets.start_sending(false) else { panic!("there is a call") };
            assert_eq!((first.generation(), sent), (generation, one(offset)));
            assert_eq!(offsets.confirm_sent(), calls);
        }
    }

    #[test]
    fn waiting_calls_of_one_group_join() {
        let mut offsets = Offsets::default();
        offsets.push(CallId(1), group("g"), one(5));
        offsets.push(CallId(2), group("h"), one(6));
        offsets.push(CallId(3), group("g"), one(9));
        let NextOffsets::Send(_, sent) = offsets.start_sending(false) else { panic!("there is a call") };
        assert_eq!(sent, one(9), "the last offset counts");
        assert_eq!(offsets.confirm_sent(), [CallId(1), CallId(3)]);
        assert!(matches!(offsets.start_sending(true), NextOffsets::None), "its group is not added");
        assert_eq!(offsets.group_to_add().as_deref(), Some("h"));
        offsets.group_added("h".into());
        assert!(matches!(offsets.start_sending(true), NextOffsets::Send(..)));
        assert_eq!(offsets.fail_all(), [CallId(2)]);
        assert!(offsets.is_done());
    }
}
