//! State that all clones of a client and its tasks share.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use rand::{RngExt, SeedableRng, rngs::StdRng};
use tokio::{runtime::Handle, sync::watch, time::sleep_until};

use super::{
    Backoff, ClientSettings, address::Address, coordinators::Coordinators, logins::Logins,
    metadata_cache::MetadataCache, metadata_plan::MetadataPlan, pool::Pool, resolution::Resolution, versions::Features,
};
use crate::cluster::deadline::now;
use crate::cluster::single_flight::closed;
use crate::{
    error::{DeliveryStatus, Error, ErrorKind, Result},
    security::ConnectionSecurity,
};

#[derive(Debug)]
pub(super) struct Core {
    pub(super) settings: ClientSettings,
    /// Secures the client's connections.
    pub(super) guard: Arc<ConnectionSecurity>,
    pub(super) runtime: Handle,
    /// True once the client closes; all tasks and pending calls watch it.
    pub(super) closing: watch::Sender<bool>,
    pub(super) resolution: Resolution,
    pub(super) pool: Pool,
    pub(super) logins: Arc<Logins>,
    pub(super) metadata: MetadataCache,
    pub(super) coordinators: Coordinators,
    features: Mutex<Features>,
    rng: Mutex<StdRng>,
}

impl Core {
    pub(super) fn new(mut settings: ClientSettings, runtime: Handle) -> Result<Self> {
        settings.check()?;
        let security = settings.security.resolve(&settings.network)?;
        Address::check_listeners(&settings.bootstrap_servers, security.protocol())?;
        let guard = Arc::new(ConnectionSecurity::new(security)?);
        let bootstrap = Address::parse_all(&settings.bootstrap_servers)?;
        let mut rng = match settings.seed {
            Some(seed) => StdRng::seed_from_u64(seed),
            None => rand::make_rng(),
        };
        let mut fork = || StdRng::seed_from_u64(rng.random());
        Ok(Self {
            guard,
            runtime,
            closing: watch::Sender::new(false),
            resolution: Resolution::new(settings.bootstrap_resolve_timeout, now()),
            pool: Pool::new(bootstrap, fork()),
            logins: Arc::new(Logins::new(settings.origin.clone(), fork())),
            metadata: MetadataCache::new(MetadataPlan::new(&settings, fork()), settings.origin.clone()),
            coordinators: Coordinators::new(),
            features: Mutex::default(),
            rng: Mutex::new(fork()),
            settings,
        })
    }

    pub(super) fn features(&self) -> MutexGuard<'_, Features> {
        self.features.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn close(&self) {
        self.closing.send_replace(true);
        self.pool.close();
    }

    /// Returns the error if none of the bootstrap servers was resolved in time, as long as that is
    /// so.
    pub(super) fn unresolved(&self) -> Option<Error> {
        let timeout = self.resolution.overdue(now())?;
        let causes = self.pool.bootstrap_nodes().into_iter().filter_map(|node| self.pool.last_failure(node));
        let causes = causes.map(|cause| format!("; {cause}")).collect::<String>();
        let message = format!(
            "none of bootstrap.servers could be resolved within bootstrap.resolve.timeout.ms ({}){causes}",
            timeout.as_millis()
        );
        Some(Error::new(ErrorKind::Resolution, message).with_status(DeliveryStatus::NotPersisted))
    }

    /// Waits until `bootstrap.resolve.timeout.ms` has passed without a resolved server; for ever if
    /// one is resolved or there is no timeout.
    pub(super) async fn overdue(&self) -> Error {
        loop {
            if let Some(error) = self.unresolved() {
                return error;
            }
            match self.resolution.due() {
                Some(due) => sleep_until(due.into()).await,
                None => std::future::pending().await,
            }
        }
    }

    pub(super) fn is_closed(&self) -> bool {
        *self.closing.borrow()
    }

    pub(super) fn retry_backoff(&self) -> Backoff {
        Backoff::new(self.settings.retry_backoff, self.settings.retry_backoff_max)
    }

    pub(super) fn pause(&self, backoff: &mut Backoff) -> Duration {
        backoff.next(&mut self.rng.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Refreshes the metadata after a network error or a timeout, because the broker may no longer
    /// be what the metadata says.
    pub(super) fn refresh_metadata_on_error<T>(&self, result: Result<T>) -> Result<T> {
        if let Err(error) = &result
            && matches!(error.kind(), ErrorKind::Network | ErrorKind::Timeout)
        {
            self.metadata.refresh();
        }
        if self.is_closed() { result.map_err(|error| closed_with(&error)) } else { result }
    }
}

fn closed_with(error: &Error) -> Error {
    let closed = closed();
    match error.delivery_status() {
        Some(status) => closed.with_status(status),
        None => closed,
    }
}
