//! The topics that a consumer subscribes to: names, and regular expressions over them.
//!
//! Sans-IO.

use std::{collections::BTreeSet, sync::Arc};

use regex::Regex;

use crate::{
    cluster::Metadata,
    error::{Error, ErrorKind, Result},
    record::check_topic_name,
};

/// Internal topics of brokers. Kafka knows them by these names, and users cannot add to them.
const INTERNAL_TOPICS: [&str; 3] = ["__consumer_offsets", "__transaction_state", "__share_group_state"];

/// Syntax that RE2 reads differently or not at all: set operators in character classes, comments,
/// newer word boundaries, the other syntax of named groups.
const NOT_IN_RE2: [&str; 9] = ["&&", "--", "~~", "[[", "(?<", "(?x", "\\b{", "\\<", "\\>"];

/// Topics by name and by regular expression.
///
/// An element that starts with `^` is a regular expression, as in librdkafka: it is looked for from
/// the start of a name and is not anchored at the end (`^audit` matches `audit-1`). Any other
/// element is a name.
#[derive(Clone, Debug, Default)]
pub(crate) struct Subscription {
    names: BTreeSet<Arc<str>>,
    patterns: Vec<Regex>,
}

impl Subscription {
    /// Parses the elements. A name that Kafka forbids, or an invalid expression, is an
    /// `InvalidArgument` error that shows it.
    pub(crate) fn parse<S: AsRef<str>>(elements: impl IntoIterator<Item = S>) -> Result<Self> {
        let mut subscription = Self::default();
        for element in elements {
            let element = element.as_ref();
            if !element.starts_with('^') {
                check_topic_name(element)?;
                subscription.names.insert(element.into());
            } else if !subscription.patterns.iter().any(|pattern| pattern.as_str() == element) {
                let pattern = Regex::new(element).map_err(|cause| {
                    Error::new(
                        ErrorKind::InvalidArgument,
                        format!("{element:?} is not a regular expression over topic names: {cause}"),
                    )
                    .with_source(cause)
                })?;
                subscription.patterns.push(pattern);
            }
        }
        Ok(subscription)
    }

    /// Returns true if it has neither names nor expressions.
    pub(crate) fn is_empty(&self) -> bool {
        self.names.is_empty() && self.patterns.is_empty()
    }

    /// Returns the topics subscribed to by name, which may not exist.
    pub(crate) fn names(&self) -> &BTreeSet<Arc<str>> {
        &self.names
    }

    /// Returns true if the topics of the whole cluster are needed to evaluate it.
    pub(crate) fn has_patterns(&self) -> bool {
        !self.patterns.is_empty()
    }

    /// Joins the expressions to one for brokers (KIP-848). Brokers match whole names, whereas the
    /// expressions here match anywhere in a name.
    pub(crate) fn broker_regex(&self) -> Option<String> {
        let expressions: Vec<&str> = self.patterns.iter().map(Regex::as_str).collect();
        match &*expressions {
            [] => None,
            [one] => Some(format!(".*(?:{one}).*")),
            several => Some(format!(".*(?:(?:{})).*", several.join(")|(?:"))),
        }
    }

    /// Returns true if [`broker_regex`](Self::broker_regex) finds the topics that
    /// [`topics`](Self::topics) does. Brokers match it against the names of all topics, including
    /// internal ones, and RE2 has no expression that could exclude these. Expressions that are
    /// valid one by one may also be invalid when joined, for example if two groups have the same
    /// name.
    pub(crate) fn means_the_same_to_brokers(&self, exclude_internal: bool) -> bool {
        if exclude_internal && INTERNAL_TOPICS.iter().any(|topic| self.matches(topic)) {
            return false;
        }
        let in_re2 = |pattern: &Regex| !NOT_IN_RE2.iter().any(|piece| pattern.as_str().contains(piece));
        self.patterns.iter().all(in_re2) && self.broker_regex().is_none_or(|regex| Regex::new(&regex).is_ok())
    }

    /// Returns the topics that this metadata yields: every name, and every existing topic that an
    /// expression matches. Internal topics are matched only if `exclude_internal` is false.
    pub(crate) fn topics(&self, metadata: &Metadata, exclude_internal: bool) -> BTreeSet<Arc<str>> {
        let mut topics = self.names.clone();
        if self.has_patterns() {
            let visible = metadata.topics.values().filter(|topic| topic.error.is_ok());
            let allowed = visible.filter(|topic| !(exclude_internal && topic.internal));
            topics.extend(allowed.filter(|topic| self.matches(&topic.name)).map(|topic| topic.name.clone()));
        }
        topics
    }

    /// Returns the expressions, as the user wrote them.
    pub(crate) fn patterns(&self) -> impl Iterator<Item = &str> {
        self.patterns.iter().map(Regex::as_str)
    }

    /// Returns the expressions that match no topic of this metadata; internal topics count if
    /// `exclude_internal` is false.
    pub(crate) fn unmatched(&self, metadata: &Metadata, exclude_internal: bool) -> Vec<&str> {
        let visible = |pattern: &&Regex| {
            let mut topics = metadata.topics.values().filter(|topic| topic.error.is_ok());
            !topics.any(|topic| !(exclude_internal && topic.internal) && pattern.is_match(&topic.name))
        };
        self.patterns.iter().filter(visible).map(Regex::as_str).collect()
    }

    fn matches(&self, topic: &str) -> bool {
        self.patterns.iter().any(|pattern| pattern.is_match(topic))
    }
}

#[cfg(test)]
mod tests {
    use crate::consumer::subscription::topics::*;
    use crate::{cluster::TopicMetadata, error::ErrorCode};

