//! A call about several topics, each with its own result: topics with a result, topics to be sent
//! again, and whether a lost attempt may already have changed the cluster.
//!
//! Sans-IO.

use super::{TopicResult, TopicResults};
use crate::error::{DeliveryStatus, Error, ErrorCode, ErrorKind, Result, clean};

/// The topics of one call that changes the cluster.
#[derive(Debug)]
pub(super) struct Rounds<T> {
    /// The operation, for errors: "create topic".
    doing: &'static str,
    /// The error code of a broker for an operation that was already carried out.
    done_before: ErrorCode,
    topics: Vec<Topic<T>>,
}

#[derive(Debug)]
struct Topic<T> {
    name: String,
    /// An attempt for the topic got no response, or a response that does not say whether the
    /// operation was carried out.
    maybe_done: bool,
    /// The last error after which the topic is sent again.
    last: Option<Error>,
    result: Option<Result<T>>,
}

impl<T> Rounds<T> {
    /// Makes the rounds. A name given twice is refused, because the broker would refuse both.
    pub(super) fn new(doing: &'static str, done_before: ErrorCode, names: Vec<String>) -> Result<Self> {
        let mut topics: Vec<Topic<T>> = Vec::with_capacity(names.len());
        for name in names {
            if topics.iter().any(|topic| topic.name == name) {
                return Err(Error::new(
                    ErrorKind::InvalidArgument,
                    format!("{doing} {name}: the topic is given twice"),
                ));
            }
            topics.push(Topic { name, maybe_done: false, last: None, result: None });
        }
        Ok(Self { doing, done_before, topics })
    }

    /// Returns true if this topic has no result yet.
    pub(super) fn is_open(&self, name: &str) -> bool {
        self.topics.iter().any(|topic| topic.result.is_none() && topic.name == name)
    }

    pub(super) fn is_done(&self) -> bool {
        self.topics.iter().all(|topic| topic.result.is_some())
    }

    /// Records that an attempt for all open topics may have reached the broker and got no response.
    pub(super) fn lost(&mut self) {
        for topic in self.topics.iter_mut().filter(|topic| topic.result.is_none()) {
            topic.maybe_done = true;
        }
    }

    /// Records the broker's result for one topic. Topics that were not in the request are ignored.
    pub(super) fn answer(&mut self, name: &str, code: ErrorCode, detail: Option<&str>, value: T) {
        let Some(topic) = self.topics.iter_mut().find(|topic| topic.result.is_none() && topic.name == name) else {
            return;
        };
        if code.is_ok() {
            topic.result = Some(Ok(value));
            return;
        }
        let mut context = format!("{} {name}", self.doing);
        if let Some(detail) = detail {
            context = format!("{context} ({})", clean(detail));
        }
        let error = Error::broker(code, context);
        if passes(code) {
            topic.maybe_done |= code == ErrorCode::REQUEST_TIMED_OUT;
            topic.last = Some(error);
        } else if code == self.done_before && topic.maybe_done {
            topic.result = Some(Err(error
                .context("an earlier attempt of this call got no response and may have done it")
                .with_status(DeliveryStatus::PossiblyPersisted)));
        } else {
            topic.result = Some(Err(error));
        }
    }

    /// Ends the call: every open topic gets its own last error, or else `why`.
    pub(super) fn give_up(&mut self, why: &Error) {
        for topic in self.topics.iter_mut().filter(|topic| topic.result.is_none()) {
            let error =
                topic.last.take().unwrap_or_else(|| why.clone().context(format_args!("{} {}", self.doing, topic.name)));
            let status =
                if topic.maybe_done { DeliveryStatus::PossiblyPersisted } else { DeliveryStatus::NotPersisted };
            topic.result = Some(Err(error.with_status(status)));
        }
    }

    /// Ends the reading of a response: a topic that it left out has no result in it.
    pub(super) fn end_of_answer(&mut self) {
        let doing = self.doing;
        for topic in self.topics.iter_mut().filter(|topic| topic.result.is_none() && topic.last.is_none()) {
            let message = format!("{doing} {}: the broker's response does not contain the topic", topic.name);
            topic.result =
                Some(Err(Error::new(ErrorKind::Protocol, message).with_status(DeliveryStatus::PossiblyPersisted)));
        }
    }

    /// Returns the results in the order of the names. It is called only when every topic has one.
    pub(super) fn into_results(self) -> TopicResults<T> {
        let missing = || Err(Error::new(ErrorKind::Internal, "a topic was left without a result"));
        let result = |topic: Topic<T>| TopicResult { topic: topic.name, result: topic.result.unwrap_or_else(missing) };
        self.topics.into_iter().map(result).collect()
    }
}

