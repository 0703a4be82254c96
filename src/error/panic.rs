//! Panics of the user's code and of codecs, which end what they were asked to do and nothing else.

use std::{any::Any, borrow::Cow};

use super::clean;

/// The message of a panic, [cleaned](clean): it may quote a record.
pub(crate) fn said(panic: &(dyn Any + Send)) -> Cow<'_, str> {
    match (panic.downcast_ref::<&str>(), panic.downcast_ref::<String>()) {
        (Some(text), _) => clean(text),
        (None, Some(text)) => clean(text),
        (None, None) => Cow::Borrowed("something that is not text"),
    }
}
