//! Faults: errors, delays and losses that a test asks for, and the requests that they strike.

use std::{fmt, sync::Arc, time::Duration};

use bytes::Bytes;
use tokio::sync::watch;

use super::journal::Request;
use crate::{error::ErrorCode, wire::ApiKey};

/// A topic, and one of its partitions or all of them.
type Place = (String, Option<i32>);

type Condition = Arc<dyn Fn(&Request) -> bool + Send + Sync>;

/// A fault that strikes some requests; made by [`on`], given to
/// [`Cluster::fault`](super::Cluster::fault).
///
/// The conditions narrow it down: a request has to meet all of them. The effects add up: a fault
/// may delay, throttle, answer with an error and close the connection at once. It strikes once
/// unless told otherwise.
///
/// If several faults fit a request, delays and throttles add up. Of those that determine the
/// response (an error, a closed connection, no response, garbage) for the same place, the first is
/// applied, and the others are kept for the next request. So faults given one after the other
/// strike one after the other.
#[derive(Clone)]
#[must_use = "a fault does nothing until it is given to a cluster"]
pub struct Fault {
    keys: Vec<ApiKey>,
    broker: Option<i32>,
    topic: Option<Place>,
    group: Option<String>,
    condition: Option<Condition>,
    skip: u64,
    times: u64,
    before: Duration,
    after: Duration,
    throttle: Duration,
    error: Option<Injected>,
    spot: Spot,
    invalid_records: Vec<i32>,
    ending: Option<Ending>,
}

/// An error that a fault answers with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Injected {
    pub(crate) code: ErrorCode,
    /// True if the request is carried out all the same.
    pub(crate) acts: bool,
}

/// The place in a response of an error that names no topic, for APIs that have several.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Spot {
    /// The place where Kafka has this code.
    #[default]
    Usual,
    /// The top of the response.
    Whole,
    /// Each member of the response.
    Members,
}

/// A way in which a request ends without a proper response.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Ending {
    /// The connection closes; the request is not carried out.
    Drop,
    /// The request is carried out, then the connection closes without a response.
    ActThenDrop,
    /// The request is neither carried out nor answered; the connection stays open.
    Hang,
    /// The request is not carried out; these bytes are the response.
    Garbage(Bytes),
    /// The request is carried out, half of the response is sent, and the connection closes.
    Truncate,
}

/// Creates a fault for requests of that kind.
///
/// ```
/// use ottla::{ApiKey, ErrorCode, Record, testkit::{Cluster, Options, on}};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> ottla::Result<()> {
/// let cluster = Cluster::start(Options::new().in_memory()).await?;
/// let refusal = on(ApiKey::Produce).times(2).error(ErrorCode::NOT_ENOUGH_REPLICAS);
/// let fault = cluster.fault(refusal);
/// let producer = cluster.producer().build().await?;
/// producer.send(Record::to("orders").with_value("shipped")).await?.await?; // the third attempt
/// assert_eq!(fault.hits(), 2);
/// # Ok(()) }
/// ```
pub fn on(key: ApiKey) -> Fault {
    on_any_of([key])
}

/// Creates a fault for requests of any of those kinds; of every kind if none is named.
pub fn on_any_of(keys: impl IntoIterator<Item = ApiKey>) -> Fault {
    Fault {
        keys: keys.into_iter().collect(),
        broker: None,
        topic: None,
        group: None,
        condition: None,
        skip: 0,
        times: 1,
        before: Duration::ZERO,
        after: Duration::ZERO,
        throttle: Duration::ZERO,
        error: None,
        spot: Spot::Usual,
        invalid_records: Vec::new(),
        ending: None,
    }
}

impl Fault {
    /// Limits the fault to requests that concern that partition; an error strikes that partition
    /// alone, and the others of the request are served.
    pub fn partition(mut self, topic: impl Into<String>, partition: i32) -> Self {
        self.topic = Some((topic.into(), Some(partition)));
        self
    }

    /// Limits the fault to requests that concern that topic; an error strikes its partitions alone.
    pub fn topic(mut self, topic: impl Into<String>) -> Self {
        self.topic = Some((topic.into(), None));
        self
    }

    /// Limits the fault to requests to that broker.
    pub fn broker(mut self, broker: i32) -> Self {
        self.broker = Some(broker);
        self
    }

