//! Tests invalid input of users and brokers through the public interface: each leads to an error of
//! the right kind that names the cause, without a panic, a hang, or the loss of other records.

mod arguments;
mod closed;
mod common;
mod damage;
mod dropped;
mod garbage;
mod nobody;
mod sizes;
mod strangers;
