//! Compares the transactions of the testkit with those of a real Kafka: one list of single requests
//! is sent to both, and every answer has to be the same.
//!
//! Time passes for both alike: a step that depends on markers or on a timeout waits until the
//! coordinator has the state that it needs.
#![cfg(unix)]

mod batches;
mod connection;
mod ends;
mod exhaustion;
mod fencing;
mod offsets;
mod producer;
mod reading;
mod script;
mod topic_ids;
mod views;

use std::time::Duration;

use kafka_protocol::messages::{UpdateFeaturesRequest, update_features_request::FeatureUpdateKey};
use ottla::testkit::{Cluster, Options};
use producer::{Protocol, V1, V2};
use protocol_tests::{Kafka, at_least, needs, or_skip, unique};
use script::{STAYS, Script, text};

const LONG: Duration = Duration::from_secs(60);
const PAUSE: Duration = Duration::from_millis(20);
const FEATURE: &str = "transaction.version";
const PARTITIONS: i32 = 2;
/// The environment variable that asks for all scenes with exhausted epochs, which takes a minute.
const ALL_EPOCHS: &str = "OTTLA_ORACLE_EPOCHS";

/// A cluster that runs the script.
enum Side<'a> {
    Kafka(&'a Kafka),
    Testkit(&'a Cluster),
}

impl Side<'_> {
    async fn create_topic(&self, name: &str) {
        match self {
            Side::Kafka(kafka) => kafka.create_topic(name, PARTITIONS, 1, &[]).await.expect("a topic"),
            Side::Testkit(cluster) => cluster.create_topic(name, PARTITIONS).expect("a topic"),
        }
    }

    fn bootstrap(&self) -> String {
        match self {
            Side::Kafka(kafka) => kafka.bootstrap(),
            Side::Testkit(cluster) => cluster.bootstrap(),
        }
    }
}

/// Runs the scenes of one level, and returns the notes. At level 0, real brokers cannot write what
/// transactions v2 keep: they answer UNSUPPORTED_VERSION to the first request of v2, and
/// CONCURRENT_TRANSACTIONS to all later ones of that transactional id.
async fn run(side: Side<'_>, name: &str, level: i16) -> Vec<String> {
    let mut script = Script::to(&side.bootstrap(), name.to_owned()).await;
    run_scenes(&side, &mut script, V1).await;
    if level > 0 {
        run_scenes(&side, &mut script, V2).await;
        for protocol in [V1, V2] {
            begin(&side, &mut script, &format!("changes_of_protocol, {}", protocol.name)).await;
            ends::changes_of_protocol(&mut script, protocol).await;
        }
        begin(&side, &mut script, "patterns").await;
        views::patterns(&mut script).await;
        begin(&side, &mut script, "brokers").await;
        views::brokers(&mut script).await;
    }
    if level > 0 && at_least("4.4") {
        begin(&side, &mut script, "topic_ids").await;
        topic_ids::members_and_groups(&mut script).await;
    }
    script.notes
}

/// Begins a scene with a topic of its own.
async fn begin(side: &Side<'_>, script: &mut Script, scene: &str) {
    script.scene(scene);
    side.create_topic(&script.topic()).await;
    script.until_led(PARTITIONS).await;
}

/// Runs the scenes that both protocols have, under one of them.
async fn run_scenes(side: &Side<'_>, script: &mut Script, protocol: Protocol) {
    macro_rules! scenes {
        ($($room:ident::$scene:ident),* $(,)?) => {
            $(
                begin(side, script, &format!("{}, {}", stringify!($scene), protocol.name)).await;
                $room::$scene(script, protocol).await;
            )*
        };
    }
    scenes![
        ends::commit_and_abort,
        ends::end_of_nothing,
        ends::repeated_end,
        ends::repeated_init,
        ends::late_copies,
        ends::timeout,
        ends::init_after_timeout,
        fencing::fenced_in_transaction,
        fencing::fenced_between_transactions,
        fencing::own_init_in_transaction,
        batches::sequences,
        batches::strange_batches,
        batches::not_added,
        batches::additions,
        offsets::pending,
        offsets::refused,
        offsets::classic_members,
        offsets::consumer_members,
        views::lists,
    ];
}

