//! The connection that a partition is fetched over.

/// Identifies one of the connections to a broker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct FetchConnectionId {
    pub(crate) broker: i32,
    pub(crate) connection: u8,
}

/// The first connection to a broker, which always exists.
impl From<i32> for FetchConnectionId {
    fn from(broker: i32) -> Self {
        Self { broker, connection: 0 }
    }
}
