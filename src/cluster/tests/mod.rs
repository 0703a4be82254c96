//! The client against a scripted peer.
