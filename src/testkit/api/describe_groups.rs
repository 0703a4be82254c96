//! DescribeGroups 0–6: classic groups with their members; a group that does not exist is `Dead` (an
//! error from v6 on).

use super::{Call, Context, Step, Subject, text};
use crate::{
    error::{ErrorCode, Result},
    testkit::state::{State, group::GroupView},
    wire::messages::{
        DescribeGroupsRequest, DescribeGroupsResponse,
        describe_groups_response::{DescribedGroup, DescribedGroupMember},
    },
};

pub(crate) struct DescribeGroups(pub(crate) DescribeGroupsRequest);

impl Call for DescribeGroups {
    fn subject(&self, _state: &State, _broker: i32) -> Subject {
        self.0.groups.first().map_or_else(Subject::default, |group| Subject::of_group(group))
    }

    fn act(&mut self, context: &mut Context<'_>) -> Result<Step> {
        let version = context.head.version;
        let mut response = DescribeGroupsResponse { throttle_time_ms: context.throttle(), ..Default::default() };
        for name in &self.0.groups {
            let refused = context.refused().map_or_else(|| context.check_group(name), Err);
            // A group of the consumer protocol has a request of its own (ConsumerGroupDescribe).
            let known = context.state.groups.contains_key(name.as_str());
            let group = known.then(|| context.state.group_mut(name, context.now));
            let view = group.filter(|group| !group.is_consumer()).map(|group| group.view());
            let mut described = DescribedGroup { group_id: name.clone(), ..Default::default() };
            match (refused, view) {
                (Err(error), _) => described.error_code = error.code(),
                (Ok(()), Some(view)) => fill_in(&mut described, view, version),
                (Ok(()), None) => {
                    described.group_state = text("Dead");
                    if version >= 6 {
                        described.error_code = ErrorCode::GROUP_ID_NOT_FOUND.code();
                        described.error_message = Some(text(format!("Group {} not found.", name.as_str())));
                    }
                }
            }
            response.groups.push(described);
        }
        context.reply(&response)
    }
}

fn fill_in(described: &mut DescribedGroup, view: GroupView, version: i16) {
    described.group_state = text(view.state);
    described.protocol_type = text(view.protocol_type);
    described.protocol_data = text(view.protocol.unwrap_or_default());
    let members = view.members.into_iter().map(|member| DescribedGroupMember {
        member_id: text(member.member_id),
        group_instance_id: member.instance_id.filter(|_| version >= 4).map(text),
        client_id: text(member.client_id),
        client_host: text("/127.0.0.1"),
        member_metadata: member.metadata,
        member_assignment: member.assignment,
    });
    described.members = members.collect();
}