    /// Limits the fault to requests to the coordinator of that consumer group or transactional id,
    /// and FindCoordinator.
    pub fn group(mut self, group: impl Into<String>) -> Self {
        self.group = Some(group.into());
        self
    }

    /// Limits the fault to requests that name that transactional id, to whichever broker they go.
    pub fn transactional_id(self, id: impl Into<String>) -> Self {
        let id = id.into();
        let before = self.condition.clone();
        self.when(move |request| {
            request.transactional_id.as_ref() == Some(&id) && before.as_ref().is_none_or(|condition| condition(request))
        })
    }

    /// Limits the fault to requests of that user (`alice`, as SASL knows them).
    pub fn user(self, name: impl AsRef<str>) -> Self {
        let principal = format!("User:{}", name.as_ref());
        let before = self.condition.clone();
        self.when(move |request| {
            *request.principal == *principal && before.as_ref().is_none_or(|condition| condition(request))
        })
    }

    /// Limits the fault to requests for which `condition` returns true.
    pub fn when(mut self, condition: impl Fn(&Request) -> bool + Send + Sync + 'static) -> Self {
        self.condition = Some(Arc::new(condition));
        self
    }

    /// Lets the first `requests` that fit pass (default: 0).
    pub fn skip(mut self, requests: u64) -> Self {
        self.skip = requests;
        self
    }

    /// Strikes `times` requests (default: 1).
    pub fn times(mut self, times: u64) -> Self {
        self.times = times;
        self
    }

    /// Strikes until the fault is cleared.
    pub fn forever(self) -> Self {
        self.times(u64::MAX)
    }

    /// Answers with that error and does not carry the request out.
    pub fn error(mut self, code: ErrorCode) -> Self {
        self.error = Some(Injected { code, acts: false });
        self
    }

    /// Carries the request out and answers with that error all the same (e.g.
    /// NOT_ENOUGH_REPLICAS_AFTER_APPEND).
    pub fn act_then_error(mut self, code: ErrorCode) -> Self {
        self.error = Some(Injected { code, acts: true });
        self
    }

    /// Puts the error at the top of the response if the API has two places for it, although Kafka
    /// would put this one at each partition (Fetch from v7 on). Has no effect on a fault of one
    /// topic.
    pub fn whole_response(mut self) -> Self {
        self.spot = Spot::Whole;
        self
    }

    /// Puts the error at each member of the response and none at its top (LeaveGroup from v3 on).
    pub fn each_member(mut self) -> Self {
        self.spot = Spot::Members;
        self
    }

    /// Refuses a produced batch with INVALID_RECORD, naming the records at these indices as invalid
    /// (KIP-467, from Produce v8 on).
    pub fn invalid_records(mut self, indices: impl IntoIterator<Item = i32>) -> Self {
        self.invalid_records = indices.into_iter().collect();
        self.error(ErrorCode::INVALID_RECORD)
    }

    /// Waits before the request is carried out. Later requests on the connection wait as well, as
    /// with Kafka.
    pub fn delay(mut self, delay: Duration) -> Self {
        self.before = delay;
        self
    }

    /// Waits between carrying the request out and answering it.
    pub fn delay_response(mut self, delay: Duration) -> Self {
        self.after = delay;
        self
    }

    /// Asks the client to wait for `throttle` (KIP-219), in the response's `throttle_time_ms`.
    pub fn throttle(mut self, throttle: Duration) -> Self {
        self.throttle = throttle;
        self
    }

    /// Closes the connection without carrying the request out.
    pub fn drop_connection(self) -> Self {
        self.ending(Ending::Drop)
    }

    /// Carries the request out, then closes the connection without an answer.
    pub fn act_then_drop(self) -> Self {
        self.ending(Ending::ActThenDrop)
    }

    /// Leaves the request unanswered without carrying it out, and reads nothing more from the
    /// connection except its end.
    pub fn hang(self) -> Self {
        self.ending(Ending::Hang)
    }

    /// Answers with exactly these bytes, without a frame, and does not carry the request out.
    pub fn respond_garbage(self, bytes: impl Into<Bytes>) -> Self {
        self.ending(Ending::Garbage(bytes.into()))
    }

