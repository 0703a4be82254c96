//! The rules of all partitioners, beside librdkafka's own test of them, and the turns.

mod choices;
mod turns;
