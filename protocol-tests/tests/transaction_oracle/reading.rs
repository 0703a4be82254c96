//! The requests that look at transactions: of readers, groups and administrators.

use kafka_protocol::{
    messages::{
        FetchRequest, ListOffsetsRequest, ListTransactionsRequest, OffsetCommitRequest, OffsetFetchRequest,
        TxnOffsetCommitRequest,
        fetch_request::{FetchPartition, FetchTopic},
        list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic},
        list_offsets_response::ListOffsetsPartitionResponse,
        offset_commit_request::{OffsetCommitRequestPartition, OffsetCommitRequestTopic},
        offset_fetch_request::OffsetFetchRequestTopic,
        txn_offset_commit_request::{TxnOffsetCommitRequestPartition, TxnOffsetCommitRequestTopic},
    },
    records::RecordBatchDecoder,
};

use tokio::time::{sleep, timeout};

use crate::{
    LONG, PAUSE,
    producer::Producer,
    script::{Script, error, text},
};

/// A member of a group, as TxnOffsetCommit names it.
#[derive(Clone, Debug)]
pub(crate) struct Member {
    pub(crate) id: String,
    pub(crate) generation: i32,
    pub(crate) instance: Option<&'static str>,
}

impl Member {
    pub(crate) const NONE: Self = Self { id: String::new(), generation: -1, instance: None };

    pub(crate) fn new(id: impl Into<String>, generation: i32) -> Self {
        Self { id: id.into(), generation, instance: None }
    }
}

impl Script {
    /// Fetches a partition of the scene's topic from its beginning, at both levels of isolation,
    /// and lists its end.
    pub(crate) async fn read(&mut self, partition: i32) {
        for committed in [false, true] {
            self.fetch(partition, committed).await;
            self.list_end(partition, committed).await;
        }
    }

    async fn fetch(&mut self, partition: i32, committed: bool) {
        let asked = FetchPartition::default().with_partition(partition).with_partition_max_bytes(1 << 20);
        let asked = asked.with_current_leader_epoch(-1).with_log_start_offset(-1);
        let topic = FetchTopic::default().with_topic(text(&self.topic()).into()).with_partitions(vec![asked]);
        let request = FetchRequest::default()
            .with_replica_id((-1).into())
            .with_max_bytes(1 << 20)
            .with_isolation_level(i8::from(committed))
            .with_session_epoch(-1)
            .with_topics(vec![topic]);
        let response = self.connection.call(&request, 11).await;
        let found = &response.responses[0].partitions[0];
        let mut aborted = Vec::new();
        for transaction in found.aborted_transactions.iter().flatten() {
            aborted.push(format!("{} from {}", self.id(transaction.producer_id.0), transaction.first_offset));
        }
        let mut records = Vec::new();
        let mut bytes = found.records.clone().unwrap_or_default();
        for set in RecordBatchDecoder::decode_all(&mut bytes).expect("sound batches") {
            for record in set.records {
                let kind = if record.control { format!(" marker {:?}", record.key) } else { String::new() };
                let producer = self.identity(record.producer_id, record.producer_epoch);
                records.push(format!("{} of {producer}{kind}", record.offset));
            }
        }
        let ends = (found.high_watermark, found.last_stable_offset);
        let listed = if found.aborted_transactions.is_some() { "" } else { "no list, " };
        let answer = format!("{}, {ends:?}, {listed}aborted {aborted:?}, {records:?}", error(found.error_code));
        self.note(format!("Fetch 11 [{partition}], read_committed {committed}"), answer);
    }

    /// Waits until the partitions of the scene's topic have leaders that know about it.
    pub(crate) async fn until_led(&mut self, partitions: i32) {
        for partition in 0..partitions {
            let led = async {
                while self.log_end(partition, false).await.error_code != 0 {
                    sleep(PAUSE).await;
                }
            };
            timeout(LONG, led).await.expect("a leader");
        }
    }

    async fn list_end(&mut self, partition: i32, committed: bool) {
        let found = self.log_end(partition, committed).await;
        let answer = format!("{} @{}", error(found.error_code), found.offset);
        self.note(format!("ListOffsets 5 [{partition}], read_committed {committed}"), answer);
    }

    /// Looks the end of a partition up, without a note.
    async fn log_end(&mut self, partition: i32, committed: bool) -> ListOffsetsPartitionResponse {
        let asked = ListOffsetsPartition::default().with_partition_index(partition);
        let asked = asked.with_current_leader_epoch(-1).with_timestamp(-1);
        let topic = ListOffsetsTopic::default().with_name(text(&self.topic()).into()).with_partitions(vec![asked]);
        let request = ListOffsetsRequest::default().with_replica_id((-1).into()).with_topics(vec![topic]);
        let mut response = self.connection.call(&request.with_isolation_level(i8::from(committed)), 5).await;
        response.topics[0].partitions.swap_remove(0)
    }

    /// Notes the coordinator's view of a transactional id.
    pub(crate) async fn describe(&mut self, what: &str, transactional_id: &str) {
        let view = self.view(transactional_id).await;
        let producer = self.identity(view.producer_id.0, view.producer_epoch);
        let mut topics: Vec<_> = view
            .topics
            .iter()
            .map(|topic| {
                let mut partitions = topic.partitions.clone();
                partitions.sort_unstable();
                match topic.topic.strip_prefix(&*self.run) {
                    // The partition depends on the number of partitions that the cluster has.
                    None => topic.topic.to_string(),
                    Some(name) => format!("{name}{partitions:?}"),
                }
            })
            .collect();
        topics.sort();
        let start = match view.transaction_start_time_ms {
            1.. => "begun",
            other => {
                if other == -1 {
                    "never begun"
                } else {
                    "begun at 0"
                }
            }
        };
        let state = (view.transaction_state.to_string(), view.transaction_timeout_ms);
        let answer = format!("{}, {state:?}, {producer}, {start}, {topics:?}", error(view.error_code));
        self.note(format!("DescribeTransactions of {what}"), answer);
    }

