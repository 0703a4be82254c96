//! The newest picture of the cluster, and who waits for the next one.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arc_swap::{ArcSwap, Guard};
use kafka_protocol::messages::MetadataResponse;
use tokio::{
    sync::{Notify, watch},
    time::{Instant, timeout_at},
};
use uuid::Uuid;

use super::{Metadata, connection::now, core::Core, flight::closed, metadata_merge::Asked, metadata_plan::Plan};
use crate::{
    error::{Error, ErrorKind, Result},
    wire::fetch::NodeEndpoint,
};

#[derive(Debug)]
pub(super) struct MetadataCache {
    picture: ArcSwap<Metadata>,
    /// Held while the next picture is made out of the last, so that none is lost.
    changing: Mutex<()>,
    changes: watch::Sender<u64>,
    failure: watch::Sender<Option<Error>>,
    plan: Mutex<Plan>,
    pub(super) wake: Notify,
}

impl MetadataCache {
    pub(super) fn new(plan: Plan) -> Self {
        Self {
            picture: ArcSwap::default(),
            changing: Mutex::new(()),
            changes: watch::Sender::new(0),
            failure: watch::Sender::new(None),
            plan: Mutex::new(plan),
            wake: Notify::new(),
        }
    }

    pub(super) fn picture(&self) -> Arc<Metadata> {
        self.picture.load_full()
    }

    pub(super) fn picture_ref(&self) -> Guard<Arc<Metadata>> {
        self.picture.load()
    }

    pub(super) fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    pub(super) fn failure(&self) -> Option<Error> {
        self.failure.borrow().clone()
    }

    pub(super) fn plan(&self) -> MutexGuard<'_, Plan> {
        self.plan.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self, next: impl FnOnce(&Metadata) -> Option<Metadata>) -> Option<Arc<Metadata>> {
        let _changing = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let next = Arc::new(next(&self.picture.load())?);
        self.picture.store(Arc::clone(&next));
        self.changes.send_replace(next.version);
        Some(next)
    }

    pub(super) fn learn_leader(
        &self,
        topic: &str,
        partition: i32,
        leader: i32,
        epoch: i32,
        endpoints: &[NodeEndpoint],
    ) {
        self.change(|last| last.with_leader(topic, partition, leader, epoch, endpoints));
    }

    pub(super) fn learn_brokers(&self, endpoints: &[NodeEndpoint]) {
        self.change(|last| last.with_brokers(endpoints));
    }

    /// Topics that are wanted from now on.
    pub(super) fn want<'a>(&self, topics: impl IntoIterator<Item = &'a str>) {
        self.wake_if(self.plan().want(topics, now()));
    }

    /// Topics whose names are looked for from now on.
    pub(super) fn want_ids(&self, ids: &[Uuid]) {
        self.wake_if(self.plan().want_ids(ids));
    }

    pub(super) fn want_all(&self, all: bool) {
        self.wake_if(self.plan().want_all(all));
    }

    pub(super) fn refresh(&self) {
        self.wake_if(self.plan().refresh());
    }

    fn wake_if(&self, wake: bool) {
        if wake {
            self.wake.notify_one();
        }
    }

    /// An answer to what was asked.
    pub(super) fn answered(&self, response: MetadataResponse, asked: &Asked) -> Arc<Metadata> {
        let wanted = |topic: &str| self.plan().wants(topic);
        let mut changed = true;
        let next = self.change(|last| {
            let next = last.merged(response, asked, wanted);
            changed = next.differs_from(last);
            Some(next)
        });
        let next = next.unwrap_or_else(|| self.picture());
        self.plan().succeeded(asked, &next, changed, now());
        self.failure.send_replace(None);
        next
    }

    /// No answer, or none that can be used.
    pub(super) fn failed(&self, error: Error) {
        self.plan().failed(now());
        self.failure.send_if_modified(|failure| {
            if failure.is_none() {
                tracing::warn!(%error, "no metadata from the cluster; trying again");
            } else {
                tracing::debug!(%error, "no metadata from the cluster");
            }
            *failure = Some(error);
            true
        });
    }

    /// Waits for a picture in which `found` sees what it looks for; somebody has to have asked for it.
    /// `gave_up` says why it is not there when the deadline comes.
    pub(super) async fn wait<T>(
        &self,
        core: &Core,
        deadline: Instant,
        mut found: impl FnMut(&Arc<Metadata>) -> Result<Option<T>>,
        gave_up: impl FnOnce(&Metadata) -> Error,
    ) -> Result<T> {
        let mut closing = core.closing.subscribe();
        let mut changes = self.changes.subscribe();
        let mut failures = self.failure.subscribe();
        failures.mark_unchanged();
        loop {
            if *closing.borrow() {
                return Err(closed());
            }
            changes.mark_unchanged();
            if let Some(found) = found(&self.picture())? {
                return Ok(found);
            }
            if let Some(error) = core.unresolved() {
                return Err(error);
            }
            let news = async {
                tokio::select! {
                    biased;
                    _ = closing.wait_for(|closing| *closing) => {}
                    _ = changes.changed() => {}
                    _ = failures.changed() => {}
                    _ = core.overdue() => {}
                }
            };
            let in_time = timeout_at(deadline, news).await.is_ok();
            let failure = failures.borrow_and_update().clone();
            match failure {
                // Waiting does not make settings, credentials or versions better.
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
                None if !in_time => return Err(gave_up(&self.picture())),
                _ => {}
            }
        }
    }
}
