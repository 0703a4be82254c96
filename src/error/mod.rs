//! The error type of the crate, its kinds, and advice on each kind.

mod clean;
mod code;
mod panic;

use std::{error::Error as StdError, fmt, sync::Arc};

pub(crate) use clean::{clean, is_clean};
pub use code::{ErrorCode, Remedy};
pub(crate) use panic::said;

/// The result type of most calls of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// An error of any type, for user code that this crate calls.
pub type BoxError = Box<dyn StdError + Send + Sync>;

/// An error of this client: its kind, the broker's error code, whether a retry may succeed, whether
/// a record may have been written, and the next step ([`advice`](Error::advice)).
///
/// An error is cheap to clone: every record of a failed batch gets the same error.
///
/// A message never holds a control character. It may quote text of brokers, other members of a
/// group and token endpoints, so each character that a terminal or a log viewer would act on is
/// written as an escape (`\n`, `\u{1b}`).
///
/// # Errors made by a program
/// A [`TokenSource`](crate::security::TokenSource), a [`Mechanism`](crate::security::Mechanism) and
/// an [`Exchange`](crate::security::Exchange) return this type.
/// [`authentication`](Error::authentication) makes an error that trying again does not cure: calls
/// return it at once. [`network`](Error::network) and [`timeout`](Error::timeout) make errors that
/// may pass, and are retried after a backoff.
/// [`with_source`](Error::with_source) adds the cause. Deserializers, assignors, rebalance
/// listeners and handlers return errors of any type.
///
/// ```
/// use ottla::Error;
///
/// fn ask_the_vault(status: u16) -> Result<String, Error> {
///     match status {
///         200 => Ok("token".to_owned()),
///         401 | 403 => Err(Error::authentication(
///             "the vault refuses this service: renew its role",
///         )),
///         _ => Err(Error::network(format!("the vault answered with status {status}"))),
///     }
/// }
/// # assert!(ask_the_vault(503).unwrap_err().is_retriable());
/// # assert!(!ask_the_vault(403).unwrap_err().is_retriable());
/// ```
#[derive(Clone)]
pub struct Error(Arc<Inner>);

#[derive(Clone)]
struct Inner {
    kind: ErrorKind,
    code: Option<ErrorCode>,
    message: String,
    retriable: bool,
    fatal: bool,
    status: Option<DeliveryStatus>,
    location: Option<Location>,
    source: Option<Arc<dyn StdError + Send + Sync>>,
}

/// The record, or the end of a partition, that an [`Error`] is about, from [`Error::location`].
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Location {
    /// The topic's name.
    pub topic: Arc<str>,
    /// The partition's number.
    pub partition: i32,
    /// The offset of the record, or the end offset.
    pub offset: i64,
}

