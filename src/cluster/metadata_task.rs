//! The task that asks for metadata when the plan says so.

use std::sync::Arc;

use tokio::time::{sleep_until, timeout};

use super::{ConnectionKind, VersionBounds, core::Core, metadata_merge::MetadataScope, metadata_plan::PlanStep};
use crate::cluster::deadline::now;
use crate::cluster::{deadline::saturating_deadline, least_loaded_node};
use crate::{
    error::{Error, ErrorCode, ErrorKind, Result},
    log::event,
    wire::{
        ApiKey,
        byte_string::ByteString,
        messages::{MetadataRequest, MetadataResponse, metadata_request::MetadataRequestTopic},
    },
};

/// First version in which brokers do not report leader epochs older than ones they reported before.
const RELIABLE_EPOCHS: i16 = 9;

/// Runs until the client closes. If the task ends in any other way (its runtime was dropped), it
/// closes the client, so that callers do not wait for metadata that will not arrive.
pub(super) async fn run(core: Arc<Core>) {
    struct CloseOnDrop(Arc<Core>);
    impl Drop for CloseOnDrop {
        fn drop(&mut self) {
            self.0.close();
        }
    }
    let core = CloseOnDrop(core);
    let core = &core.0;
    let mut closing = core.closing.subscribe();
    loop {
        let step = core.metadata.plan().next(now());
        tokio::select! {
            biased;
            _ = closing.wait_for(|closing| *closing) => return,
            () = carry_out(core, step) => {}
        }
    }
}

async fn carry_out(core: &Arc<Core>, step: PlanStep) {
    match step {
        PlanStep::Wait(until) => tokio::select! {
            biased;
            () = core.metadata.wake.notified() => {}
            () = sleep_until(until.into()) => {}
        },
        PlanStep::Ask(asked) => match ask(core, &asked).await {
            Ok(response) => {
                let before = core.metadata.current().cluster_id.clone();
                let metadata = core.metadata.answered(response, &asked);
                let another = before.is_some() && metadata.cluster_id.is_some() && before != metadata.cluster_id;
                core.pool.metadata_changed(&metadata, another);
            }
            Err(error) => {
                if error.code() == Some(ErrorCode::REBOOTSTRAP_REQUIRED) {
                    core.metadata.require_rebootstrap();
                }
                core.metadata.failed(core.unresolved().unwrap_or(error));
            }
        },
    }
}

async fn ask(core: &Arc<Core>, asked: &MetadataScope) -> Result<MetadataResponse> {
    let deadline = saturating_deadline(now(), core.settings.request_timeout);
    let (rebootstrap, may_rebootstrap, patience) = {
        let mut plan = core.metadata.plan();
        (plan.take_rebootstrap(), plan.may_rebootstrap(), plan.attempt_timeout())
    };
    let (_, connection) = if rebootstrap {
        if core.metadata.plan().may_log_rebootstrap(now()) {
            event!(
                WARN,
                core.settings.origin,
                "known brokers have not answered for metadata.recovery.rebootstrap.trigger.ms, or one asked for a restart: the \
                 client starts again from bootstrap.servers"
            );
        }
        core.features().rebootstrap();
        least_loaded_node::bootstrap(core, deadline).await?
    } else {
        least_loaded_node::least_loaded_node(core, ConnectionKind::Main, may_rebootstrap, deadline).await?
    };
    let version = connection.versions().pick(ApiKey::Metadata, VersionBounds::ANY)?;
    let build = |version| request(asked, version, core.settings.allow_auto_create_topics);
    // The connection stays open when the timeout passes, because other requests on it may have more
    // time.
    let answer = timeout(patience, core.send_on(&connection, deadline, VersionBounds::exactly(version), build)).await;
    let mut response = answer.map_err(|_| {
        let message = format!("{}: no answer to Metadata after {} ms", connection.peer(), patience.as_millis());
        Error::new(ErrorKind::Timeout, message)
    })??;
    let code = ErrorCode::new(response.error_code);
    if !code.is_ok() {
        return Err(Error::broker(code, "Metadata"));
    }
    if response.brokers.is_empty() {
        // A broker that is just starting knows no brokers yet, not even itself.
        return Err(Error::new(ErrorKind::Network, "the broker's metadata names no brokers"));
    }
    if version < RELIABLE_EPOCHS {
        let partitions = response.topics.iter_mut().flat_map(|topic| &mut topic.partitions);
        partitions.for_each(|partition| partition.leader_epoch = -1);
    }
    Ok(response)
}

/// First version that looks up topics by their ids.
const TOPIC_IDS: i16 = 12;

fn request(asked: &MetadataScope, version: i16, allow_auto_create: bool) -> MetadataRequest {
    let topics = match asked {
        // Version 0 cannot ask for no topics; an empty list means all of them.
        MetadataScope::All => (version == 0).then(Vec::new),
        MetadataScope::Topics(names) => Some(names.iter().map(|name| topic(name)).collect()),
        MetadataScope::Ids(ids) if version >= TOPIC_IDS => {
            let topics = ids.iter().map(|id| MetadataRequestTopic { name: None, topic_id: *id });
            Some(topics.collect())
        }
        MetadataScope::Ids(_) => Some(Vec::new()),
    };
    // Older brokers create topics by their own configuration, regardless of the client.
    MetadataRequest { topics, allow_auto_topic_creation: allow_auto_create || version < 4, ..Default::default() }
}

fn topic(name: &str) -> MetadataRequestTopic {
    MetadataRequestTopic { name: Some(ByteString::from(name.to_owned())), ..Default::default() }
}
