//! Tests of the whole producer.