/// The kind of an [`Error`], for programs that branch on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// A setting is unknown, malformed or contradicts another. Nothing was started.
    Configuration,
    /// An argument of the call cannot be used (a topic name that Kafka forbids, a negative
    /// partition …).
    InvalidArgument,
    /// A record is larger than `max.request.size` or than the broker accepts.
    RecordTooLarge,
    /// The send buffer (`buffer.memory`) is full. Nothing was queued.
    BufferFull,
    /// A deadline passed. The message names the deadline and the last cause of the delay.
    Timeout,
    /// A connection could not be made, or broke.
    Network,
    /// None of `bootstrap.servers` could be resolved within `bootstrap.resolve.timeout.ms`
    /// (KIP-909). The client keeps trying: later calls succeed once one of them can be resolved.
    Resolution,
    /// The peer does not speak Kafka, or sent bytes that cannot be read.
    Protocol,
    /// The broker does not know the request, or no version of it that this client speaks.
    UnsupportedVersion,
    /// Stored records are damaged: a wrong checksum, length or codec.
    Corrupt,
    /// The broker answered with an error code: see [`Error::code`].
    Broker,
    /// The client and the broker do not accept each other (credentials, mechanism, certificates,
    /// TLS), or no credentials are available (a token endpoint, AWS).
    Authentication,
    /// The broker does not permit the operation.
    Authorization,
    /// A partition has no usable position and `auto.offset.reset` is `none`.
    NoOffset,
    /// The topic or partition does not exist (or is not visible), and did not appear before the
    /// deadline.
    UnknownTopicOrPartition,
    /// The reader reached the end of a partition, and the consumer asked for that event
    /// (`enable.partition.eof`). Nothing failed.
    EndOfPartition,
    /// A deserializer refused the bytes of a record. Reading continues with the next record.
    Deserialization,
    /// A worker's handler failed: it returned an error (the source), panicked, or timed out.
    Handler,
    /// Another producer, member or incarnation has replaced this one. Make a new client.
    Fenced,
    /// A transaction cannot commit any more; the source is the first cause, and the code is that of
    /// the cause. The producer can be used: end the transaction and begin another (*abortable* in
    /// KIP-1050).
    TransactionFailed,
    /// The transaction was aborted before the record was acknowledged (KIP-654).
    TransactionAborted,
    /// This client was closed, or its runtime was dropped.
    Closed,
    /// `Producer::purge` dropped the record before it was acknowledged.
    Purged,
    /// The consumer is not in the group, or no longer owns the partition, so the call cannot be
    /// carried out.
    NotAssigned,
    /// User code that this client calls (a rebalance listener, an assignor) failed, panicked or
    /// timed out.
    Callback,
    /// A bug of this client: please report it.
    Internal,
}

/// The state of a record that was not acknowledged.
///
/// The list is complete: a record is in the log, is not, or may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DeliveryStatus {
    /// The record is not in the log and will not be written: sending it again cannot duplicate it.
    NotPersisted,
    /// The record may be in the log: sending it again may duplicate it.
    PossiblyPersisted,
}

