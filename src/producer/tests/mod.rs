//! Tests of the producer's parts together: against a model of a broker, and against the embedded one.

mod model;
mod model_broker;
