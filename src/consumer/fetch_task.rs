//! Fetches from one broker over one connection, one request after the other.

use std::{sync::Arc, time::Duration};

use bytes::BytesMut;
use tokio::{
    task::JoinSet,
    time::{Instant, sleep_until, timeout_at},
};

use super::{
    arrivals::{Arrived, Hints},
    budget::Charge,
    fetcher::{Farewell, Plan},
    inbox::Inbox,
    lanes::Source,
    settings::IsolationLevel,
    walk::walk,
};
use crate::{
    cluster::{Attempt, Client, Lane, RawRequest},
    error::{Error, Result},
    log::event,
    wire::{
        ApiKey,
        fetch::{FetchRequest, FetchResponse, NodeEndpoint, decode_fetch, encode_fetch},
    },
};

/// The newest version that asks for topics by name.
const BY_NAME: i16 = 12;

/// What a fetching task has to know.
#[derive(Clone, Debug)]
pub(super) struct FetchTask {
    pub(super) client: Client,
    pub(super) inbox: Arc<Inbox>,
    pub(super) isolation: IsolationLevel,
    /// `request.timeout.ms`, and on top of it what the broker may wait.
    pub(super) timeout: Duration,
}

impl FetchTask {
    /// Goes on until it is aborted, or the broker is gone. The next fetch leaves as soon as the
    /// headers of the last answer's batches were walked; nothing is decompressed here.
    pub(super) async fn run(self, node: Source) {
        let wake = self.inbox.wakers.get(node);
        loop {
            let now = Instant::now();
            match self.inbox.with(|assignment| assignment.plan(node, now.into_std())) {
                Plan::Fetch { request, reserved, by_name } => self.fetch(node, *request, reserved, by_name).await,
                Plan::End => return,
                Plan::Wait(until) => {
                    let pause = async {
                        match until {
                            Some(until) => sleep_until(until.into()).await,
                            None => std::future::pending().await,
                        }
                    };
                    tokio::select! {
                        biased;
                        () = wake.notified() => {}
                        () = pause => {}
                    }
                }
            }
        }
    }

    async fn fetch(&self, node: Source, request: FetchRequest, reserved: Charge, by_name: bool) {
        self.inbox.with(|assignment| assignment.watch.asks(node, self.timeout, Instant::now().into_std()));
        match self.ask(node, &request, by_name, reserved.bytes()).await {
            Ok((response, size)) => self.arrived(node, response, reserved, size),
            Err(error) => {
                self.inbox.with(|assignment| {
                    assignment.watch.unanswered(node, &error);
                    assignment.fetch_failed(node, &error, Instant::now().into_std());
                });
                // Its partitions may have other leaders by now.
                self.client.refresh_metadata();
            }
        }
    }

    /// Tells a broker that a session is over. One that does not hear of it forgets the session in
    /// its own time.
    pub(super) async fn close_session(&self, farewell: Farewell, timeout: Duration) {
        let Farewell { broker: node, request } = farewell;
        // Not behind a fetch that waits there for records.
        let attempt = Attempt { node, lane: Lane::Main, timeout, max_version: None };
        if let Err(error) = self.client.send_raw(attempt, ApiKey::Fetch, written(&request, 0)).await {
            event!(DEBUG, self.client.origin(), node, %error, "a fetch session could not be closed");
        }
    }

    /// The answer, which takes no more than `expects` bytes unless a single batch is larger.
    async fn ask(
        &self,
        node: Source,
        request: &FetchRequest,
        by_name: bool,
        expects: usize,
    ) -> Result<(FetchResponse, usize)> {
        let max_version = by_name.then_some(BY_NAME);
        let Source { broker: node, lane } = node;
        let attempt = Attempt { node, lane: Lane::Fetch(lane), timeout: self.timeout, max_version };
        let answer = self.client.send_raw(attempt, ApiKey::Fetch, written(request, expects)).await?;
        let size = answer.body.len();
        let response = decode_fetch(answer.body, answer.version)
            .map_err(|error: Error| error.context(format_args!("answer of broker {node} to a fetch")))?;
        Ok((response, size))
    }

    fn arrived(&self, node: Source, response: FetchResponse, mut charge: Charge, size: usize) {
        let FetchResponse { throttle_time_ms, error, session_id, partitions, node_endpoints } = response;
        let throttle = Duration::from_millis(u64::try_from(throttle_time_ms).unwrap_or(0));
        let arrived: Vec<Arrived> = partitions
            .into_iter()
            .map(|mut head| {
                let records = std::mem::take(&mut head.records);
                let walk = walk(records, self.isolation, &head.aborted_transactions);
                Arrived { head, walk }
            })
            .collect();
        // Nothing keeps an answer without records.
        let empty = arrived.iter().all(|arrived| arrived.walk.steps.is_empty());
        charge.resize(if empty { 0 } else { size });
        let now = Instant::now().into_std();
        let hints = self.inbox.with(|assignment| {
            assignment.watch.answered(node, error, size, throttle, now);
            assignment.fetched(node, session_id, error, arrived, charge, now)
        });
        self.follow(hints, &node_endpoints);
    }

    fn follow(&self, hints: Hints, endpoints: &[NodeEndpoint]) {
        for (partition, leader, epoch) in hints.leaders {
            self.client.learn_leader(&partition.topic, partition.partition, leader, epoch, endpoints);
        }
        if hints.refresh {
            self.client.refresh_metadata();
        }
    }
}

/// How a fetch is written in whichever version, with an answer of up to so many bytes.
fn written(request: &FetchRequest, expects: usize) -> impl Fn(i16, &mut BytesMut) -> Result<RawRequest> {
    move |version, head| {
        encode_fetch(head, version, request)?;
        Ok(RawRequest::whole().expecting(expects))
    }
}

/// Tells all brokers that keep a session for us that it is over, at once, until then at the latest.
pub(super) async fn close_sessions(task: FetchTask, farewells: Vec<Farewell>, deadline: Instant) {
    let mut asked = JoinSet::new();
    for farewell in farewells {
        let task = task.clone();
        let left = deadline.saturating_duration_since(Instant::now());
        asked.spawn(async move { task.close_session(farewell, left).await });
    }
    // Who does not answer in time is not waited for.
    let _ = timeout_at(deadline, async { while asked.join_next().await.is_some() {} }).await;
}