/// Runs the scenes that use up the epochs of a producer id, side by side, because each takes 32,766
/// requests; unless all are asked for, only that of transactions v2.
async fn run_exhaustion(side: Side<'_>, name: &str) -> Vec<String> {
    let all = std::env::var_os(ALL_EPOCHS).is_some();
    macro_rules! scenes {
        ($($scene:ident in $protocol:ident, $asked:expr;)*) => {
            let ($($scene),*) = tokio::join!($(async {
                let mut script = Script::to(&side.bootstrap(), name.to_owned()).await;
                if $asked {
                    begin(&side, &mut script, &format!("{}, {}", stringify!($scene), $protocol.name)).await;
                    exhaustion::$scene(&mut script, $protocol).await;
                }
                script.notes
            }),*);
            [$($scene),*].concat()
        };
    }
    scenes! {
        exhausted_by_end in V2, true;
        exhausted_by_init in V1, all;
        exhausted_by_timeout in V2, all;
        exhausted_by_fencing in V1, all;
    }
}

/// Sets the finalized level of the feature on both sides.
async fn set_level(kafka: &Kafka, cluster: &Cluster, level: i16) {
    const SAFE_DOWNGRADE: i8 = 2;
    let key = FeatureUpdateKey::default().with_feature(text(FEATURE)).with_max_version_level(level);
    let request = UpdateFeaturesRequest::default().with_timeout_ms(30_000);
    let request = request.with_feature_updates(vec![key.with_upgrade_type(SAFE_DOWNGRADE)]);
    let mut connection = connection::Connection::open(&kafka.bootstrap()).await;
    let response = connection.call(&request, 1).await;
    assert_eq!(response.error_code, 0, "{:?}", response.error_message);
    cluster.set_feature(FEATURE, level);
}

/// The number of steps that were compared, and those whose answers differ.
#[derive(Default)]
struct Notes {
    steps: usize,
    wrong: Vec<String>,
}

impl Notes {
    /// Compares the notes of both sides line by line.
    fn compare(&mut self, of: &str, real: &[String], ours: &[String]) {
        let line = |lines: &[String], at: usize| lines.get(at).cloned().unwrap_or_else(|| "nothing".to_owned());
        for at in 0..real.len().max(ours.len()) {
            let (real, ours) = (line(real, at), line(ours, at));
            println!("{of}: {real}");
            if real != ours || real.contains(STAYS) {
                self.wrong.push(format!("{of}, step {at}\n  Kafka:   {real}\n  testkit: {ours}"));
            }
        }
        self.steps += real.len();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn testkit_answers_as_kafka_at_every_level() {
    if !needs("4.3", "all checks of transactions v2: 4.0 lets a transaction begin at any sequence") {
        return;
    }
    // Timeouts are looked for all ten seconds by default.
    let builder = Kafka::builder().config("transaction.abort.timed.out.transaction.cleanup.interval.ms", "100");
    let Some(kafka) = or_skip(builder.start().await) else { return };
    let cluster = Cluster::start(Options::new().feature(FEATURE, 2)).await.expect("a cluster");
    let mut notes = Notes::default();
    let name = unique("epochs");
    let (real, ours) =
        tokio::join!(run_exhaustion(Side::Kafka(&kafka), &name), run_exhaustion(Side::Testkit(&cluster), &name));
    notes.compare("level 2", &real, &ours);
    for level in [2, 1, 0] {
        if level < 2 {
            set_level(&kafka, &cluster, level).await;
        }
        let name = unique("oracle");
        let (real, ours) =
            tokio::join!(run(Side::Kafka(&kafka), &name, level), run(Side::Testkit(&cluster), &name, level));
        notes.compare(&format!("level {level}"), &real, &ours);
    }
    let Notes { steps, wrong } = notes;
    assert!(wrong.is_empty(), "{} of {steps} answers differ:\n{}", wrong.len(), wrong.join("\n"));
    assert!(steps > 2000, "{steps} steps");
}
