//! Pairs that are excused, each with the reason. A new API must not be listed here.

use super::rows::Row;

/// Some pairs of some scenarios, and the complaint that is excused.
pub(super) struct Excused {
    pub(super) scenarios: &'static [&'static str],
    /// APIs by name.
    apis: &'static [&'static str],
    /// The beginning of the complaint.
    complaint: &'static str,
    pub(super) why: &'static str,
}

impl Excused {
    pub(super) fn covers(&self, row: &Row, complaint: &str) -> bool {
        self.scenarios.contains(&row.scenario)
            && self.apis.contains(&row.api.to_string().as_str())
            && complaint.starts_with(self.complaint)
    }
}

/// Hostilities that are excused from the bound on log lines, by name: each generation of a group is
/// one line at INFO, and the pace of joins bounds their number.
pub(super) static FLOODS: &[&str] = &["every second heartbeat fences the member"];

pub(super) static EXCUSED: &[Excused] = &[
    Excused {
        scenarios: &["classic_member"],
        apis: &["LeaveGroup"],
        complaint: "is silent",
        why: "a member that leaves and that the coordinator does not know (UNKNOWN_MEMBER_ID) has left",
    },
    Excused {
        scenarios: &["classic_member", "static_classic_member", "static_consumer_protocol_member"],
        apis: &["Heartbeat", "ConsumerGroupHeartbeat"],
        complaint: "floods the log",
        why: "joins, assignments and revocations are one line at INFO for each generation, and the pace of joins bounds \
              their number",
    },
];
