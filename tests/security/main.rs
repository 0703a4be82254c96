//! TLS and SASL from end to end, against the cluster in the process: accepted and refused
//! connections, and the errors of the latter.
#![cfg(all(feature = "tls", feature = "oauth", feature = "aws-msk-iam"))]

mod common;
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
mod field;
mod hostile;
mod lockout;
mod own;
mod reauthentication;
mod renewal;
mod sasl;
mod tls;
mod tokens;
