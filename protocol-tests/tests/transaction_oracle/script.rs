//! The steps of a script: each sends one request and notes its answer in words that do not depend on
//! the cluster, so that two clusters can be compared line by line.

use std::time::Duration;

use kafka_protocol::{
    messages::{
        DescribeTransactionsRequest, FindCoordinatorRequest, InitProducerIdRequest,
        describe_transactions_response::TransactionState,
    },
    protocol::StrBytes,
};
use ottla::ErrorCode;
use tokio::time::{sleep, timeout};

use crate::{LONG, PAUSE, connection::Connection, producer::Producer};

/// Time in which a transaction reaches a state that it has to reach.
const PATIENCE: Duration = Duration::from_secs(10);

/// A part of the note of a transaction that did not.
pub(crate) const STAYS: &str = "stays in state";

/// A cluster, and the notes of the steps so far.
pub(crate) struct Script {
    pub(crate) connection: Connection,
    /// A part of all names, which no other script uses.
    pub(crate) run: String,
    /// Producer ids in the order in which they were given out: their names are P0, P1, and so on.
    ids: Vec<i64>,
    scene: String,
    /// One line for each step.
    pub(crate) notes: Vec<String>,
}

impl Script {
    /// Connects to a cluster, and waits until both of its coordinators answer.
    pub(crate) async fn to(bootstrap: &str, run: String) -> Self {
        let connection = Connection::open(bootstrap).await;
        let mut script = Self { connection, run, ids: Vec::new(), scene: String::new(), notes: Vec::new() };
        script.find_coordinators().await;
        script
    }

    async fn find_coordinators(&mut self) {
        for key_type in [0, 1] {
            let key = text("warm-up");
            let request = FindCoordinatorRequest::default().with_key(key).with_key_type(key_type);
            let found = async {
                while self.connection.call(&request, 3).await.error_code != 0 {
                    sleep(PAUSE).await;
                }
            };
            timeout(LONG, found).await.expect("a coordinator");
        }
        let request = InitProducerIdRequest::default().with_transactional_id(Some(text("warm-up").into()));
        let request = request.with_transaction_timeout_ms(60_000).with_producer_id((-1).into()).with_producer_epoch(-1);
        let given = async {
            while self.connection.call(&request, 4).await.error_code != 0 {
                sleep(PAUSE).await;
            }
        };
        timeout(LONG, given).await.expect("a producer id");
    }

    /// Begins a scene, which has a topic and producers of its own; its name is part of the notes.
    pub(crate) fn scene(&mut self, scene: impl Into<String>) {
        self.scene = scene.into();
        self.ids.clear();
    }

    /// Returns a name that only this scene uses.
    pub(crate) fn name(&self, of: &str) -> String {
        let scene: String = self.scene.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).collect();
        format!("{}-{scene}-{of}", self.run)
    }

    /// Returns the scene's topic.
    pub(crate) fn topic(&self) -> String {
        self.name("topic")
    }

    /// Notes the answer of a step.
    pub(crate) fn note(&mut self, step: impl std::fmt::Display, answer: impl std::fmt::Display) {
        self.notes.push(format!("{}: {step}: {answer}", self.scene));
    }

    /// Returns the name of a producer id.
    pub(crate) fn id(&mut self, id: i64) -> String {
        if id < 0 {
            return format!("P({id})");
        }
        let known = self.ids.iter().position(|known| *known == id);
        let at = known.unwrap_or_else(|| {
            self.ids.push(id);
            self.ids.len() - 1
        });
        format!("P{at}")
    }

    /// Returns a producer id and epoch in words.
    pub(crate) fn identity(&mut self, id: i64, epoch: i16) -> String {
        format!("{}/{epoch}", self.id(id))
    }

    /// Returns the coordinator's view of a transactional id, without a note.
    pub(crate) async fn view(&mut self, transactional_id: &str) -> TransactionState {
        let ids = vec![text(transactional_id).into()];
        let request = DescribeTransactionsRequest::default().with_transactional_ids(ids);
        self.connection.call(&request, 0).await.transaction_states.swap_remove(0)
    }

    /// Waits until the producer's transaction has one of these states.
    pub(crate) async fn until(&mut self, producer: &Producer, states: &[&str]) {
        let mut state = String::new();
        let reached = async {
            while !states.contains(&state.as_str()) {
                sleep(PAUSE).await;
                state = self.view(&producer.transactional_id).await.transaction_state.to_string();
            }
        };
        if timeout(PATIENCE, reached).await.is_err() {
            self.note(format!("{} waits for {states:?}", producer.name), format!("{STAYS} {state}"));
        }
    }

    /// Waits until all markers of the producer's transaction are written.
    pub(crate) async fn until_ended(&mut self, producer: &Producer) {
        self.until(producer, &["Empty", "CompleteCommit", "CompleteAbort"]).await;
    }

    /// Waits until the transaction of the producer was aborted because of its timeout.
    pub(crate) async fn until_timed_out(&mut self, producer: &Producer) {
        self.until(producer, &["CompleteAbort"]).await;
    }
}

pub(crate) fn text(of: &str) -> StrBytes {
    StrBytes::from_string(of.to_owned())
}

/// Returns the name of an error code.
pub(crate) fn error(code: i16) -> String {
    if code == 0 { "ok".to_owned() } else { ErrorCode::new(code).to_string() }
}
