//! A group, as a test or an administrator sees it.
//!
//! Sans-IO.

use bytes::Bytes;

/// A group, as a test or an administrator sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct GroupView {
    /// Kafka's name for the group's state: `Empty`, `PreparingRebalance`, `CompletingRebalance` or
    /// `Stable`; for a group of the consumer protocol, of which this shows only a part, the name in
    /// [`ConsumerGroupView`](crate::testkit::ConsumerGroupView).
    pub state: &'static str,
    /// Rises with every rebalance.
    pub generation: i32,
    /// `consumer` for consumer groups; empty if no member has joined yet.
    pub protocol_type: String,
    /// The assignor that the members agreed on.
    pub protocol: Option<String>,
    /// The member that assigns.
    pub leader: Option<String>,
    /// The members, in the order in which they came.
    pub members: Vec<MemberView>,
}

/// A member of a [`GroupView`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct MemberView {
    /// The id that the coordinator gave the member.
    pub member_id: String,
    /// `group.instance.id` of a static member.
    pub instance_id: Option<String>,
    /// `client.id`.
    pub client_id: String,
    /// The member's metadata for the group's protocol (a serialized subscription).
    pub metadata: Bytes,
    /// The assignment from the leader (a serialized assignment).
    pub assignment: Bytes,
}
