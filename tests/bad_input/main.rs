//! Whatever is put in, by the user or by a broker: an error of the right kind that says what is
//! wrong, no panic, no hang, and nothing lost beside it. Through the public interface only.

mod arguments;
mod closed;
mod common;
mod damage;
mod dropped;
mod garbage;
mod nobody;
mod sizes;
mod strangers;
