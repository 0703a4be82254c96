//! Panics of user code and of codecs. A panic ends the call in which it happens, and nothing else.

use std::{any::Any, borrow::Cow};

use super::clean;

/// Returns the message of a panic, [cleaned](clean), because it may quote a record.
pub(crate) fn said(panic: &(dyn Any + Send)) -> Cow<'_, str> {
    match (panic.downcast_ref::<&str>(), panic.downcast_ref::<String>()) {
        (Some(text), _) => clean(text),
        (None, Some(text)) => clean(text),
        (None, None) => Cow::Borrowed("a value that is not text"),
    }
}
