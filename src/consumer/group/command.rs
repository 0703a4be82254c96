//! Commands from a group handle to the membership's task.

use crate::{
    consumer::{group::classic::Identity, subscription::topics::Subscription},
    error::{Error, Result},
};
use tokio::{sync::oneshot, time::Instant};

/// What the handles ask of the task.
#[derive(Debug)]
pub(crate) enum Command {
    Subscribe(Option<Subscription>),
    /// The coordinator refused a commit, or a look-up of committed offsets, in the name of that
    /// member.
    CommitRefused {
        identity: Identity,
        said: Error,
    },
    Close {
        deadline: Instant,
        done: oneshot::Sender<Result<()>>,
    },
}
