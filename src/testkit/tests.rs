//! The cluster as a client meets it: bytes over the in-memory network, written and read through `kafka-protocol` alone.

mod addresses;
mod client;
mod faults;
mod groups;
mod hostile_text;
mod logs;
mod robustness;
mod transactions;
