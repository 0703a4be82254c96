use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use bytes::{BufMut, Bytes, BytesMut};
use proptest::prelude::*;
use tokio::sync::oneshot;

use crate::{
    cluster::{
        pipeline::{Limits, Outgoing, Pipeline},
        response_queue::ResponseTarget as To,
        revocable_parts::{Revocable, RevocableParts},
    },
    error::{DeliveryStatus, Error, ErrorKind, Result},
    wire::{ApiKey, frame::Chunks},
};

type Reply = oneshot::Receiver<Result<Bytes>>;

struct Fixture {
    pipeline: Pipeline,
    now: Instant,
    next: i32,
}

impl Fixture {
    fn new(max_in_flight: usize) -> Self {
        let now = Instant::now();
        let limits = Limits { max_in_flight, max_idle: Duration::from_secs(540) };
        Self { pipeline: Pipeline::new("b:9092".to_owned(), limits, now), now, next: 1 }
    }

    fn push(&mut self, timeout: u64, answered: bool) -> Reply {
        self.push_with(timeout, answered, RevocableParts::default())
    }

    fn push_with(&mut self, timeout: u64, answered: bool, departure: RevocableParts) -> Reply {
        let (reply, receiver) = oneshot::channel();
        let request = Outgoing {
            key: ApiKey::Heartbeat,
            version: 1,
            correlation_id: self.next,
            head: Bytes::from_static(&[0; 10]),
            chunks: [Bytes::from_static(&[0; 90])].into_iter().collect(),
            deadline: self.now + Duration::from_secs(timeout),
            answered,
            expects: 7 * self.next as usize,
            departure,
            reply: To::One(reply),
        };
        self.next += 1;
        self.pipeline.push(request, self.now);
        receiver
    }

    /// Sends everything that may be sent, down to the last byte.
    fn send(&mut self) -> usize {
        let mut sent = 0;
        while self.pipeline.take(self.now).is_some() {
            sent += 1;
            self.pipeline.wrote(100);
        }
        sent
    }

    fn answer(&mut self, correlation_id: i32, throttle: i32) -> Result<()> {
        let mut frame = BytesMut::new();
        frame.put_i32(correlation_id);
        frame.put_i32(throttle);
        self.pipeline.answer(frame.freeze(), self.now)
    }

    fn pass(&mut self, secs: u64) -> Result<()> {
        self.now += Duration::from_secs(secs);
        self.pipeline.tick(self.now)
    }
}

fn failure(reply: &mut Reply) -> Error {
    reply.try_recv().unwrap().unwrap_err()
}

#[test]
fn limits_requests_in_flight_and_skips_cancelled() {
    let mut it = Fixture::new(2);
    let replies = [it.push(30, true), it.push(30, true)];
    let dropped = it.push(30, true);
    let mut last = it.push(30, true);
    assert_eq!(it.send(), 2);
    drop(dropped);
    it.answer(1, 0).unwrap();
    assert_eq!(it.send(), 1, "the dropped one is passed over");
    it.answer(2, 0).unwrap();
    it.answer(4, 0).unwrap();
    assert_eq!(last.try_recv().unwrap().unwrap().len(), 4);
    drop(replies);
    assert_eq!(it.pipeline.load(), 0);
}

#[test]
fn unexpected_response_is_protocol_error() {
    let mut it = Fixture::new(5);
    assert_eq!(it.answer(1, 0).unwrap_err().kind(), ErrorKind::Protocol);
    let _replies = (it.push(30, true), it.push(30, true));
    it.send();
    assert_eq!(it.answer(2, 0).unwrap_err().kind(), ErrorKind::Protocol);
    assert_eq!(it.pipeline.answer(Bytes::from_static(&[0]), it.now).unwrap_err().kind(), ErrorKind::Protocol);
    let mut it = Fixture::new(5);
    let _reply = it.push(30, true);
    it.pipeline.take(it.now).unwrap();
    it.pipeline.wrote(99);
    assert_eq!(it.answer(1, 0).unwrap_err().kind(), ErrorKind::Protocol, "the last byte is not sent yet");
}

