//! SaslHandshake 0–1 and SaslAuthenticate 0–2, on listeners that require SASL. Version 0 of the
//! handshake is answered, but tokens without frames, which would follow it, are not read.

use bytes::Bytes;

use super::{Call, Context, Step, text};
use crate::{
    error::{ErrorCode, Result},
    wire::messages::{SaslAuthenticateRequest, SaslAuthenticateResponse, SaslHandshakeRequest, SaslHandshakeResponse},
};

pub(crate) struct SaslHandshake(pub(crate) SaslHandshakeRequest);

impl Call for SaslHandshake {
    fn act(&mut self, context: &mut Context<'_>) -> Result<Step> {
        let (error, mechanisms) = match context.refused() {
            Some(code) => (code, Vec::new()),
            None => match context.gate.handshake(&self.0.mechanism) {
                Ok(()) => (ErrorCode::NONE, Vec::new()),
                Err(refused) => refused,
            },
        };
        let response = SaslHandshakeResponse {
            error_code: context.spoiled(error).code(),
            mechanisms: mechanisms.into_iter().map(text).collect(),
        };
        context.reply(&response)
    }

    fn wakes(&self) -> bool {
        false
    }
}

pub(crate) struct SaslAuthenticate(pub(crate) SaslAuthenticateRequest);

impl Call for SaslAuthenticate {
    fn act(&mut self, context: &mut Context<'_>) -> Result<Step> {
        let clock = (context.now, context.state.millis(context.now));
        let done = match context.refused() {
            Some(code) => Err((code, "refused by the test".to_owned())),
            None => context.gate.authenticate(&self.0.auth_bytes, clock),
        };
        let mut response = SaslAuthenticateResponse::default();
        match done {
            Ok((answer, lifetime)) => {
                response.auth_bytes = Bytes::from(answer);
                response.session_lifetime_ms = if context.head.version >= 1 { lifetime } else { 0 };
            }
            Err((code, why)) => {
                response.error_code = code.code();
                response.error_message = Some(text(why));
            }
        }
        response.error_code = context.spoiled(ErrorCode::new(response.error_code)).code();
        context.reply(&response)
    }

    fn wakes(&self) -> bool {
        false
    }
}
