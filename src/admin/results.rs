use crate::error::Result;

/// The result of one topic of a call.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct TopicResult<T> {
    /// The topic's name.
    pub topic: String,
    /// The requested result, or the topic's error.
    pub result: Result<T>,
}

/// The results of all topics of a call, in the order in which they were given.
///
/// An error of one topic says nothing about the others: check each, or use
/// [`into_result`](Self::into_result).
#[derive(Clone, Debug)]
#[must_use = "a topic's own error is in here"]
pub struct TopicResults<T> {
    results: Vec<TopicResult<T>>,
}

impl<T> TopicResults<T> {
    /// Returns the result of one topic, or `None` if the call did not include it.
    pub fn get(&self, topic: &str) -> Option<&Result<T>> {
        self.results.iter().find(|found| found.topic == topic).map(|found| &found.result)
    }

    /// Returns each topic with its result.
    pub fn iter(&self) -> impl Iterator<Item = &TopicResult<T>> {
        self.results.iter()
    }

    /// Returns all results, or the first error.
    ///
    /// # Errors
    /// The error of the first topic that has one.
    pub fn into_result(self) -> Result<Vec<T>> {
        self.results.into_iter().map(|topic| topic.result).collect()
    }
}

impl<T> FromIterator<TopicResult<T>> for TopicResults<T> {
    fn from_iter<I: IntoIterator<Item = TopicResult<T>>>(results: I) -> Self {
        Self { results: results.into_iter().collect() }
    }
}

impl<T> IntoIterator for TopicResults<T> {
    type Item = TopicResult<T>;
    type IntoIter = std::vec::IntoIter<Self::Item>;

    fn into_iter(self) -> Self::IntoIter {
        self.results.into_iter()
    }
}
