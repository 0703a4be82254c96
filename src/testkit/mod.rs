//! A Kafka cluster inside the process, with faults and a clock, to test against.
//!
//! It stands on `wire`, `net`, `record` and `error` alone, so that a mistake in the client cannot hide in it.
