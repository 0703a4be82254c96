//! Credentials and signatures of AWS, for AWS_MSK_IAM.

mod credentials;
mod profile;
mod sigv4;
mod sources;
#[cfg(test)]
mod tests;

use super::time::parse as parse_time;
pub use credentials::AwsCredentials;
pub(crate) use credentials::{AwsSource, CredentialCache};
pub(crate) use sigv4::presigned;
pub(crate) use sources::{Sources, is_region};
