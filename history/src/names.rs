//! Numbers for names: each text is kept once.
//!
//! Sans-IO.

use std::collections::HashMap;
use std::sync::Arc;

/// The number of a client, topic, value or other text of a history.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Name(u32);

/// All names of a history.
#[derive(Debug, Default)]
pub(crate) struct Names {
    numbers: HashMap<Arc<str>, Name>,
    texts: Vec<Arc<str>>,
}

impl Names {
    /// Returns the number of a text, a new one if the text is new; `None` after 2³² texts.
    pub(crate) fn add(&mut self, text: &str) -> Option<Name> {
        if let Some(name) = self.numbers.get(text) {
            return Some(*name);
        }
        let name = Name(u32::try_from(self.texts.len()).ok()?);
        let text: Arc<str> = text.into();
        self.numbers.insert(text.clone(), name);
        self.texts.push(text);
        Some(name)
    }

    /// Returns the text of a number.
    pub(crate) fn text(&self, name: Name) -> &str {
        &self.texts[name.0 as usize]
    }
}
