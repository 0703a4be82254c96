//! One broker's fetch session (KIP-227): the broker remembers the partitions and offsets of earlier
//! requests, so that a request names only the changes.
//!
//! Sans-IO.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

use uuid::Uuid;

use crate::{
    error::ErrorCode,
    record::TopicPartition,
    wire::fetch::{FetchPartition, FetchTopic, ForgottenTopic},
};

/// The request for one partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PartitionSpec {
    /// Nil if the broker does not know topic ids.
    pub(crate) topic_id: Uuid,
    /// Seek epoch of the partition's position: a response to an older one is stale.
    pub(crate) seek_epoch: u64,
    pub(crate) partition: FetchPartition,
}

/// The session's part of the next request.
#[derive(Clone, Debug, Default)]
pub(crate) struct SessionRequest {
    pub(crate) session_id: i32,
    pub(crate) session_epoch: i32,
    pub(crate) topics: Vec<FetchTopic>,
    pub(crate) forgotten: Vec<ForgottenTopic>,
}

/// Meaning of a response for the session as a whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SessionOutcome {
    /// The response's partitions can be read.
    Valid,
    /// The broker lost the session or its epoch: send a full request at once.
    Renewed,
    /// The whole response failed; the next request is a full one.
    Failed(ErrorCode),
}

#[derive(Debug, Default)]
pub(crate) struct FetchSession {
    /// 0 if there is no session.
    id: i32,
    /// 0 if the next request is a full one.
    epoch: i32,
    wanted: BTreeMap<TopicPartition, PartitionSpec>,
    /// Partitions that the broker knows once it has answered the outstanding request.
    sent: HashMap<TopicPartition, PartitionSpec>,
    changed: BTreeSet<TopicPartition>,
    /// Names of the topics that were requested by id.
    names: HashMap<Uuid, Arc<str>>,
    /// Each full request starts one partition later, because brokers without sessions serve the
    /// first ones first.
    turn: usize,
    /// Number of wanted partitions with a topic that is known by name only.
    nameless: usize,
    /// True if the last request named its topics; `full` is true if it was a full one.
    by_name: bool,
    full: bool,
}

impl FetchSession {
    /// Requests a partition from now on, or changes its request.
    pub(crate) fn add(&mut self, partition: TopicPartition, spec: PartitionSpec) {
        self.changed.insert(partition.clone());
        self.nameless += usize::from(spec.topic_id.is_nil());
        let before = self.wanted.insert(partition, spec);
        self.nameless -= usize::from(before.is_some_and(|before| before.topic_id.is_nil()));
    }

    /// Stops requesting a partition.
    pub(crate) fn remove(&mut self, partition: &TopicPartition) {
        if let Some(before) = self.wanted.remove(partition) {
            self.nameless -= usize::from(before.topic_id.is_nil());
            self.changed.insert(partition.clone());
        }
    }

    /// Returns the number of wanted partitions.
    pub(crate) fn len(&self) -> usize {
        self.wanted.len()
    }

    /// Returns the sum of the bytes that all partitions ask for.
    pub(crate) fn bytes(&self) -> usize {
        self.wanted.values().map(|spec| usize::try_from(spec.partition.max_bytes).unwrap_or(0)).sum()
    }

    /// Returns true if some topic's id is not known, so that topics have to be named (before v13).
    pub(crate) fn has_nameless(&self) -> bool {
        self.nameless > 0
    }

    /// Returns the next request. Only one may be outstanding: the response or the failure of the
    /// last one comes first.
    pub(crate) fn request(&mut self) -> SessionRequest {
        // A session uses either names or topic ids (KIP-516).
        let by_name = self.has_nameless();
        if std::mem::replace(&mut self.by_name, by_name) != by_name {
            self.renew(self.id);
        }
        self.full = self.epoch == 0;
        let mut request =
            SessionRequest { session_id: self.id, session_epoch: self.epoch, ..SessionRequest::default() };
        if self.epoch == 0 {
            self.changed.clear();
            self.names.clear();
            self.sent = self.wanted.iter().map(|(partition, spec)| (partition.clone(), spec.clone())).collect();
            self.names.extend(self.wanted.iter().map(|(partition, spec)| (spec.topic_id, partition.topic.clone())));
            let start = self.turn % self.wanted.len().max(1);
            self.turn = self.turn.wrapping_add(1);
            for (partition, spec) in self.wanted.iter().skip(start).chain(self.wanted.iter().take(start)) {
                ask(&mut request.topics, partition, spec);
            }
            return request;
        }
        for partition in std::mem::take(&mut self.changed) {
            let spec = self.wanted.get(&partition);
            let sent = self.sent.get(&partition);
            if let Some(sent) = sent
                && spec.is_none_or(|spec| spec.topic_id != sent.topic_id)
            {
                drop_from(&mut request.forgotten, &partition, sent.topic_id);
            }
            match spec {
                // A change of the seek epoch alone is not sent, because brokers do not know it.
                Some(spec)
                    if sent.is_some_and(|sent| sent.topic_id == spec.topic_id && sent.partition == spec.partition) =>
                {
                    self.sent.insert(partition, spec.clone());
                }
                Some(spec) => {
                    ask(&mut request.topics, &partition, spec);
                    self.names.insert(spec.topic_id, partition.topic.clone());
                    self.sent.insert(partition, spec.clone());
                }
                None => _ = self.sent.remove(&partition),
            }
        }
        request
    }

