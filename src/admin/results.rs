use crate::error::Result;

/// What became of one topic of a call.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct TopicResult<T> {
    /// The topic's name.
    pub topic: String,
    /// What was asked for, or why it is not to be had.
    pub result: Result<T>,
}

/// What became of each topic of a call, in the order in which they were given.
///
/// One topic's error says nothing of the others: look at each, or use
/// [`into_result`](Self::into_result).
#[derive(Clone, Debug)]
#[must_use = "a topic's own error is in here"]
pub struct TopicResults<T> {
    results: Vec<TopicResult<T>>,
}

impl<T> TopicResults<T> {
    /// The result of one topic; `None` if it was not asked for.
    pub fn get(&self, topic: &str) -> Option<&Result<T>> {
        self.results.iter().find(|found| found.topic == topic).map(|found| &found.result)
    }

    /// Each topic with its result.
    pub fn iter(&self) -> impl Iterator<Item = &TopicResult<T>> {
        self.results.iter()
    }

    /// All of them, or the first error.
    ///
    /// # Errors
    /// The first topic's that has one.
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
