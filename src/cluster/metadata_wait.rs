//! Waits for metadata.

use std::sync::Arc;

use tokio::time::{Instant, timeout_at};

use crate::{
    cluster::{Metadata, core::Core, single_flight::closed},
    error::{Error, ErrorKind, Result},
};

/// Waits for metadata for which `found` returns a value; the caller has asked for the metadata
/// before. `gave_up` makes the error of the deadline.
pub(super) async fn wait<T>(
    core: &Core,
    deadline: Instant,
    mut found: impl FnMut(&Arc<Metadata>) -> Result<Option<T>>,
    gave_up: impl FnOnce(&Metadata) -> Error,
) -> Result<T> {
    let mut closing = core.closing.subscribe();
    let mut changes = core.metadata.changes();
    let mut failures = core.metadata.failures();
    failures.mark_unchanged();
    loop {
        if *closing.borrow() {
            return Err(closed());
        }
        changes.mark_unchanged();
        if let Some(found) = found(&core.metadata.current())? {
            return Ok(found);
        }
        if let Some(error) = core.unresolved() {
            return Err(error);
        }
        let change = async {
            tokio::select! {
                biased;
                _ = closing.wait_for(|closing| *closing) => {}
                _ = changes.changed() => {}
                _ = failures.changed() => {}
                _ = core.overdue() => {}
            }
        };
        let in_time = timeout_at(deadline, change).await.is_ok();
        let failure = failures.borrow_and_update().clone();
        match failure {
            // Waiting does not cure errors of settings, credentials or versions.
            Some(error)
                if matches!(
                    error.kind(),
                    ErrorKind::Configuration | ErrorKind::Authentication | ErrorKind::UnsupportedVersion
                ) =>
            {
                return Err(error);
            }
            Some(error) if !in_time => {
                let message = format!("no metadata before the deadline: {error}");
                return Err(Error::new(ErrorKind::Timeout, message).with_source(error));
            }
            None if !in_time => return Err(gave_up(&core.metadata.current())),
            _ => {}
        }
    }
}
