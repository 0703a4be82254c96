//! Tests of the client against a small scripted peer, on the in-memory network and under paused
//! time, and of the sans-IO modules on their own.

mod bootstrap;
mod calls;
mod connection;
mod lifetime;
mod metadata;
mod metadata_merge;
mod metadata_plan;
mod peer;
mod pipeline;
mod resolution;