#[test]
fn late_response_closes_with_delivery_status() {
    let mut it = Fixture::new(3);
    let (mut late, mut behind) = (it.push(10, true), it.push(30, true));
    it.send();
    let mut half = it.push(30, true);
    let mut waiting = it.push(30, true);
    it.pipeline.take(it.now).unwrap();
    it.pipeline.wrote(50);
    it.pass(9).unwrap();
    let reason = it.pass(1).unwrap_err();
    it.pipeline.close(&reason);
    let error = failure(&mut late);
    assert_eq!((error.kind(), error.delivery_status()), (ErrorKind::Timeout, Some(DeliveryStatus::PossiblyPersisted)));
    let error = failure(&mut behind);
    assert_eq!((error.kind(), error.delivery_status()), (ErrorKind::Network, Some(DeliveryStatus::PossiblyPersisted)));
    assert_eq!(failure(&mut half).delivery_status(), Some(DeliveryStatus::NotPersisted));
    assert_eq!(failure(&mut waiting).delivery_status(), Some(DeliveryStatus::NotPersisted));
}

#[test]
fn request_waiting_too_long_fails_alone() {
    let mut it = Fixture::new(1);
    let (mut first, mut second) = (it.push(30, true), it.push(5, true));
    it.send();
    it.pass(5).unwrap();
    let error = failure(&mut second);
    assert_eq!((error.kind(), error.delivery_status()), (ErrorKind::Timeout, Some(DeliveryStatus::NotPersisted)));
    assert_eq!(it.pipeline.next_event(), it.now + Duration::from_secs(25));
    it.answer(1, 0).unwrap();
    assert!(first.try_recv().unwrap().is_ok());
}

#[test]
fn throttled_pipeline_sends_nothing_until_expiry() {
    let mut it = Fixture::new(5);
    let _first = it.push(30, true);
    it.send();
    it.answer(1, 2000).unwrap();
    it.pipeline.mute_for(1000, it.now);
    it.pipeline.mute_for(-5, it.now);
    let mut third = it.push(1, true);
    let _fourth = it.push(30, true);
    assert_eq!(it.send(), 0);
    it.pass(1).unwrap();
    assert!(failure(&mut third).to_string().contains("throttles"));
    assert_eq!(it.pipeline.next_event(), it.now + Duration::from_secs(1));
    it.pass(1).unwrap();
    assert_eq!(it.send(), 1);
}

#[test]
fn request_without_response_completes_when_written() {
    let mut it = Fixture::new(1);
    let (mut silent, mut other) = (it.push(30, false), it.push(30, true));
    assert!(it.pipeline.take(it.now).is_some());
    assert!(it.pipeline.take(it.now).is_some(), "it counts for nothing in flight");
    it.pipeline.wrote(99);
    assert!(silent.try_recv().is_err());
    it.pipeline.wrote(101);
    assert!(silent.try_recv().unwrap().unwrap().is_empty());
    it.answer(2, 0).unwrap();
    assert!(other.try_recv().unwrap().is_ok());
}

#[test]
fn idle_or_retired_pipeline_closes_when_empty() {
    let mut it = Fixture::new(1);
    let _reply = it.push(600, true);
    it.send();
    it.pass(590).unwrap();
    it.pipeline.retire();
    assert!(!it.pipeline.is_usable());
    it.pass(1).unwrap();
    it.answer(1, 0).unwrap();
    assert!(it.pass(0).unwrap_err().to_string().contains("no longer needed"));

    let mut it = Fixture::new(1);
    it.pass(539).unwrap();
    assert_eq!(it.pipeline.next_event(), it.now + Duration::from_secs(1));
    assert!(it.pass(1).unwrap_err().to_string().contains("connections.max.idle.ms"));
}

#[test]
fn closed_pipeline_rejects_new_requests() {
    let mut it = Fixture::new(1);
    let mut waiting = it.push(1, true);
    it.pipeline.close(&Error::new(ErrorKind::Network, "gone"));
    it.pipeline.close(&Error::new(ErrorKind::Closed, "a second reason is none"));
    assert_eq!(failure(&mut waiting).kind(), ErrorKind::Network);
    let (reply, mut late) = oneshot::channel();
    let request = Outgoing {
        key: ApiKey::Heartbeat,
        version: 1,
        correlation_id: 9,
        head: Bytes::new(),
        chunks: Chunks::new(),
        deadline: it.now,
        answered: true,
        expects: 0,
        departure: RevocableParts::default(),
        reply: To::One(reply),
    };
    it.pipeline.push(request, it.now);
    let error = failure(&mut late);
    assert_eq!((error.kind(), error.delivery_status()), (ErrorKind::Network, Some(DeliveryStatus::NotPersisted)));
}

