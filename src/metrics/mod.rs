//! What the rooms count with. The counts themselves live in the room that they are about.

mod histogram;

pub use histogram::Histogram;
