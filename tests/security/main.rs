//! TLS and SASL from end to end, against the cluster in the process: what works, what is refused and how that is told.
#![cfg(feature = "tls")]

mod common;
mod hostile;
mod lockout;
mod own;
mod reauthentication;
mod renewal;
mod sasl;
mod tls;
mod tokens;