    /// Carries the request out, sends the first half of the response and closes the connection.
    pub fn truncate_response(self) -> Self {
        self.ending(Ending::Truncate)
    }

    fn ending(mut self, ending: Ending) -> Self {
        self.ending = Some(ending);
        self
    }

    fn fits(&self, request: &Request) -> bool {
        (self.keys.is_empty() || self.keys.contains(&request.key))
            && self.broker.is_none_or(|broker| broker == request.broker)
            && self.group.as_ref().is_none_or(|group| request.group.as_ref() == Some(group))
            && self.topic.as_ref().is_none_or(|(topic, partition)| {
                request.partitions.iter().any(|tp| covers(topic, *partition, &tp.topic, tp.partition))
            })
            && self.condition.as_ref().is_none_or(|condition| condition(request))
    }
}

/// Returns true if a fault's topic and partition cover the partition `wanted` of the topic `of`; −1
/// is a topic as a whole.
fn covers(topic: &str, partition: Option<i32>, of: &str, wanted: i32) -> bool {
    topic == of && partition.is_none_or(|partition| partition == wanted || wanted == -1)
}

impl fmt::Debug for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Fault")
            .field("keys", &self.keys)
            .field("broker", &self.broker)
            .field("topic", &self.topic)
            .field("group", &self.group)
            .field("skip", &self.skip)
            .field("times", &self.times)
            .field("error", &self.error)
            .field("ending", &self.ending)
            .finish_non_exhaustive()
    }
}

#[derive(Debug)]
struct Planted {
    id: u64,
    fault: Fault,
    hits: Arc<watch::Sender<u64>>,
}

/// The faults that are in force, oldest first.
#[derive(Debug, Default)]
pub(crate) struct Faults {
    planted: Vec<Planted>,
    next: u64,
}

/// The effects of all faults on one request.
#[derive(Clone, Debug, Default)]
pub(crate) struct Verdict {
    pub(crate) before: Duration,
    pub(crate) after: Duration,
    pub(crate) throttle: Duration,
    pub(crate) ending: Option<Ending>,
    pub(crate) invalid_records: Vec<i32>,
    pub(crate) spot: Spot,
    errors: Vec<(Option<Place>, Injected)>,
}

impl Verdict {
    /// Returns the error for a partition, from faults that name it and faults that name nothing.
    pub(crate) fn for_partition(&self, topic: &str, partition: i32) -> Option<Injected> {
        let fits = |place: &Option<Place>| match place {
            Some((name, wanted)) => covers(name, *wanted, topic, partition),
            None => true,
        };
        self.errors.iter().find(|(place, _)| fits(place)).map(|&(_, injected)| injected)
    }

    /// Returns the error for the request as a whole.
    pub(crate) fn for_request(&self) -> Option<Injected> {
        self.errors.iter().find(|(place, _)| place.is_none()).map(|&(_, injected)| injected)
    }
}

impl Faults {
    pub(crate) fn is_empty(&self) -> bool {
        self.planted.is_empty()
    }

    pub(crate) fn plant(&mut self, fault: Fault) -> (u64, Arc<watch::Sender<u64>>) {
        self.next += 1;
        let hits = Arc::new(watch::Sender::new(0));
        self.planted.push(Planted { id: self.next, fault, hits: hits.clone() });
        (self.next, hits)
    }

    pub(crate) fn clear(&mut self, id: u64) {
        self.planted.retain(|planted| planted.id != id);
    }

    pub(crate) fn clear_all(&mut self) {
        self.planted.clear();
    }

