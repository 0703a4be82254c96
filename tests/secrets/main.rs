//! Tests fifty secrets in every property and in every file that a property names: none of them
//! appears in an error, in the `Debug` output of a builder or a client, or in the log at any level.
#![cfg(feature = "tls")]

mod capture;
mod files;
mod list;
mod logins;
mod properties;