    fn metadata_with(topics: &[(&str, bool, ErrorCode)]) -> Metadata {
        let mut metadata = Metadata::default();
        for &(name, internal, error) in topics {
            let name: Arc<str> = name.into();
            let topic =
                TopicMetadata { name: name.clone(), id: uuid::Uuid::nil(), internal, error, partitions: Vec::new() };
            metadata.topics.insert(name, Arc::new(topic));
        }
        metadata
    }

    fn names(topics: BTreeSet<Arc<str>>) -> Vec<String> {
        topics.iter().map(|topic| topic.to_string()).collect()
    }

    #[test]
    fn keeps_names_of_missing_topics() {
        let subscription = Subscription::parse(["b", "a", "b"]).unwrap();
        assert!(!subscription.has_patterns());
        assert_eq!(names(subscription.topics(&Metadata::default(), true)), ["a", "b"]);
    }

    #[test]
    fn regex_is_anchored_at_start_only() {
        let subscription = Subscription::parse(["^audit", "^a.*[Tt]opic$", "plain"]).unwrap();
        let metadata = metadata_with(&[
            ("audit-1", false, ErrorCode::NONE),
            ("my-audit", false, ErrorCode::NONE),
            ("aTopic", false, ErrorCode::NONE),
            ("aTopic2", false, ErrorCode::NONE),
            ("audit-secret", false, ErrorCode::TOPIC_AUTHORIZATION_FAILED),
        ]);
        assert_eq!(names(subscription.topics(&metadata, true)), ["aTopic", "audit-1", "plain"]);
    }

    #[test]
    fn broker_regex_joins_all_patterns() {
        let regex = |elements: &[&str]| Subscription::parse(elements).unwrap().broker_regex();
        assert_eq!(regex(&["plain"]), None);
        assert_eq!(regex(&["^a"]).unwrap(), ".*(?:^a).*");
        assert_eq!(regex(&["^a|b", "^c$"]).unwrap(), ".*(?:(?:^a|b)|(?:^c$)).*");
        // The joined expression is equivalent to a full match.
        let whole = Regex::new(&format!("^(?:{})$", regex(&["^a|b", "^c$"]).unwrap())).unwrap();
        let search = Subscription::parse(["^a|b", "^c$"]).unwrap();
        for topic in ["a", "a1", "xb", "c", "c1", "xc", "x"] {
            assert_eq!(whole.is_match(topic), search.matches(topic), "{topic}");
        }
    }

    #[test]
    fn alternatives_keep_their_own_anchor() {
        // `^a|b` matches an `a` at the start or a `b` anywhere, as every regular expression does.
        let subscription = Subscription::parse(["^a|b"]).unwrap();
        let metadata = metadata_with(&[("a1", false, ErrorCode::NONE), ("xb", false, ErrorCode::NONE)]);
        assert_eq!(names(subscription.topics(&metadata, true)), ["a1", "xb"]);
    }

    #[test]
    fn broker_regex_matches_same_topics() {
        let elements = ["^audit", "^a|b$", "^(?i)ORD.rs$", "^.x"];
        let subscription = Subscription::parse(elements.into_iter().chain(["plain"])).unwrap();
        let whole = Regex::new(&format!("^(?:{})$", subscription.broker_regex().unwrap())).unwrap();
        for name in
            ["audit", "audit-1", "my-audit", "ab", "b", "cb", "bc", "orders", "Orders2", "xx", "yx.z", "plain", "q"]
        {
            assert_eq!(whole.is_match(name), subscription.matches(name), "{name}");
        }
        assert_eq!(Subscription::parse(["plain"]).unwrap().broker_regex(), None);
    }

    #[test]
    fn detects_patterns_that_brokers_match_differently() {
        let same =
            |elements: &[&str], exclude| Subscription::parse(elements).unwrap().means_the_same_to_brokers(exclude);
        assert!(same(&["plain", "__consumer_offsets"], true), "names do not count");
        assert!(same(&["^audit", "^a.*[Tt]opic$", "^(?P<one>x)|y", "^(?i)orders"], true));
        for finds_internal in ["^.*", "^_", "^__transaction_state$", "^a|state"] {
            assert!(!same(&[finds_internal], true) && same(&[finds_internal], false), "{finds_internal}");
        }
        for pieces in [["^(?P<n>a)", "^(?P<n>b)"], ["^a(?x) # all", "^b"], ["^[a-z&&[^b]]$", "^c"], ["^(?<n>a)", "^c"]]
        {
            assert!(!same(&pieces, false), "{pieces:?}");
        }
    }

    #[test]
    fn internal_topics_match_only_when_requested() {
        let subscription = Subscription::parse(["^.*"]).unwrap();
        let metadata = metadata_with(&[("__consumer_offsets", true, ErrorCode::NONE), ("t", false, ErrorCode::NONE)]);
        assert_eq!(names(subscription.topics(&metadata, true)), ["t"]);
        assert_eq!(names(subscription.topics(&metadata, false)), ["__consumer_offsets", "t"]);
        let by_name = Subscription::parse(["__consumer_offsets"]).unwrap();
        assert_eq!(names(by_name.topics(&metadata, true)), ["__consumer_offsets"]);
    }

    #[test]
    fn invalid_pattern_is_named_in_error() {
        for bad in ["^(", "^[a-", "", "a b", "..", "^\\"] {
            let error = Subscription::parse(["fine", bad]).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidArgument, "{bad}");
        }
        let error = Subscription::parse(["^orders("]).unwrap_err();
        assert!(error.to_string().contains("^orders("), "{error}");
        assert!(Subscription::parse::<&str>([]).unwrap().is_empty());
    }
}
