//! ListGroups 0–5: the groups that this broker coordinates, by state (v4) and type (v5).

use super::{Call, Context, Step, text};
use crate::{
    error::Result,
    wire::messages::{ListGroupsRequest, ListGroupsResponse, list_groups_response::ListedGroup},
};

pub(crate) struct ListGroups(pub(crate) ListGroupsRequest);

impl Call for ListGroups {
    fn act(&mut self, context: &mut Context<'_>) -> Result<Step> {
        let version = context.head.version;
        let mut response = ListGroupsResponse { throttle_time_ms: context.throttle(), ..Default::default() };
        let error = context.spoiled(context.refused().unwrap_or_default());
        response.error_code = error.code();
        let listed = |filter: &[crate::wire::byte_string::ByteString], value: &str| {
            filter.is_empty() || filter.iter().any(|wanted| wanted.eq_ignore_ascii_case(value))
        };
        let names: Vec<String> = context.state.groups.keys().cloned().collect();
        for name in names.into_iter().filter(|_| error.is_ok()) {
            let group = context.state.group_mut(&name, context.now);
            let kind = if group.is_consumer() { "consumer" } else { "classic" };
            let view = group.view();
            let here = context.state.coordinator(&name) == Some(context.broker);
            if !here || !listed(&self.0.states_filter, view.state) || !listed(&self.0.types_filter, kind) {
                continue;
            }
            let mut group = ListedGroup { group_id: text(name), ..Default::default() };
            group.protocol_type = text(view.protocol_type);
            if version >= 4 {
                group.group_state = text(view.state);
            }
            if version >= 5 {
                group.group_type = text(kind);
            }
            response.groups.push(group);
        }
        context.reply(&response)
    }
}
