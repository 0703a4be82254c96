//! Fifty secrets, in every property and in every file that a property names: none of them appears
//! in an error, in the `Debug` output of a builder or a client, or in the log at any level. The
//! tests use only the public interface.
#![cfg(all(feature = "tls", feature = "oauth", feature = "aws-msk-iam"))]

mod capture;
mod files;
mod list;
mod logins;
mod properties;
