//! The client against a small scripted peer, on the in-memory network and under paused time; and
//! what decides, on its own.

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
