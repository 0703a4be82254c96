//! Commands from a group handle to the membership's task.

use crate::{
    consumer::{group::member_snapshot::Identity, subscription::topics::Subscription},
    error::{Error, Result},
};
use tokio::{sync::oneshot, time::Instant};

/// A command from a handle to the membership's task.
#[derive(Debug)]
pub(crate) enum Command {
    Subscribe(Option<Subscription>),
    /// The coordinator refused that member's commit or look-up of committed offsets.
    CommitRefused {
        identity: Identity,
        said: Error,
    },
    Close {
        deadline: Instant,
        done: oneshot::Sender<Result<()>>,
    },
}
