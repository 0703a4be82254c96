//! A batch's bytes: being written, closed, or lent to a request.

use crate::{
    producer::revocable_batch::RevocableBatch,
    wire::batch::{BatchBuilder, SealedBatch},
};

/// The records' bytes: being written, closed, or lent to the request that is to carry them.
#[derive(Debug)]
pub(crate) enum Body {
    Open(BatchBuilder),
    Sealed(SealedBatch),
    Lent(RevocableBatch),
}
