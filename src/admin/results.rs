use crate::error::Result;

/// What became of each topic of a call, in the order in which they were given.
///
/// One topic's error says nothing of the others: look at each, or use [`into_result`](Self::into_result).
#[derive(Clone, Debug)]
#[must_use = "a topic's own error is in here"]
pub struct TopicResults<T> {
    results: Vec<(String, Result<T>)>,
}

impl<T> TopicResults<T> {
    pub(super) fn new(results: Vec<(String, Result<T>)>) -> Self {
        Self { results }
    }

    /// The result of one topic; `None` if it was not asked for.
    pub fn get(&self, topic: &str) -> Option<&Result<T>> {
        self.results.iter().find(|(name, _)| name == topic).map(|(_, result)| result)
    }

    /// Each topic with its result.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Result<T>)> {
        self.results.iter().map(|(name, result)| (name.as_str(), result))
    }

    /// All of them, or the first error.
    pub fn into_result(self) -> Result<Vec<T>> {
        self.results.into_iter().map(|(_, result)| result).collect()
    }
}

impl<T> IntoIterator for TopicResults<T> {
    type Item = (String, Result<T>);
    type IntoIter = std::vec::IntoIter<Self::Item>;

    fn into_iter(self) -> Self::IntoIter {
        self.results.into_iter()
    }
}