    /// Lists the transactions of this scene that a filter lets through.
    pub(crate) async fn list(&mut self, what: &str, request: &ListTransactionsRequest, version: i16) {
        let response = self.connection.call(request, version).await;
        let prefix = self.name("");
        let mut found = Vec::new();
        for state in &response.transaction_states {
            if let Some(name) = state.transactional_id.strip_prefix(&*prefix) {
                let producer = self.id(state.producer_id.0);
                found.push(format!("{name}: {producer} {}", state.transaction_state));
            }
        }
        found.sort();
        let unknown: Vec<_> = response.unknown_state_filters.iter().map(ToString::to_string).collect();
        let answer = format!("{}, unknown {unknown:?}, {found:?}", error(response.error_code));
        self.note(format!("ListTransactions {version} {what}"), answer);
    }

    /// Sends TxnOffsetCommit for partition 0 without a member.
    pub(crate) async fn commit_offset(&mut self, producer: &Producer, group: &str, offset: i64) {
        self.commit_offset_as(producer, group, (0, offset), &Member::NONE, producer.protocol.offsets).await;
    }

    /// Adds a group if the protocol asks for it, and sends TxnOffsetCommit.
    pub(crate) async fn send_offset(&mut self, producer: &Producer, group: &str, offset: i64) {
        if producer.protocol.adds {
            self.add_offsets(producer, group, 4).await;
        }
        self.commit_offset(producer, group, offset).await;
    }

    /// Sends TxnOffsetCommit for a partition and offset, with a member.
    pub(crate) async fn commit_offset_as(
        &mut self,
        producer: &Producer,
        group: &str,
        (partition, offset): (i32, i64),
        member: &Member,
        version: i16,
    ) {
        let request = self.offset_commit(producer, group, (partition, offset), member);
        self.commit_in_transaction(producer, &format!("{group:?} [{partition}] {offset}"), &request, member, version)
            .await;
    }

    /// Returns a TxnOffsetCommit request.
    pub(crate) fn offset_commit(
        &self,
        producer: &Producer,
        group: &str,
        (partition, offset): (i32, i64),
        member: &Member,
    ) -> TxnOffsetCommitRequest {
        let group = if group.is_empty() { String::new() } else { self.name(group) };
        let asked = TxnOffsetCommitRequestPartition::default().with_partition_index(partition);
        let asked = asked.with_committed_offset(offset).with_committed_metadata(Some(text("note")));
        let topic = TxnOffsetCommitRequestTopic::default().with_name(text(&self.topic()).into());
        TxnOffsetCommitRequest::default()
            .with_transactional_id(text(&producer.transactional_id).into())
            .with_group_id(text(&group).into())
            .with_producer_id(producer.id.into())
            .with_producer_epoch(producer.epoch)
            .with_member_id(text(&member.id))
            .with_generation_id(member.generation)
            .with_group_instance_id(member.instance.map(text))
            .with_topics(vec![topic.with_partitions(vec![asked])])
    }

    /// Sends a TxnOffsetCommit request as given.
    pub(crate) async fn commit_in_transaction(
        &mut self,
        producer: &Producer,
        what: &str,
        request: &TxnOffsetCommitRequest,
        member: &Member,
        version: i16,
    ) {
        let response = self.connection.call(request, version).await;
        let codes = response.topics.iter().flat_map(|topic| &topic.partitions);
        let codes: Vec<_> = codes.map(|partition| error(partition.error_code)).collect();
        let who = self.identity(producer.id, producer.epoch);
        let by = match (member.id.is_empty(), member.generation) {
            (true, -1) => "no member".to_owned(),
            (is_empty, generation) => format!("{} in {generation}", if is_empty { "no member" } else { "a member" }),
        };
        let step = format!("{} as {who}: TxnOffsetCommit {version} {what} of {by}", producer.name);
        self.note(step, codes.join(", "));
    }

    /// Commits an offset of partition 0 outside of a transaction.
    pub(crate) async fn commit_outside(&mut self, group: &str, offset: i64) {
        let asked = OffsetCommitRequestPartition::default().with_committed_offset(offset);
        let topic = OffsetCommitRequestTopic::default().with_name(text(&self.topic()).into());
        let request = OffsetCommitRequest::default()
            .with_group_id(text(&self.name(group)).into())
            .with_generation_id_or_member_epoch(-1)
            .with_topics(vec![topic.with_partitions(vec![asked])]);
        let response = self.connection.call(&request, 8).await;
        let code = response.topics[0].partitions[0].error_code;
        self.note(format!("OffsetCommit 8 {group:?} {offset}"), error(code));
    }

    /// Looks the committed offset of partition 0 up, with and without `require_stable`.
    pub(crate) async fn committed(&mut self, group: &str) {
        for stable in [false, true] {
            let topic = OffsetFetchRequestTopic::default().with_name(text(&self.topic()).into());
            let request = OffsetFetchRequest::default()
                .with_group_id(text(&self.name(group)).into())
                .with_require_stable(stable)
                .with_topics(Some(vec![topic.with_partition_indexes(vec![0])]));
            let response = self.connection.call(&request, 7).await;
            let found = &response.topics[0].partitions[0];
            let metadata = found.metadata.as_ref().map(ToString::to_string);
            let codes = (error(response.error_code), error(found.error_code));
            let answer = format!("{codes:?}, {} {metadata:?}", found.committed_offset);
            self.note(format!("OffsetFetch 7 {group:?}, require_stable {stable}"), answer);
        }
    }
}
