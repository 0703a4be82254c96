//! The newest metadata of the cluster, and the channels on which callers wait for the next.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use arc_swap::{ArcSwap, Guard};
use tokio::sync::{Notify, watch};
use uuid::Uuid;

use super::{Metadata, metadata_merge::MetadataScope, metadata_plan::MetadataPlan};
use crate::cluster::deadline::millis;
use crate::cluster::deadline::now;
use crate::{
    error::Error,
    log::{Lasting, Limiter, Origin, Outage, event, several},
    wire::{fetch::NodeEndpoint, messages::MetadataResponse},
};

#[derive(Debug)]
pub(super) struct MetadataCache {
    metadata: ArcSwap<Metadata>,
    /// Held while the next metadata is made out of the last, so that no change is lost.
    changing: Mutex<()>,
    changes: watch::Sender<u64>,
    failure: watch::Sender<Option<Error>>,
    origin: Origin,
    told: Mutex<LoggedState>,
    plan: Mutex<MetadataPlan>,
    pub(super) wake: Notify,
}

/// The outages and ignored parts that were logged.
#[derive(Debug)]
struct LoggedState {
    outage: Outage,
    ignored: Limiter<()>,
}

impl MetadataCache {
    pub(super) fn new(plan: MetadataPlan, origin: Origin) -> Self {
        Self {
            metadata: ArcSwap::default(),
            changing: Mutex::new(()),
            changes: watch::Sender::new(0),
            failure: watch::Sender::new(None),
            origin,
            told: Mutex::new(LoggedState { outage: Outage::after(Duration::ZERO), ignored: Limiter::default() }),
            plan: Mutex::new(plan),
            wake: Notify::new(),
        }
    }

    pub(super) fn current(&self) -> Arc<Metadata> {
        self.metadata.load_full()
    }

    pub(super) fn current_ref(&self) -> Guard<Arc<Metadata>> {
        self.metadata.load()
    }

    pub(super) fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// Returns a channel that changes with every failed attempt at metadata, and with the first
    /// success after it.
    pub(super) fn failures(&self) -> watch::Receiver<Option<Error>> {
        self.failure.subscribe()
    }

    pub(super) fn failure(&self) -> Option<Error> {
        self.failure.borrow().clone()
    }

    pub(super) fn plan(&self) -> MutexGuard<'_, MetadataPlan> {
        self.plan.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self, next: impl FnOnce(&Metadata) -> Option<Metadata>) -> Option<Arc<Metadata>> {
        let _changing = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let next = Arc::new(next(&self.metadata.load())?);
        self.metadata.store(Arc::clone(&next));
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

    /// Keeps topics in the metadata from now on.
    pub(super) fn want<'a>(&self, topics: impl IntoIterator<Item = &'a str>) {
        self.wake_if(self.plan().want(topics, now()));
    }

    /// Looks up the names of the topics with these ids from now on.
    pub(super) fn want_ids(&self, ids: &[Uuid]) {
        self.wake_if(self.plan().want_ids(ids));
    }

    pub(super) fn want_all(&self, all: bool) {
        self.wake_if(self.plan().want_all(all));
    }

    pub(super) fn refresh(&self) {
        self.wake_if(self.plan().refresh());
    }

    /// Records that a broker asked for a rebootstrap.
    pub(super) fn require_rebootstrap(&self) {
        self.wake_if(self.plan().require_rebootstrap());
    }

    fn wake_if(&self, wake: bool) {
        if wake {
            self.wake.notify_one();
        }
    }

    /// Makes the next metadata from a response to `asked`.
    pub(super) fn answered(&self, response: MetadataResponse, asked: &MetadataScope) -> Arc<Metadata> {
        let wanted = |topic: &str| self.plan().wants(topic);
        let mut changed = true;
        let next = self.change(|last| {
            let next = last.merged(response, asked, wanted);
            changed = next.differs_from(last);
            Some(next)
        });
        let next = next.unwrap_or_else(|| self.current());
        self.plan().succeeded(asked, &next, changed, now());
        self.failure.send_replace(None);
        self.log_answered(&next);
        next
    }

    /// Records an attempt without a usable response.
    pub(super) fn failed(&self, error: Error) {
        self.plan().failed(now());
        match self.logged().outage.failed(now()) {
            Some(Lasting { duration, attempts }) => {
                let outage_ms = millis(duration);
                event!(
                    WARN, self.origin, %error, outage_ms, attempts,
                    "no metadata from the cluster; the client asks again until a broker answers: if this goes on, check \
                     bootstrap.servers and the brokers"
                );
            }
            None => event!(DEBUG, self.origin, %error, "an attempt to read the metadata failed"),
        }
        self.failure.send_replace(Some(error));
    }

    fn logged(&self) -> MutexGuard<'_, LoggedState> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Logs the end of an outage, and the parts of the response that could not be used.
    fn log_answered(&self, metadata: &Metadata) {
        if let Some(Lasting { duration, attempts }) = self.logged().outage.ended(now()) {
            let outage_ms = millis(duration);
            event!(INFO, self.origin, outage_ms, attempts, "received metadata from the cluster again");
        }
        let ignored = &metadata.history.ignored;
        if !ignored.is_empty()
            && let Some(suppressed) = self.logged().ignored.admit((), now())
        {
            event!(
                WARN, self.origin, ignored = %several(ignored), count = ignored.len(), suppressed,
                "parts of the metadata are ignored because they cannot be used: check advertised.listeners of the brokers"
            );
        }
    }
}