impl Error {
    /// Makes an error of kind [`Authentication`](ErrorKind::Authentication), which trying again
    /// does not cure: credentials are refused, revoked or missing. Calls that wait for a connection
    /// end with it at once; the client itself tries again seldom, so that no account is locked.
    pub fn authentication(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Authentication, message)
    }

    /// Makes an error of kind [`Network`](ErrorKind::Network), which is retried after a backoff: an
    /// identity provider cannot be reached or is overloaded.
    pub fn network(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Network, message)
    }

    /// Makes an error of kind [`Timeout`](ErrorKind::Timeout), which is retried after a backoff.
    pub fn timeout(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Timeout, message)
    }

    /// Adds the cause, which [`source`](StdError::source) returns.
    pub fn with_source(self, source: impl Into<BoxError>) -> Self {
        self.changed(|inner| inner.source = Some(source.into().into()))
    }

    /// Sets whether a retry of the same call may succeed ([`is_retriable`](Error::is_retriable)),
    /// in place of the kind's default.
    pub fn with_retriable(self, retriable: bool) -> Self {
        self.changed(|inner| inner.retriable = retriable)
    }

    pub(crate) fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        let retriable =
            matches!(kind, ErrorKind::BufferFull | ErrorKind::Timeout | ErrorKind::Network | ErrorKind::Resolution);
        Self(Arc::new(Inner {
            kind,
            code: None,
            message: clean::clean_message(message.into()),
            retriable,
            fatal: false,
            status: None,
            location: None,
            source: None,
        }))
    }

    /// Makes the error for a broker's error code. `context` names the request ("produce to
    /// orders[0]").
    pub(crate) fn broker(code: ErrorCode, context: impl fmt::Display) -> Self {
        let kind = match code {
            ErrorCode::TOPIC_AUTHORIZATION_FAILED
            | ErrorCode::GROUP_AUTHORIZATION_FAILED
            | ErrorCode::CLUSTER_AUTHORIZATION_FAILED
            | ErrorCode::TRANSACTIONAL_ID_AUTHORIZATION_FAILED
            | ErrorCode::DELEGATION_TOKEN_AUTHORIZATION_FAILED => ErrorKind::Authorization,
            ErrorCode::SASL_AUTHENTICATION_FAILED
            | ErrorCode::UNSUPPORTED_SASL_MECHANISM
            | ErrorCode::ILLEGAL_SASL_STATE => ErrorKind::Authentication,
            ErrorCode::MESSAGE_TOO_LARGE | ErrorCode::RECORD_LIST_TOO_LARGE => ErrorKind::RecordTooLarge,
            ErrorCode::PRODUCER_FENCED | ErrorCode::FENCED_INSTANCE_ID | ErrorCode::INVALID_PRODUCER_EPOCH => {
                ErrorKind::Fenced
            }
            ErrorCode::UNSUPPORTED_VERSION => ErrorKind::UnsupportedVersion,
            _ => ErrorKind::Broker,
        };
        Self(Arc::new(Inner {
            kind,
            code: Some(code),
            message: clean::clean_message(format!("{context}: {code}: {}", code.message())),
            retriable: code.is_retriable(),
            fatal: false,
            status: None,
            location: None,
            source: None,
        }))
    }

    /// Adds the delivery status of the record, or of the request.
    pub(crate) fn with_status(self, status: DeliveryStatus) -> Self {
        self.changed(|inner| inner.status = Some(status))
    }

    /// Adds the place in the log that the error is about.
    pub(crate) fn at(self, topic: Arc<str>, partition: i32, offset: i64) -> Self {
        self.changed(|inner| inner.location = Some(Location { topic, partition, offset }))
    }

    /// Adds context before the message.
    pub(crate) fn context(self, context: impl fmt::Display) -> Self {
        self.changed(|inner| inner.message = clean::clean_message(format!("{context}: {}", inner.message)))
    }

    /// Changes the kind.
    pub(crate) fn with_kind(self, kind: ErrorKind) -> Self {
        self.changed(|inner| inner.kind = kind)
    }

    /// Makes an error of another kind for the calls that fail because of `cause`, which becomes the
    /// source. Its code is kept.
    pub(crate) fn because_of(kind: ErrorKind, message: impl Into<String>, cause: Self) -> Self {
        let code = cause.code();
        Self::new(kind, message).with_source(cause).changed(|inner| inner.code = code)
    }

    /// Marks the error as the end of its client ([`is_fatal`](Error::is_fatal)).
    pub(crate) fn with_fatal(self) -> Self {
        self.changed(|inner| (inner.fatal, inner.retriable) = (true, false))
    }

    fn changed(mut self, change: impl FnOnce(&mut Inner)) -> Self {
        change(Arc::make_mut(&mut self.0));
        self
    }

    /// Returns the kind of the error.
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// Returns the broker's error code, if a broker answered with one.
    pub fn code(&self) -> Option<ErrorCode> {
        self.0.code
    }

    /// Returns true if the same call may succeed when it is made again.
    ///
    /// For a record also look at [`delivery_status`](Self::delivery_status): a retry of a record
    /// that was possibly persisted may duplicate it.
    pub fn is_retriable(&self) -> bool {
        self.0.retriable
    }

    /// Returns true if this client cannot be used after the error: close it and make a new one.
    /// Such errors have the kind [`Fenced`](ErrorKind::Fenced) or [`Closed`](ErrorKind::Closed), or
    /// the code `GROUP_MAX_SIZE_REACHED`. Errors of other kinds are fatal if a transactional
    /// producer has failed for good because of them.
    pub fn is_fatal(&self) -> bool {
        let full = self.0.code == Some(ErrorCode::GROUP_MAX_SIZE_REACHED);
        let fatal = self.0.fatal || matches!(self.0.kind, ErrorKind::Fenced | ErrorKind::Closed);
        // A failed transaction is not the end of its producer, whatever the cause was.
        (full || fatal) && !self.is_abortable()
    }

    /// Returns true if a transaction has failed and its producer can be used: end the transaction,
    /// begin another and do its work again (KIP-1050). Such errors have the kind
    /// [`TransactionFailed`](ErrorKind::TransactionFailed).
    pub fn is_abortable(&self) -> bool {
        self.0.kind == ErrorKind::TransactionFailed
    }

    /// Returns the state of a record that was not acknowledged, or of a request without an answer.
    ///
    /// Each error that `Producer::send`, `try_send` and `send_batch` return, and each that a
    /// `Delivery` resolves to, has a status. A record that was refused, or that never left the
    /// client, is [`NotPersisted`](DeliveryStatus::NotPersisted).
    pub fn delivery_status(&self) -> Option<DeliveryStatus> {
        self.0.status
    }

    /// Returns topic, partition and offset of the place that could not be read
    /// ([`ErrorKind::Corrupt`] in most cases, [`ErrorKind::NoOffset`],
    /// [`ErrorKind::Deserialization`]), of the record that could not be handled
    /// ([`ErrorKind::Handler`]), or of the end that was reached ([`ErrorKind::EndOfPartition`]);
    /// `None` for all other errors.
    pub fn location(&self) -> Option<&Location> {
        self.0.location.as_ref()
    }

    /// Returns the recommended next step, in one sentence.
    pub fn advice(&self) -> &'static str {
        match self.0.kind {
            ErrorKind::Configuration => "correct the setting that the message names and build the client again",
            ErrorKind::InvalidArgument => "correct the argument that the message names",
            ErrorKind::RecordTooLarge => {
                "send a smaller record, or raise max.request.size here and max.message.bytes on the topic"
            }
            ErrorKind::BufferFull => "wait for outstanding deliveries, or send at a lower rate",
            ErrorKind::Timeout => "read the last cause in the message; try again, or raise the timeout",
            ErrorKind::Network => "check that the brokers are up and that their addresses are reachable from here",
            ErrorKind::Resolution => "check the host names of bootstrap.servers and the DNS resolver of this machine",
            ErrorKind::Protocol => "check that the address and port are those of a Kafka listener of this protocol",
            ErrorKind::UnsupportedVersion => "use a newer broker, or do without the feature that the message names",
            ErrorKind::Corrupt => {
                "skip the damaged records (`Consumer::skip_corrupt`), or restore the partition from a good replica"
            }
            ErrorKind::Broker => "look up the error code; try again if it is retriable",
            ErrorKind::Authentication => {
                "check security.protocol, the credentials, the mechanism and the certificates that the message names"
            }
            ErrorKind::Authorization => "grant this client the permission that the message names",
            ErrorKind::NoOffset => "seek to a position, or set auto.offset.reset",
            ErrorKind::UnknownTopicOrPartition => "create the topic, or check its name and the permission to see it",
            ErrorKind::EndOfPartition => "continue reading: records that are appended later follow",
            ErrorKind::Deserialization => "skip the record or store it elsewhere; check the producers of the topic",
            ErrorKind::Handler => {
                "fix the handler or the record that the message names, or set a topic for failed records (`WorkerBuilder::dead_letter`)"
            }
            ErrorKind::Fenced => "another client has replaced this one: close it and make a new one",
            ErrorKind::TransactionFailed => {
                "the transaction cannot commit: end it, begin another and do its work again; the source is the cause"
            }
            ErrorKind::TransactionAborted => {
                "send the record again in another transaction if it is still needed: read_committed consumers never see it"
            }
            ErrorKind::Closed => "make a new client",
            ErrorKind::Purged => {
                "send the record again if it is still needed; if it was possibly persisted, a second send may duplicate it"
            }
            ErrorKind::NotAssigned => "subscribe or assign first, and act on partitions that are owned",
            ErrorKind::Callback => {
                "check the callback that the message names; the source of this error is the callback's own error"
            }
            ErrorKind::Internal => "please report this as a bug",
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.message)
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut out = f.debug_struct("Error");
        out.field("kind", &self.0.kind);
        if let Some(code) = self.0.code {
            out.field("code", &code);
        }
        out.field("message", &self.0.message);
        if let Some(status) = self.0.status {
            out.field("status", &status);
        }
        if let Some(source) = &self.0.source {
            out.field("source", source);
        }
        out.finish()
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.0.source.as_ref().map(|source| &**source as &(dyn StdError + 'static))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn broker_error_keeps_code_and_retriability() {
        let error = Error::broker(ErrorCode::NOT_LEADER_OR_FOLLOWER, "produce to orders[0]");
        assert_eq!(error.kind(), ErrorKind::Broker);
        assert_eq!(error.code(), Some(ErrorCode::NOT_LEADER_OR_FOLLOWER));
        assert!(error.is_retriable());
        assert!(error.to_string().starts_with("produce to orders[0]: NOT_LEADER_OR_FOLLOWER: "));
        assert!(Error::broker(ErrorCode::PRODUCER_FENCED, "x").is_fatal());
    }

    #[test]
    fn message_and_context_escape_control_characters() {
        let error = Error::new(ErrorKind::Broker, "a\nb").context("c\u{1b}[0m");
        assert_eq!(error.to_string(), r"c\u{1b}[0m: a\nb");
        let error = Error::broker(ErrorCode::POLICY_VIOLATION, "create\r\n");
        assert!(error.to_string().starts_with(r"create\r\n: POLICY_VIOLATION: "), "{error}");
    }

    #[test]
    fn constructors_set_kind_retriability_and_source() {
        let refused = Error::authentication("revoked");
        assert_eq!((refused.kind(), refused.is_retriable()), (ErrorKind::Authentication, false));
        for passing in [Error::network("down"), Error::timeout("slow"), refused.with_retriable(true)] {
            assert!(passing.is_retriable() && !passing.is_fatal(), "{passing:?}");
        }
        let cause: BoxError = "no route".into();
        assert_eq!(Error::network("down").with_source(cause).source().unwrap().to_string(), "no route");
        assert_eq!(Error::network("down").with_source("no route").source().unwrap().to_string(), "no route");
    }

    #[test]
    fn failed_transaction_keeps_code_and_is_abortable() {
        let cause = Error::broker(ErrorCode::INVALID_PRODUCER_EPOCH, "produce to orders[0]");
        assert!(cause.is_fatal() && !cause.is_abortable());
        let failed = Error::because_of(ErrorKind::TransactionFailed, "transaction 7 has failed", cause);
        assert!(failed.is_abortable() && !failed.is_fatal() && !failed.is_retriable());
        assert_eq!(failed.code(), Some(ErrorCode::INVALID_PRODUCER_EPOCH));
        assert!(failed.source().unwrap().to_string().starts_with("produce to orders[0]: INVALID_PRODUCER_EPOCH"));
        assert!(failed.advice().contains("begin another"));
        let aborted = Error::new(ErrorKind::TransactionAborted, "orders[0]");
        assert!(!aborted.is_abortable() && !aborted.is_fatal() && !aborted.is_retriable());
    }

    #[test]
    fn fatal_error_is_not_retriable() {
        let passing = Error::broker(ErrorCode::REQUEST_TIMED_OUT, "x");
        assert!(passing.is_retriable() && !passing.is_fatal());
        let fatal = passing.with_fatal();
        assert!(fatal.is_fatal() && !fatal.is_retriable());
    }

    #[test]
    fn keeps_context_delivery_status_and_source() {
        let cause = std::io::Error::other("connection refused");
        let error = Error::new(ErrorKind::Network, "127.0.0.1:1")
            .with_source(cause)
            .with_status(DeliveryStatus::NotPersisted)
            .context("bootstrap");
        assert_eq!(error.to_string(), "bootstrap: 127.0.0.1:1");
        assert_eq!(error.source().unwrap().to_string(), "connection refused");
        assert_eq!(error.delivery_status(), Some(DeliveryStatus::NotPersisted));
    }
}
