use super::*;

const TIMEOUT: Duration = Duration::from_secs(60);

/// A coordinator with a clock, whose producer ids count from 1000.
struct Fixture {
    coordinator: TransactionCoordinator,
    now: Instant,
    next_id: i64,
    server_version: TransactionVersion,
}

impl Fixture {
    fn new(server_version: TransactionVersion) -> Self {
        Self { coordinator: TransactionCoordinator::default(), now: Instant::now(), next_id: 999, server_version }
    }

    fn with<T>(&mut self, act: impl FnOnce(&mut TransactionCoordinator, &mut Transition<'_>) -> T) -> T {
        let next_id = &mut self.next_id;
        let mut new_producer_id = || {
            *next_id += 1;
            *next_id
        };
        let mut transition = Transition {
            now: self.now,
            markers_due: self.now,
            server_version: self.server_version,
            new_producer_id: &mut new_producer_id,
        };
        act(&mut self.coordinator, &mut transition)
    }

    fn init(&mut self, expected: Option<(i64, i16)>) -> Result<(i64, i16), ErrorCode> {
        let expected = expected.map(|(id, epoch)| ProducerIdAndEpoch { id, epoch });
        let given = self.with(|coordinator, transition| coordinator.init("tx", expected, TIMEOUT, transition));
        given.map(|given| (given.id, given.epoch))
    }

    fn add(&mut self, id: i64, epoch: i16) -> Result<(), ErrorCode> {
        let added = Participants::of_partitions([TopicPartition::new("t", 0)]);
        self.coordinator.add("tx", ProducerIdAndEpoch { id, epoch }, added, self.now)
    }

    fn end(
        &mut self,
        (id, epoch): (i64, i16),
        committed: bool,
        version: TransactionVersion,
    ) -> Result<Option<(i64, i16)>, ErrorCode> {
        let producer = ProducerIdAndEpoch { id, epoch };
        let ended =
            self.with(|coordinator, transition| coordinator.end("tx", producer, committed, version, transition));
        ended.map(|next| next.map(|next| (next.id, next.epoch)))
    }

    fn write_markers(&mut self) -> EndMarkers {
        let markers = self.coordinator.markers("tx", 1).unwrap();
        self.coordinator.markers_written("tx", Participants::default(), self.now);
        markers
    }

    fn state(&self) -> (&'static str, i64, i16) {
        let view = self.coordinator.view("tx").unwrap();
        (view.state, view.producer_id, view.producer_epoch)
    }

    fn set_epoch(&mut self, epoch: i16) {
        let set = self.with(|coordinator, transition| coordinator.set_epoch("tx", epoch, transition.new_producer_id));
        assert!(set);
    }
}

use TransactionVersion::{V1, V2};

#[test]
fn init_raises_epoch_and_recognizes_repetition() {
    let mut fixture = Fixture::new(V1);
    assert_eq!(fixture.init(None), Ok((1000, 0)));
    assert_eq!(fixture.init(Some((1000, 0))), Ok((1000, 1)), "the producer continues after an error (KIP-360)");
    assert_eq!(fixture.init(Some((1000, 0))), Ok((1000, 1)), "the answer was lost");
    assert_eq!(fixture.init(None), Ok((1000, 2)), "a new producer");
    for fenced in [(1000, 1), (1000, 0), (7, 2)] {
        assert_eq!(fixture.init(Some(fenced)), Err(ErrorCode::PRODUCER_FENCED), "{fenced:?}");
    }
    assert_eq!(fixture.init(Some((1000, 2))), Ok((1000, 3)));
}

#[test]
fn init_accepts_any_producer_of_a_forgotten_id() {
    let mut fixture = Fixture::new(V1);
    assert_eq!(fixture.init(Some((5, 3))), Ok((1000, 0)));
}

#[test]
fn init_replaces_exhausted_producer_id() {
    let mut fixture = Fixture::new(V1);
    fixture.set_epoch(i16::MAX - 2);
    assert_eq!(fixture.init(None), Ok((1000, i16::MAX - 1)));
    let stale = fixture.init(Some((1000, i16::MAX - 2)));
    assert_eq!(stale, Err(ErrorCode::UNKNOWN_SERVER_ERROR), "as Kafka's coordinator");
    assert_eq!(fixture.init(Some((1000, i16::MAX - 1))), Ok((1001, 0)));
    assert_eq!(fixture.init(Some((1000, i16::MAX - 1))), Ok((1001, 0)), "the answer was lost");
    fixture.set_epoch(i16::MAX - 1);
    assert_eq!(fixture.init(None), Ok((1002, 0)), "a new producer");
}

#[test]
fn new_producer_aborts_open_transaction_under_v1() {
    let mut fixture = Fixture::new(V1);
    assert_eq!(fixture.init(None), Ok((1000, 0)));
    assert_eq!(fixture.add(1000, 0), Ok(()));
    assert_eq!(fixture.init(None), Err(ErrorCode::CONCURRENT_TRANSACTIONS));
    assert_eq!(fixture.init(None), Err(ErrorCode::CONCURRENT_TRANSACTIONS), "markers are being written");
    let markers = fixture.write_markers();
    assert_eq!((markers.producer.epoch, markers.committed, markers.version), (1, false, V1));
    assert_eq!(fixture.state(), ("CompleteAbort", 1000, 1));
    assert_eq!(fixture.end((1000, 0), true, V1), Err(ErrorCode::PRODUCER_FENCED));
    assert_eq!(fixture.init(Some((1000, 0))), Err(ErrorCode::PRODUCER_FENCED));
    assert_eq!(fixture.init(None), Ok((1000, 2)));
}

#[test]
fn new_producer_aborts_open_transaction_under_v2() {
    let mut fixture = Fixture::new(V2);
    assert_eq!(fixture.init(None), Ok((1000, 0)));
    assert_eq!(fixture.add(1000, 0), Ok(()));
    assert_eq!(fixture.init(None), Err(ErrorCode::CONCURRENT_TRANSACTIONS));
    let markers = fixture.write_markers();
    assert_eq!((markers.producer.epoch, markers.committed, markers.version), (1, false, V2));
    assert_eq!(fixture.init(None), Ok((1000, 2)));
    assert_eq!(fixture.end((1000, 0), false, V2), Err(ErrorCode::PRODUCER_FENCED));
}

#[test]
fn add_checks_producer_and_refuses_while_ending() {
    let mut fixture = Fixture::new(V1);
    assert_eq!(fixture.add(1000, 0), Err(ErrorCode::INVALID_PRODUCER_ID_MAPPING));
    assert_eq!(fixture.init(None), Ok((1000, 0)));
    assert_eq!(fixture.add(1001, 0), Err(ErrorCode::INVALID_PRODUCER_ID_MAPPING));
    assert_eq!(fixture.add(1000, 1), Err(ErrorCode::PRODUCER_FENCED));
    assert_eq!(fixture.add(1000, 0), Ok(()));
    assert_eq!(fixture.add(1000, 0), Ok(()), "added already");
    assert_eq!(fixture.end((1000, 0), true, V1), Ok(None));
    assert_eq!(fixture.add(1000, 0), Err(ErrorCode::CONCURRENT_TRANSACTIONS));
    fixture.write_markers();
    assert_eq!(fixture.add(1000, 0), Ok(()), "the next transaction, under the same epoch");
}

#[test]
fn verification_requires_partition_of_open_transaction() {
    let mut fixture = Fixture::new(V1);
    let verify = |fixture: &Fixture, epoch, partition| {
        let asked = Participants::of_partitions([TopicPartition::new("t", partition)]);
        fixture.coordinator.verify("tx", ProducerIdAndEpoch { id: 1000, epoch }, &asked)
    };
    assert_eq!(verify(&fixture, 0, 0), Err(ErrorCode::INVALID_PRODUCER_ID_MAPPING));
    fixture.init(None).unwrap();
    assert_eq!(verify(&fixture, 0, 0), Err(ErrorCode::TRANSACTION_ABORTABLE));
    fixture.add(1000, 0).unwrap();
    assert_eq!((verify(&fixture, 0, 0), verify(&fixture, 0, 1)), (Ok(()), Err(ErrorCode::TRANSACTION_ABORTABLE)));
    assert_eq!(verify(&fixture, 1, 0), Err(ErrorCode::PRODUCER_FENCED));
    fixture.end((1000, 0), true, V1).unwrap();
    assert_eq!(verify(&fixture, 0, 0), Err(ErrorCode::CONCURRENT_TRANSACTIONS));
    fixture.write_markers();
    assert_eq!(verify(&fixture, 0, 0), Err(ErrorCode::TRANSACTION_ABORTABLE));
}

#[test]
fn v1_end_accepts_only_its_own_repetition() {
    for committed in [true, false] {
        let mut fixture = Fixture::new(V1);
        assert_eq!(fixture.end((1000, 0), committed, V1), Err(ErrorCode::INVALID_PRODUCER_ID_MAPPING));
        fixture.init(None).unwrap();
        assert_eq!(fixture.end((1000, 0), committed, V1), Err(ErrorCode::INVALID_TXN_STATE), "nothing to end");
        fixture.add(1000, 0).unwrap();
        assert_eq!(fixture.end((1000, 1), committed, V1), Err(ErrorCode::PRODUCER_FENCED));
        assert_eq!(fixture.end((1001, 0), committed, V1), Err(ErrorCode::INVALID_PRODUCER_ID_MAPPING));
        assert_eq!(fixture.end((1000, 0), committed, V1), Ok(None));
        for repeated in [true, false] {
            assert_eq!(fixture.end((1000, 0), repeated, V1), Err(ErrorCode::CONCURRENT_TRANSACTIONS));
        }
        let markers = fixture.write_markers();
        assert_eq!((markers.committed, markers.producer.epoch), (committed, 0));
        assert_eq!(fixture.end((1000, 0), committed, V1), Ok(None));
        assert_eq!(fixture.end((1000, 0), !committed, V1), Err(ErrorCode::INVALID_TXN_STATE));
    }
}

/// Kafka's own table of the states Empty, CompleteAbort and CompleteCommit with transactions v2:
/// abort and commit, each repeated and under the current epoch.
#[test]
fn v2_end_follows_table_of_kafka() {
    let (fenced, refused) = (Err(ErrorCode::PRODUCER_FENCED), Err(ErrorCode::INVALID_TXN_STATE));
    let done = |committed: bool| {
        let mut fixture = Fixture::new(V2);
        fixture.init(None).unwrap();
        fixture.init(None).unwrap();
        fixture.add(1000, 1).unwrap();
        assert_eq!(fixture.end((1000, 1), committed, V2), Ok(Some((1000, 2))));
        fixture.write_markers();
        fixture
    };
    let empty = || {
        let mut fixture = Fixture::new(V2);
        fixture.init(None).unwrap();
        fixture.init(None).unwrap();
        fixture
    };
    let raised = Ok(Some((1000, 3)));
    let known = Ok(Some((1000, 2)));
    // Abort repeated, abort current, commit repeated, commit current.
    let rows = [
        (empty as fn() -> Fixture, 1, [fenced, Ok(Some((1000, 2))), fenced, refused]),
        (|| Fixture::new(V2), 0, [Err(ErrorCode::INVALID_PRODUCER_ID_MAPPING); 4]),
    ];
    let check = |make: &dyn Fn() -> Fixture, current: i16, expected: [Result<_, _>; 4]| {
        let calls = [(current - 1, false), (current, false), (current - 1, true), (current, true)];
        for ((epoch, committed), expected) in calls.into_iter().zip(expected) {
            assert_eq!(make().end((1000, epoch), committed, V2), expected, "{epoch} {committed}");
        }
    };
    for (make, current, expected) in rows {
        check(&make, current, expected);
    }
    check(&|| done(false), 2, [known, raised, refused, refused]);
    check(&|| done(true), 2, [refused, raised, known, refused]);
}

#[test]
fn v2_end_is_refused_until_markers_are_written() {
    let mut fixture = Fixture::new(V2);
    fixture.init(None).unwrap();
    fixture.add(1000, 0).unwrap();
    assert_eq!(fixture.end((1000, 0), true, V2), Ok(Some((1000, 1))));
    for (epoch, committed) in [(0, true), (0, false), (1, true), (9, true)] {
        assert_eq!(fixture.end((1000, epoch), committed, V2), Err(ErrorCode::CONCURRENT_TRANSACTIONS));
    }
    assert_eq!(fixture.add(1000, 1), Err(ErrorCode::CONCURRENT_TRANSACTIONS));
    assert_eq!(fixture.write_markers().producer.epoch, 1, "markers carry the raised epoch");
}

#[test]
fn v2_end_replaces_exhausted_producer_id() {
    let mut fixture = Fixture::new(V2);
    fixture.set_epoch(i16::MAX - 2);
    assert_eq!(fixture.init(None), Ok((1000, i16::MAX - 1)));
    fixture.add(1000, i16::MAX - 1).unwrap();
    assert_eq!(fixture.end((1000, i16::MAX - 1), true, V2), Ok(Some((1001, 0))));
    assert_eq!(fixture.add(1001, 0), Err(ErrorCode::CONCURRENT_TRANSACTIONS), "the client has the next id already");
    let markers = fixture.write_markers();
    assert_eq!((markers.producer.id, markers.producer.epoch), (1000, i16::MAX));
    assert_eq!(fixture.end((1000, i16::MAX - 1), true, V2), Ok(Some((1001, 0))), "the answer was lost");
    assert_eq!(fixture.add(1001, 0), Ok(()));
    let late = fixture.end((1000, i16::MAX - 1), true, V2);
    assert_eq!(late, Err(ErrorCode::INVALID_PRODUCER_ID_MAPPING));
}

#[test]
fn v2_timeout_leaves_abort_to_client() {
    let mut fixture = Fixture::new(V2);
    fixture.init(None).unwrap();
    fixture.add(1000, 0).unwrap();
    let deadline = fixture.now + TIMEOUT;
    assert_eq!(fixture.coordinator.deadline(), Some(deadline));
    assert_eq!(fixture.coordinator.next_change(deadline - Duration::from_millis(1)), None);
    assert_eq!(fixture.coordinator.next_change(deadline), Some(("tx".to_owned(), deadline)));
    fixture.with(|coordinator, transition| coordinator.fence("tx", transition));
    fixture.write_markers();
    assert_eq!(fixture.state(), ("CompleteAbort", 1000, 1));
    assert_eq!(fixture.coordinator.deadline(), None);
    assert_eq!(fixture.end((1000, 0), true, V2), Err(ErrorCode::INVALID_TXN_STATE), "it cannot be committed any more");
    assert_eq!(fixture.end((1000, 0), false, V2), Ok(Some((1000, 1))), "its abort learns the epoch");
}

#[test]
fn v1_timeout_fences_the_producer() {
    let mut fixture = Fixture::new(V1);
    fixture.init(None).unwrap();
    fixture.add(1000, 0).unwrap();
    fixture.with(|coordinator, transition| coordinator.fence("tx", transition));
    fixture.write_markers();
    for committed in [true, false] {
        assert_eq!(fixture.end((1000, 0), committed, V1), Err(ErrorCode::PRODUCER_FENCED));
    }
    assert_eq!(fixture.init(Some((1000, 0))), Err(ErrorCode::PRODUCER_FENCED));
}

#[test]
fn version_may_change_between_two_transactions() {
    let mut fixture = Fixture::new(V2);
    fixture.init(None).unwrap();
    fixture.add(1000, 0).unwrap();
    assert_eq!(fixture.end((1000, 0), true, V1), Ok(None), "begun before the feature was raised");
    assert_eq!(fixture.write_markers().version, V1);
    assert_eq!(fixture.init(Some((1000, 0))), Ok((1000, 1)));
    fixture.add(1000, 1).unwrap();
    assert_eq!(fixture.end((1000, 1), true, V2), Ok(Some((1000, 2))));
    fixture.write_markers();
    fixture.add(1000, 2).unwrap();
    assert_eq!(fixture.end((1000, 2), false, V1), Ok(None), "begun after the feature was lowered");
}

#[test]
fn markers_left_are_written_again() {
    let mut fixture = Fixture::new(V1);
    fixture.init(None).unwrap();
    fixture.add(1000, 0).unwrap();
    fixture.end((1000, 0), true, V1).unwrap();
    let left = fixture.coordinator.markers("tx", 1).unwrap().participants;
    let retry_at = fixture.now + Duration::from_secs(1);
    fixture.coordinator.markers_written("tx", left.clone(), retry_at);
    assert_eq!((fixture.state().0, fixture.coordinator.deadline()), ("PrepareCommit", Some(retry_at)));
    let again = fixture.coordinator.markers("tx", 2).unwrap();
    assert_eq!((again.participants, again.coordinator_epoch), (left, 1), "another broker coordinates");
    fixture.coordinator.markers_written("tx", Participants::default(), retry_at);
    assert_eq!((fixture.state().0, fixture.coordinator.deadline()), ("CompleteCommit", None));
}

#[test]
fn own_init_after_abort_depends_on_version() {
    for (server_version, again) in [(V1, Err(ErrorCode::PRODUCER_FENCED)), (V2, Ok((1000, 2)))] {
        let mut fixture = Fixture::new(server_version);
        assert_eq!(fixture.init(None), Ok((1000, 0)));
        assert_eq!(fixture.init(Some((1000, 0))), Ok((1000, 1)));
        fixture.add(1000, 1).unwrap();
        assert_eq!(fixture.init(Some((1000, 0))), Err(ErrorCode::CONCURRENT_TRANSACTIONS), "an old epoch aborts, too");
        fixture.write_markers();
        assert_eq!(fixture.init(Some((1000, 0))), Err(ErrorCode::PRODUCER_FENCED));
        assert_eq!(fixture.init(Some((1000, 1))), again);
    }
}

#[test]
fn start_is_that_of_last_transaction() {
    let mut fixture = Fixture::new(V2);
    let started = |fixture: &Fixture| fixture.coordinator.view("tx").unwrap().started;
    fixture.init(None).unwrap();
    assert_eq!(started(&fixture), None);
    fixture.end((1000, 0), false, V2).unwrap();
    assert_eq!(started(&fixture), Some(fixture.now), "an abort of nothing");
    fixture.write_markers();
    fixture.now += Duration::from_secs(1);
    fixture.add(1000, 1).unwrap();
    assert_eq!(started(&fixture), Some(fixture.now));
    fixture.end((1000, 1), true, V2).unwrap();
    fixture.write_markers();
    fixture.init(None).unwrap();
    assert_eq!(started(&fixture), None);
}