    /// Handles the session id and the error of a response.
    pub(crate) fn handle_response(&mut self, session_id: i32, error: ErrorCode) -> SessionOutcome {
        match error {
            ErrorCode::NONE if session_id == 0 => {
                self.renew(0);
                SessionOutcome::Valid
            }
            ErrorCode::NONE => {
                // The epoch never returns to 0, which would ask for a new session.
                self.epoch = self.epoch.checked_add(1).unwrap_or(1);
                self.id = session_id;
                SessionOutcome::Valid
            }
            error => {
                let of_the_session = [
                    ErrorCode::FETCH_SESSION_ID_NOT_FOUND,
                    ErrorCode::INVALID_FETCH_SESSION_EPOCH,
                    ErrorCode::FETCH_SESSION_TOPIC_ID_ERROR,
                ];
                self.renew(if error == ErrorCode::FETCH_SESSION_ID_NOT_FOUND { 0 } else { self.id });
                // A full request names no session that the broker could have lost, so the next one
                // would be refused as well.
                if of_the_session.contains(&error) && !self.full {
                    SessionOutcome::Renewed
                } else {
                    SessionOutcome::Failed(error)
                }
            }
        }
    }

    /// Handles a fetch without a response: the broker's state is not known. The next full request
    /// names the old session, which closes it there.
    pub(crate) fn handle_failure(&mut self) {
        self.renew(self.id);
    }

    fn renew(&mut self, id: i32) {
        (self.id, self.epoch) = (id, 0);
    }

    /// Returns the request that closes the session at the broker, or `None` if it has none. The
    /// session of a failed fetch, which the next full request would have closed, is included.
    pub(crate) fn closing(&self) -> Option<SessionRequest> {
        const FINAL: i32 = -1;
        let known = self.id != 0;
        known.then(|| SessionRequest { session_id: self.id, session_epoch: FINAL, ..SessionRequest::default() })
    }

    /// Returns true if the last fetch was answered, so that the broker is probably reachable.
    pub(crate) fn is_established(&self) -> bool {
        self.epoch != 0
    }

    /// Forgets the session after the broker was told to close it.
    pub(crate) fn closed(&mut self) {
        self.renew(0);
        self.sent.clear();
    }

    /// Returns the topic that was requested by that id.
    pub(crate) fn name(&self, topic_id: &Uuid) -> Option<&Arc<str>> {
        self.names.get(topic_id)
    }

    /// Returns the last request for a partition.
    pub(crate) fn requested(&self, partition: &TopicPartition) -> Option<&PartitionSpec> {
        self.sent.get(partition)
    }
}

fn ask(topics: &mut Vec<FetchTopic>, partition: &TopicPartition, spec: &PartitionSpec) {
    match topics.last_mut() {
        Some(last) if last.name == partition.topic && last.id == spec.topic_id => last.partitions.push(spec.partition),
        _ => topics.push(FetchTopic {
            name: partition.topic.clone(),
            id: spec.topic_id,
            partitions: vec![spec.partition],
        }),
    }
}

fn drop_from(forgotten: &mut Vec<ForgottenTopic>, partition: &TopicPartition, topic_id: Uuid) {
    match forgotten.last_mut() {
        Some(last) if last.name == partition.topic && last.id == topic_id => last.partitions.push(partition.partition),
        _ => forgotten.push(ForgottenTopic {
            name: partition.topic.clone(),
            id: topic_id,
            partitions: vec![partition.partition],
        }),
    }
}

