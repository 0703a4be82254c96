//! Pairs whose mend is on its way elsewhere. The list is to become empty.

use super::rows::Row;

/// Some pairs of some scenarios, and what they lack.
pub(super) struct Awaited {
    pub(super) scenarios: &'static [&'static str],
    /// APIs by name.
    apis: &'static [&'static str],
    /// The beginning of the complaint.
    complaint: &'static str,
    pub(super) why: &'static str,
}

impl Awaited {
    pub(super) fn covers(&self, row: &Row, complaint: &str) -> bool {
        self.scenarios.contains(&row.scenario)
            && self.apis.contains(&row.api.to_string().as_str())
            && complaint.starts_with(self.complaint)
    }
}

/// Hostilities that flood the log, by name.
pub(super) static FLOODS: &[&str] = &[
    "every second heartbeat fences the member",
    "a producer id that is none",
    "connections closed behind ListOffsets",
    "sixty partitions that cannot be fetched",
    "sixty partitions without a position",
    "sixty partitions that are out of range",
];

pub(super) static AWAITED: &[Awaited] = &[
    Awaited {
        scenarios: &["classic_member", "consumer_protocol_member"],
        apis: &["ApiVersions", "OffsetCommit", "LeaveGroup"],
        complaint: "is silent",
        why: "commits that are tried again for a minute, commits of a member that was put out, and a broker that refuses \
              ApiVersions to a running member are told with the code",
    },
    Awaited {
        scenarios: &["idempotent_producer", "plain_producer"],
        apis: &["Produce"],
        complaint: "floods the log",
        why: "failed records and raised epochs are gathered into few lines",
    },
    Awaited {
        scenarios: &["assigned_consumer", "classic_member", "consumer_protocol_member"],
        apis: &["Metadata"],
        complaint: "is silent",
        why: "an error of a topic names its code to the reader and in the status",
    },
    Awaited {
        scenarios: &[
            "assigned_consumer_with_group",
            "classic_member",
            "static_classic_member",
            "consumer_protocol_member",
            "static_consumer_protocol_member",
        ],
        apis: &[
            "FindCoordinator",
            "OffsetCommit",
            "JoinGroup",
            "SyncGroup",
            "Heartbeat",
            "ConsumerGroupHeartbeat",
            "OffsetFetch",
        ],
        complaint: "floods the log",
        why: "lines about commits and lost partitions come once in a while",
    },
];
