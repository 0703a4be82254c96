//! DescribeCluster 0–2: the brokers that are up, or the controllers, which are the same here.

use super::{Call, Context, Step, text};
use crate::{
    error::Result,
    wire::messages::{
        DescribeClusterRequest, DescribeClusterResponse, describe_cluster_response::DescribeClusterBroker,
    },
};

pub(crate) struct DescribeCluster(pub(crate) DescribeClusterRequest);

impl Call for DescribeCluster {
    fn act(&mut self, context: &mut Context<'_>) -> Result<Step> {
        let mut response = DescribeClusterResponse { throttle_time_ms: context.throttle(), ..Default::default() };
        let error = context.spoiled(context.refused().unwrap_or_default());
        response.error_code = error.code();
        if context.head.version >= 1 {
            response.endpoint_type = self.0.endpoint_type;
        }
        response.cluster_id = text(context.state.options.cluster_id.as_str());
        response.controller_id = context.state.controller();
        if error.is_ok() {
            let up = context.state.brokers.iter().filter(|broker| broker.up);
            let described = up.map(|broker| DescribeClusterBroker {
                broker_id: broker.id,
                host: text(broker.host.as_str()),
                port: i32::from(broker.port),
                rack: broker.rack.as_deref().map(text),
                ..Default::default()
            });
            response.brokers = described.collect();
        } else {
            response.error_message = Some(text(error.message()));
        }
        context.reply(&response)
    }

    fn wakes(&self) -> bool {
        false
    }
}