#[cfg(test)]
mod tests {
    use crate::consumer::fetch::session::*;

    fn tp(topic: &str, partition: i32) -> TopicPartition {
        TopicPartition::new(topic, partition)
    }

    fn id(topic: &str) -> Uuid {
        Uuid::from_u128(topic.bytes().fold(1, |sum, byte| sum * 31 + u128::from(byte)))
    }

    fn wish(topic: &str, partition: i32, offset: i64) -> PartitionSpec {
        let partition = FetchPartition { partition, current_leader_epoch: 1, fetch_offset: offset, max_bytes: 100 };
        PartitionSpec { topic_id: id(topic), seek_epoch: 1, partition }
    }

    /// Formats topic, partition and offset of everything requested, then the forgotten partitions.
    fn shown(request: &SessionRequest) -> String {
        let asked = request.topics.iter().flat_map(|t| t.partitions.iter().map(move |p| (&t.name, p)));
        let asked: Vec<_> = asked.map(|(name, p)| format!("{name}{}@{}", p.partition, p.fetch_offset)).collect();
        let gone = request.forgotten.iter().flat_map(|t| t.partitions.iter().map(move |p| format!("-{}{p}", t.name)));
        let parts: Vec<_> = asked.into_iter().chain(gone).collect();
        format!("{}/{} {}", request.session_id, request.session_epoch, parts.join(" "))
    }

    #[test]
    fn first_request_is_full_later_ones_incremental() {
        let mut session = FetchSession::default();
        session.add(tp("a", 0), wish("a", 0, 0));
        session.add(tp("a", 1), wish("a", 1, 0));
        session.add(tp("b", 0), wish("b", 0, 5));
        assert_eq!(shown(&session.request()), "0/0 a0@0 a1@0 b0@5");
        assert_eq!(session.handle_response(77, ErrorCode::NONE), SessionOutcome::Valid);
        assert_eq!(shown(&session.request()), "77/1 ");
        assert_eq!(session.handle_response(77, ErrorCode::NONE), SessionOutcome::Valid);
        session.add(tp("a", 1), wish("a", 1, 9));
        session.remove(&tp("b", 0));
        session.add(tp("a", 0), wish("a", 0, 0));
        assert_eq!(shown(&session.request()), "77/2 a1@9 -b0");
        assert!(session.requested(&tp("b", 0)).is_none());
        assert_eq!(session.name(&id("a")).unwrap().as_ref(), "a");
    }

    #[test]
    fn closes_only_session_known_to_broker() {
        let mut session = FetchSession::default();
        assert!(session.closing().is_none());
        session.add(tp("a", 0), wish("a", 0, 0));
        session.request();
        assert!(session.closing().is_none(), "not answered yet");
        session.handle_response(7, ErrorCode::NONE);
        assert_eq!(shown(&session.closing().unwrap()), "7/-1 ");
        session.closed();
        assert!(session.closing().is_none());
        assert_eq!(shown(&session.request()), "0/0 a0@0");
        session.handle_response(8, ErrorCode::NONE);
        session.request();
        assert!(session.is_established());
        session.handle_failure();
        assert!(!session.is_established());
        assert_eq!(shown(&session.closing().unwrap()), "8/-1 ", "the broker may still have it");
        session.closed();
        assert!(session.closing().is_none());
    }

    #[test]
    fn recreated_topic_is_forgotten_by_old_id() {
        let mut session = FetchSession::default();
        session.add(tp("a", 0), wish("a", 0, 8));
        session.request();
        session.handle_response(7, ErrorCode::NONE);
        let anew = PartitionSpec { topic_id: Uuid::from_u128(99), ..wish("a", 0, 0) };
        session.add(tp("a", 0), anew);
        let request = session.request();
        assert_eq!(shown(&request), "7/1 a0@0 -a0");
        assert_eq!((request.topics[0].id, request.forgotten[0].id), (Uuid::from_u128(99), id("a")));
    }