#[test]
fn expected_response_size_matches_request() {
    let mut it = Fixture::new(3);
    assert_eq!(it.pipeline.expects(), 0, "nothing was asked");
    let replies = [true, false, true].map(|answered| it.push(30, answered));
    assert_eq!(it.pipeline.expects(), 0, "nothing was sent");
    it.send();
    assert_eq!(it.pipeline.expects(), 7);
    it.answer(1, 0).unwrap();
    assert_eq!(it.pipeline.expects(), 21, "the second is not answered");
    it.answer(3, 0).unwrap();
    assert_eq!(it.pipeline.expects(), 0);
    drop(replies);
}

proptest! {
    /// In any order of events, every request ends in exactly one way, and no response is matched
    /// with another request.
    #[test]
    fn every_request_gets_its_one_result(steps in prop::collection::vec((0_u8..7, 1_u64..20), 1..200)) {
        let mut it = Fixture::new(3);
        let mut replies = Vec::new();
        let mut unwritten = 0;
        let mut alive = true;
        for (step, n) in steps {
            let result = match step {
                0 | 1 => {
                    let answered = n % 5 > 0;
                    let id = it.next;
                    replies.push((id, answered, it.push(n, answered)));
                    Ok(())
                }
                2 => {
                    while let Some(frame) = it.pipeline.take(it.now) {
                        unwritten += frame.head.len() + frame.chunks.iter().map(Bytes::len).sum::<usize>();
                    }
                    Ok(())
                }
                3 => {
                    let written = unwritten.min(usize::try_from(n * 15).unwrap());
                    unwritten -= written;
                    it.pipeline.wrote(written);
                    Ok(())
                }
                4 => it.pass(n / 4),
                5 => {
                    let _ = replies.pop();
                    Ok(())
                }
                _ => {
                    // The oldest request that was sent completely and is not answered yet, as a
                    // broker sees it.
                    it.pipeline.owed().map_or(Ok(()), |id| it.answer(id, id))
                }
            };
            if let Err(error) = result {
                it.pipeline.close(&error);
                alive = false;
                break;
            }
        }
        if alive {
            it.pipeline.close(&Error::new(ErrorKind::Network, "the end"));
        }
        prop_assert_eq!(it.pipeline.load(), 0);
        for (id, answered, mut reply) in replies {
            match reply.try_recv().expect("one result each") {
                Ok(body) if answered => prop_assert_eq!(&body[..], &id.to_be_bytes()[..]),
                Ok(body) => prop_assert!(body.is_empty()),
                Err(error) => prop_assert!(error.delivery_status().is_some()),
            }
        }
    }
}

/// Counts its calls.
#[derive(Debug)]
struct Part {
    withdrawn: bool,
    asked: AtomicUsize,
}

impl Revocable for Part {
    fn is_withdrawn(&self, _: u32) -> bool {
        self.asked.fetch_add(1, Ordering::Relaxed);
        self.withdrawn
    }

    fn write(&self, _: u32) -> bool {
        !self.withdrawn
    }

    fn withdraw(&self, _: u32) {}
}

#[test]
fn withdrawn_throttled_request_is_never_written() {
    let mut it = Fixture::new(2);
    it.pipeline.mute_for(5000, it.now);
    let parts = [true, false].map(|withdrawn| Arc::new(Part { withdrawn, asked: AtomicUsize::new(0) }));
    let asked = || parts.each_ref().map(|part| part.asked.load(Ordering::Relaxed));
    let departure = |part: &Arc<Part>| [(part.clone() as Arc<dyn Revocable>, 4)].into_iter().collect();
    let mut taken_back = it.push_with(30, true, departure(&parts[0]));
    let mut behind = it.push_with(30, true, departure(&parts[1]));
    assert_eq!((it.send(), asked()), (0, [0, 0]), "muted: nothing is decided yet");
    it.pass(6).unwrap();
    assert_eq!((it.send(), asked()), (1, [1, 1]));
    let error = failure(&mut taken_back);
    assert_eq!((error.kind(), error.delivery_status()), (ErrorKind::Timeout, Some(DeliveryStatus::NotPersisted)));
    it.answer(2, 0).unwrap();
    assert!(behind.try_recv().unwrap().is_ok());
}
