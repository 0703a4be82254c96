//! PLAIN (RFC 4616).

use super::{Exchange, Mechanism, Step};
use crate::{
    error::{Error, ErrorKind, Result},
    net::BoxFuture,
    security::Secret,
};

/// PLAIN: name and password in one message.
#[derive(Clone, Debug)]
pub struct Plain {
    username: Secret,
    password: Secret,
}

impl Plain {
    /// Creates the mechanism with a name and a password, neither of which may hold a NUL.
    pub fn new(username: impl Into<String>, password: impl Into<Secret>) -> Self {
        Self { username: username.into().into(), password: password.into() }
    }

    fn message(&self) -> Result<Secret> {
        if self.username.expose().contains(&0) || self.password.expose().contains(&0) {
            let message = "SASL PLAIN: name and password must not hold a NUL, because it separates them";
            return Err(Error::new(ErrorKind::Authentication, message));
        }
        let mut message = Vec::with_capacity(2 + self.username.len() + self.password.len());
        message.push(0);
        message.extend_from_slice(self.username.expose());
        message.push(0);
        message.extend_from_slice(self.password.expose());
        Ok(message.into())
    }
}

impl Mechanism for Plain {
    fn name(&self) -> &str {
        "PLAIN"
    }

    fn begin<'a>(&'a self, _host: &'a str) -> BoxFuture<'a, Result<Box<dyn Exchange>>> {
        Box::pin(async move { Ok(Box::new(OneMessage(self.message()?)) as Box<dyn Exchange>) })
    }
}

/// An exchange of one message, which the broker accepts or refuses.
#[derive(Debug)]
struct OneMessage(Secret);

impl Exchange for OneMessage {
    fn next(&mut self, challenge: Option<&[u8]>) -> Result<Step> {
        Ok(if challenge.is_none() { Step::Send(self.0.clone()) } else { Step::Done })
    }
}