    /// Returns the effects of all faults on this request, and counts it.
    pub(crate) fn judge(&mut self, request: &Request) -> Verdict {
        let mut verdict = Verdict::default();
        for planted in &mut self.planted {
            let fault = &mut planted.fault;
            if fault.times == 0 || !fault.fits(request) {
                continue;
            }
            let decides = fault.error.is_some() || fault.ending.is_some();
            let decided = verdict.ending.is_some() || verdict.errors.iter().any(|(place, _)| *place == fault.topic);
            if decides && decided {
                continue;
            }
            if fault.skip > 0 {
                fault.skip -= 1;
                continue;
            }
            if fault.times != u64::MAX {
                fault.times -= 1;
            }
            verdict.before += fault.before;
            verdict.after += fault.after;
            verdict.throttle += fault.throttle;
            verdict.errors.extend(fault.error.map(|injected| (fault.topic.clone(), injected)));
            if fault.error.is_some() {
                verdict.spot = fault.spot;
            }
            verdict.invalid_records.extend_from_slice(&fault.invalid_records);
            verdict.ending = verdict.ending.or_else(|| fault.ending.clone());
            planted.hits.send_modify(|hits| *hits += 1);
        }
        self.planted.retain(|planted| planted.fault.times > 0);
        verdict
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::TopicPartition;

    fn request(key: ApiKey, partitions: &[(&str, i32)]) -> Request {
        Request {
            key,
            version: 9,
            broker: 1,
            connection: 1,
            client_id: "c".into(),
            principal: "User:ANONYMOUS".into(),
            partitions: partitions.iter().map(|&(topic, p)| TopicPartition::new(topic, p)).collect(),
            group: None,
            transactional_id: None,
            at: tokio::time::Instant::now(),
        }
    }

    #[test]
    fn faults_match_target_and_count_limits() {
        let mut faults = Faults::default();
        let error = ErrorCode::NOT_LEADER_OR_FOLLOWER;
        let (_, hits) = faults.plant(on(ApiKey::Produce).partition("t", 0).broker(1).skip(1).times(2).error(error));
        let produce = request(ApiKey::Produce, &[("t", 0), ("t", 1)]);
        assert!(faults.judge(&request(ApiKey::Fetch, &[("t", 0)])).for_partition("t", 0).is_none());
        assert!(faults.judge(&request(ApiKey::Produce, &[("t", 1)])).for_partition("t", 1).is_none());
        assert!(faults.judge(&Request { broker: 2, ..produce.clone() }).for_partition("t", 0).is_none());
        assert!(faults.judge(&produce).for_partition("t", 0).is_none(), "the first is skipped");
        for _ in 0..2 {
            let verdict = faults.judge(&produce);
            assert_eq!(verdict.for_partition("t", 0), Some(Injected { code: error, acts: false }));
            assert_eq!(verdict.for_partition("t", 1), None);
            assert_eq!(verdict.for_request(), None);
        }
        assert!(faults.judge(&produce).for_partition("t", 0).is_none());
        assert_eq!(*hits.borrow(), 2);
        assert!(faults.is_empty());
    }

    #[test]
    fn faults_combine_and_queue_in_order() {
        let mut faults = Faults::default();
        let (first, second) = (ErrorCode::NOT_ENOUGH_REPLICAS, ErrorCode::KAFKA_STORAGE_ERROR);
        faults.plant(on(ApiKey::Produce).error(first));
        faults.plant(on(ApiKey::Produce).error(second));
        faults.plant(on(ApiKey::Produce).delay(Duration::from_secs(1)).forever());
        let (id, _) = faults.plant(on_any_of([]).act_then_drop().forever());
        let produce = request(ApiKey::Produce, &[("t", 0)]);
        let verdict = faults.judge(&produce);
        assert_eq!(verdict.for_request().map(|injected| injected.code), Some(first));
        assert_eq!((verdict.before, verdict.ending), (Duration::from_secs(1), None));
        let verdict = faults.judge(&produce);
        assert_eq!(verdict.for_partition("t", 0).map(|injected| injected.code), Some(second));
        let verdict = faults.judge(&produce);
        assert_eq!((verdict.before, verdict.ending), (Duration::from_secs(1), Some(Ending::ActThenDrop)));
        faults.clear(id);
        let verdict = faults.judge(&produce);
        assert!(verdict.for_request().is_none() && verdict.ending.is_none());
        assert_eq!(verdict.before, Duration::from_secs(1));
    }

    #[test]
    fn condition_restricts_fault_to_matching_requests() {
        let mut faults = Faults::default();
        faults.plant(on(ApiKey::Fetch).when(|request| request.version > 10).hang());
        assert!(faults.judge(&request(ApiKey::Fetch, &[])).ending.is_none());
        let newer = Request { version: 12, ..request(ApiKey::Fetch, &[]) };
        assert_eq!(faults.judge(&newer).ending, Some(Ending::Hang));
    }
}
