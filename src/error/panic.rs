//! Panics of the user's code and of codecs, which end what they were asked to do and nothing else.

use std::any::Any;

/// What a panic said.
pub(crate) fn said(panic: &(dyn Any + Send)) -> &str {
    match (panic.downcast_ref::<&str>(), panic.downcast_ref::<String>()) {
        (Some(text), _) => text,
        (None, Some(text)) => text,
        (None, None) => "something that is not text",
    }
}