/// Returns true if the topic is to be sent again. Other codes that the table calls retriable are
/// not: a topic that does not exist, for example, does not come into being while the client waits.
fn passes(code: ErrorCode) -> bool {
    matches!(code, ErrorCode::NOT_CONTROLLER | ErrorCode::REQUEST_TIMED_OUT | ErrorCode::THROTTLING_QUOTA_EXCEEDED)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rounds(names: &[&str]) -> Rounds<i32> {
        let names = names.iter().map(|name| (*name).to_owned()).collect();
        Rounds::new("create topic", ErrorCode::TOPIC_ALREADY_EXISTS, names).unwrap()
    }

    fn results(rounds: Rounds<i32>) -> Vec<Result<i32>> {
        rounds.into_results().into_iter().map(|topic| topic.result).collect()
    }

    #[test]
    fn reports_result_of_each_topic_separately() {
        let mut rounds = rounds(&["a", "b"]);
        rounds.answer("b", ErrorCode::INVALID_CONFIG, Some("no such key"), 0);
        rounds.answer("c", ErrorCode::NONE, None, 9);
        assert!(!rounds.is_done() && rounds.is_open("a") && !rounds.is_open("b"));
        rounds.answer("a", ErrorCode::NONE, None, 1);
        rounds.end_of_answer();
        assert!(rounds.is_done());
        let results = results(rounds);
        assert_eq!(*results[0].as_ref().unwrap(), 1);
        let error = results[1].as_ref().unwrap_err();
        assert_eq!(error.code(), Some(ErrorCode::INVALID_CONFIG));
        assert!(error.to_string().starts_with("create topic b (no such key): INVALID_CONFIG"), "{error}");
    }

    #[test]
    fn repeats_only_topics_with_retriable_errors() {
        let mut rounds = rounds(&["a", "b"]);
        rounds.answer("a", ErrorCode::NOT_CONTROLLER, None, 0);
        rounds.answer("b", ErrorCode::NONE, None, 2);
        rounds.end_of_answer();
        assert!(rounds.is_open("a") && !rounds.is_open("b"));
        // NOT_CONTROLLER did nothing, so that the next error is about a topic of another client.
        rounds.answer("a", ErrorCode::TOPIC_ALREADY_EXISTS, None, 0);
        let error = results(rounds).swap_remove(0).unwrap_err();
        assert_eq!((error.code(), error.delivery_status()), (Some(ErrorCode::TOPIC_ALREADY_EXISTS), None));
    }

    #[test]
    fn existing_topic_possibly_persisted_after_lost_response() {
        for timed_out in [false, true] {
            let mut rounds = rounds(&["a"]);
            if timed_out {
                rounds.answer("a", ErrorCode::REQUEST_TIMED_OUT, None, 0);
            } else {
                rounds.lost();
            }
            rounds.answer("a", ErrorCode::TOPIC_ALREADY_EXISTS, None, 0);
            let error = results(rounds).swap_remove(0).unwrap_err();
            assert_eq!(error.code(), Some(ErrorCode::TOPIC_ALREADY_EXISTS));
            assert_eq!(error.delivery_status(), Some(DeliveryStatus::PossiblyPersisted));
            assert!(error.to_string().contains("may have done it"), "{error}");
        }
    }

    #[test]
    fn giving_up_reports_status_of_each_topic() {
        let mut rounds = rounds(&["a", "b", "c"]);
        rounds.answer("a", ErrorCode::NONE, None, 1);
        rounds.answer("b", ErrorCode::NOT_CONTROLLER, None, 0);
        rounds.give_up(&Error::new(ErrorKind::Timeout, "the deadline passed"));
        let all = results(rounds);
        assert!(all[0].is_ok());
        let error = all[1].as_ref().unwrap_err();
        assert_eq!(
            (error.code(), error.delivery_status()),
            (Some(ErrorCode::NOT_CONTROLLER), Some(DeliveryStatus::NotPersisted))
        );
        let error = all[2].as_ref().unwrap_err();
        assert_eq!(error.to_string(), "create topic c: the deadline passed");

        let mut lost = super::tests::rounds(&["a"]);
        lost.lost();
        lost.give_up(&Error::new(ErrorKind::Timeout, "the deadline passed"));
        let error = results(lost).swap_remove(0).unwrap_err();
        assert_eq!(error.delivery_status(), Some(DeliveryStatus::PossiblyPersisted));
    }

    #[test]
    fn topic_missing_from_response_is_protocol_error() {
        let mut rounds = rounds(&["a"]);
        rounds.end_of_answer();
        let error = results(rounds).swap_remove(0).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Protocol);
    }

    #[test]
    fn rejects_duplicate_topic_name() {
        let names = vec!["a".to_owned(), "a".to_owned()];
        let error = Rounds::<i32>::new("create topic", ErrorCode::TOPIC_ALREADY_EXISTS, names).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidArgument);
    }
}
