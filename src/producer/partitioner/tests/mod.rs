//! Tests the rules of all partitioners, with librdkafka's own test vectors, and the turns.

mod choices;
mod turns;
