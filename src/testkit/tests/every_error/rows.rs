//! The list of the requests that are sent, the scenario of each, and the place of the error in its
//! response.

use std::fmt;

use super::{
    scenarios,
    stage::{Playing, Stage, TOPIC},
};
use crate::{
    ApiKey, ErrorCode,
    testkit::{Fault, Options, Sasl, on},
};

/// The place of the error in a response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// The API's own place for errors; the top if there are several.
    Top,
    /// At each partition, or at each topic.
    Entry,
    /// At each member.
    Member,
    /// Metadata: at each partition of a topic that is there.
    Partition,
}

impl Place {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Top => "top",
            Self::Entry => "entry",
            Self::Member => "member",
            Self::Partition => "partition",
        }
    }
}

pub(super) struct Row {
    pub(super) scenario: &'static str,
    pub(super) play: fn(Stage) -> Playing,
    pub(super) api: ApiKey,
    pub(super) place: Place,
    /// Number of requests that are served first.
    pub(super) skip: u64,
    pub(super) options: fn() -> Options,
}

impl fmt::Debug for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} {}", self.scenario, self.name(), self.place.name())
    }
}

impl Row {
    /// Returns the API, and the number of requests that are served first.
    pub(super) fn name(&self) -> String {
        match self.skip {
            0 => self.api.to_string(),
            skip => format!("{} from the {}th on", self.api, skip + 1),
        }
    }

    /// Returns true if a client that continues its work need not report anything. A consumer reads
    /// on while its group or its commits fail, so for those its records prove nothing.
    pub(super) fn work_counts(&self) -> bool {
        let cluster = [ApiKey::Metadata, ApiKey::ApiVersions, ApiKey::OffsetForLeaderEpoch];
        self.scenario.contains("producer") || cluster.contains(&self.api)
    }

    pub(super) fn fault(&self, code: ErrorCode) -> Fault {
        let fault = on(self.api).skip(self.skip).forever();
        match self.place {
            Place::Top => fault.whole_response().error(code),
            Place::Entry => fault.topic(TOPIC).error(code),
            Place::Member => fault.each_member().error(code),
            Place::Partition => fault.topic(TOPIC).act_then_error(code),
        }
    }
}

fn with_sasl() -> Options {
    Options::new().sasl(Sasl::new().user("alice", "secret"))
}

fn usual() -> Options {
    Options::new()
}

macro_rules! rows {
    ($($scenario:ident ($options:ident) { $($api:ident $place:ident $($skip:literal)?;)* })*) => {
        pub(super) static ROWS: &[Row] = &[$($(
            Row {
                scenario: stringify!($scenario),
                play: scenarios::$scenario,
                api: ApiKey::$api,
                place: Place::$place,
                skip: 0 $(+ $skip)?,
                options: $options,
            },
        )*)*];
    };
}

rows! {
    idempotent_producer (usual) {
        ApiVersions Top;
        Metadata Top;
        Metadata Top 1;
        Metadata Entry;
        Metadata Partition;
        InitProducerId Top;
        Produce Entry;
        Produce Entry 3;
    }
    transactional_producer (usual) {
        FindCoordinator Top;
        InitProducerId Top;
        Produce Entry;
        Produce Entry 3;
        TxnOffsetCommit Entry;
        EndTxn Top;
        EndTxn Top 2;
    }
    transactional_producer_of_first_protocol (usual) {
        InitProducerId Top;
        AddPartitionsToTxn Entry;
        AddPartitionsToTxn Entry 2;
        AddOffsetsToTxn Top;
        Produce Entry;
        TxnOffsetCommit Entry;
        EndTxn Top;
    }
    plain_producer (usual) {
        Metadata Entry;
        Produce Entry;
        Produce Entry 3;
    }
    producer_without_acks (usual) {
        Metadata Top;
        Metadata Entry;
    }
    authenticated_producer (with_sasl) {
        SaslHandshake Top;
        SaslAuthenticate Top;
    }
    assigned_consumer (usual) {
        ApiVersions Top;
        Metadata Top;
        Metadata Top 1;
        Metadata Entry;
        Metadata Entry 1;
        Metadata Partition;
        ListOffsets Entry;
        Fetch Top;
        Fetch Top 3;
        Fetch Entry;
        Fetch Entry 3;
    }
    consumer_behind_elections (usual) {
        OffsetForLeaderEpoch Entry;
    }
    assigned_consumer_with_group (usual) {
        FindCoordinator Top;
        OffsetCommit Entry;
        OffsetCommit Entry 1;
    }
    classic_member (usual) {
        ApiVersions Top 3;
        FindCoordinator Top;
        Metadata Entry;
        Metadata Entry 1;
        JoinGroup Top;
        SyncGroup Top;
        Heartbeat Top;
        OffsetFetch Top;
        OffsetFetch Entry;
        OffsetCommit Entry;
        LeaveGroup Top;
        LeaveGroup Member;
    }
    static_classic_member (usual) {
        JoinGroup Top;
        SyncGroup Top;
        Heartbeat Top;
        OffsetCommit Entry;
    }
    consumer_protocol_member (usual) {
        FindCoordinator Top;
        Metadata Entry;
        Metadata Entry 1;
        ConsumerGroupHeartbeat Top;
        ConsumerGroupHeartbeat Top 3;
        OffsetFetch Top;
        OffsetFetch Entry;
        OffsetCommit Entry;
        OffsetCommit Entry 1;
    }
    static_consumer_protocol_member (usual) {
        ConsumerGroupHeartbeat Top;
        ConsumerGroupHeartbeat Top 3;
        OffsetCommit Entry;
    }
    calls_of_consumer (usual) {
        FindCoordinator Top;
        Metadata Entry;
        ListOffsets Entry;
        OffsetFetch Top;
        OffsetFetch Entry;
        OffsetCommit Entry;
    }
    admin (usual) {
        ApiVersions Top;
        Metadata Top;
        Metadata Entry;
        CreateTopics Top;
        DeleteTopics Entry;
    }
}
