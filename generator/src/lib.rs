//! Reads Kafka's message schemas, writes Ottla's messages from them, and makes random messages to
//! test these with.

mod apis;
mod jar;
mod news;
mod output;
pub mod random;
mod rust;
pub mod schema;

pub use apis::APIS;
pub use jar::{Schemas, VERSION, fetch, schemas};
pub use news::news;
pub use output::{check, write};
