//! The identity that a member states in its requests.

/// The ids with which a member identifies itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct MemberIdentity {
    pub(crate) member_id: String,
    pub(crate) instance: Option<String>,
}
