//! The identity that a member states in its requests.

/// The ids with which a member identifies itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct MemberIdentity {
    pub(crate) member_id: String,
    pub(crate) instance: Option<String>,
}

impl MemberIdentity {
    /// Returns true if a request with this identity, in that generation or epoch, names a member.
    pub(crate) fn names_member(&self, generation: i32) -> bool {
        generation >= 0 || !self.member_id.is_empty() || self.instance.is_some()
    }
}
