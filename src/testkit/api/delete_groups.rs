//! DeleteGroups 0–2: deletes groups without members, and their committed offsets.

use super::{Call, Context, Step, Subject};
use crate::{
    error::{ErrorCode, Result},
    testkit::state::State,
    wire::messages::{DeleteGroupsRequest, DeleteGroupsResponse, delete_groups_response::DeletableGroupResult},
};

pub(crate) struct DeleteGroups(pub(crate) DeleteGroupsRequest);

impl Call for DeleteGroups {
    fn subject(&self, _state: &State, _broker: i32) -> Subject {
        self.0.groups_names.first().map_or_else(Subject::default, |group| Subject::of_group(group))
    }

    fn act(&mut self, context: &mut Context<'_>) -> Result<Step> {
        let mut response = DeleteGroupsResponse { throttle_time_ms: context.throttle(), ..Default::default() };
        for name in &self.0.groups_names {
            let error = delete(context, name).err().unwrap_or_default();
            let error = context.spoiled(error);
            response.results.push(DeletableGroupResult {
                group_id: name.clone(),
                error_code: error.code(),
                ..Default::default()
            });
        }
        context.reply(&response)
    }
}

fn delete(context: &mut Context<'_>, name: &str) -> Result<(), ErrorCode> {
    if let Some(code) = context.refused() {
        return Err(code);
    }
    context.check_group(name)?;
    if !context.state.groups.contains_key(name) {
        return Err(ErrorCode::GROUP_ID_NOT_FOUND);
    }
    if !context.state.group_mut(name, context.now).is_empty() {
        return Err(ErrorCode::NON_EMPTY_GROUP);
    }
    context.state.groups.remove(name);
    Ok(())
}