    #[test]
    fn errors_renew_the_session() {
        let mut session = FetchSession::default();
        session.add(tp("a", 0), wish("a", 0, 0));
        session.request();
        session.handle_response(7, ErrorCode::NONE);
        session.request();
        session.handle_failure();
        assert_eq!(shown(&session.request()), "7/0 a0@0", "the old one is closed by naming it");
        session.handle_response(8, ErrorCode::NONE);
        session.request();
        assert_eq!(session.handle_response(0, ErrorCode::FETCH_SESSION_ID_NOT_FOUND), SessionOutcome::Renewed);
        assert_eq!(shown(&session.request()), "0/0 a0@0");
        session.handle_response(9, ErrorCode::NONE);
        session.request();
        assert_eq!(session.handle_response(0, ErrorCode::INVALID_FETCH_SESSION_EPOCH), SessionOutcome::Renewed);
        assert_eq!(shown(&session.request()), "9/0 a0@0");
        for code in [ErrorCode::INVALID_FETCH_SESSION_EPOCH, ErrorCode::FETCH_SESSION_ID_NOT_FOUND] {
            assert_eq!(
                session.handle_response(0, code),
                SessionOutcome::Failed(code),
                "another full request would be refused again"
            );
            assert_eq!(session.request().session_epoch, 0);
        }
        let failed = session.handle_response(0, ErrorCode::UNKNOWN_SERVER_ERROR);
        assert_eq!(failed, SessionOutcome::Failed(ErrorCode::UNKNOWN_SERVER_ERROR));
        assert_eq!(session.request().session_epoch, 0);
    }

    #[test]
    fn topic_without_id_begins_new_session() {
        let mut session = FetchSession::default();
        session.add(tp("a", 0), wish("a", 0, 0));
        session.request();
        session.handle_response(7, ErrorCode::NONE);
        session.add(tp("b", 0), PartitionSpec { topic_id: Uuid::nil(), ..wish("b", 0, 0) });
        assert_eq!(shown(&session.request()), "7/0 b0@0 a0@0");
        session.handle_response(8, ErrorCode::NONE);
        assert_eq!(shown(&session.request()), "8/1 ");
        session.handle_response(8, ErrorCode::NONE);
        session.add(tp("b", 0), wish("b", 0, 0));
        assert_eq!(shown(&session.request()), "8/0 a0@0 b0@0", "a topic id needs another session");
    }

    #[test]
    fn sessionless_requests_are_full_and_rotate() {
        let mut session = FetchSession::default();
        for partition in 0..3 {
            session.add(tp("a", partition), wish("a", partition, 0));
        }
        let mut seen = Vec::new();
        for _ in 0..4 {
            seen.push(shown(&session.request()));
            assert_eq!(session.handle_response(0, ErrorCode::NONE), SessionOutcome::Valid);
        }
        assert_eq!(seen, ["0/0 a0@0 a1@0 a2@0", "0/0 a1@0 a2@0 a0@0", "0/0 a2@0 a0@0 a1@0", "0/0 a0@0 a1@0 a2@0"]);
    }

    proptest::proptest! {
        /// A broker that applies every request and sometimes loses the session always ends up with
        /// the wanted partitions.
        #[test]
        fn broker_always_has_wanted_partitions(steps in proptest::collection::vec((0..8u8, 0..4i32, 0..9i64), 1..80)) {
            let mut session = FetchSession::default();
            let mut broker: Option<(i32, i32, BTreeMap<i32, i64>)> = None;
            let mut next_id = 1;
            let mut wanted = BTreeMap::new();
            for (op, partition, offset) in steps {
                match op {
                    0..=2 => { session.add(tp("a", partition), wish("a", partition, offset)); wanted.insert(partition, offset); }
                    3 => { session.remove(&tp("a", partition)); wanted.remove(&partition); }
                    4 => broker = None,
                    op => {
                        let request = session.request();
                        let known = broker.as_ref().is_some_and(|(id, epoch, _)| *id == request.session_id && *epoch == request.session_epoch);
                        if request.session_epoch != 0 && !known {
                            session.handle_response(0, ErrorCode::FETCH_SESSION_ID_NOT_FOUND);
                            continue;
                        }
                        let mut has = match &broker { Some((_, _, has)) if request.session_epoch != 0 => has.clone(), _ => BTreeMap::new() };
                        for topic in &request.forgotten { for p in &topic.partitions { has.remove(p); } }
                        for topic in &request.topics { for p in &topic.partitions { has.insert(p.partition, p.fetch_offset); } }
                        proptest::prop_assert_eq!(&has, &wanted);
                        let (id, epoch) = if request.session_epoch == 0 { next_id += 1; (next_id, 1) } else { (request.session_id, request.session_epoch + 1) };
                        broker = Some((id, epoch, has));
                        if op == 7 { session.handle_failure() } else { session.handle_response(id, ErrorCode::NONE); }
                    }
                }
            }
        }
    }
}
