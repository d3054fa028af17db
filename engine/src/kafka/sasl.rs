//! SASL requests on a listener without authentication.
//!
//! Both requests are advertised and answered as Kafka answers them on a plaintext listener: a client that is configured for SASL reports the
//! error at once. If its connection were closed instead, it would reconnect again and again.

use std::borrow::Cow;

use highwater_net::kafka::KafkaError;
use highwater_net::kafka::messages::{SaslAuthenticateResponse, SaslHandshakeResponse};

use super::Call;
use crate::context::Context;

pub(super) fn sasl_handshake(context: &mut Context<'_>, call: Call) {
    let error_code = KafkaError::ILLEGAL_SASL_STATE;
    context.answer(call, &SaslHandshakeResponse { error_code, mechanisms: Vec::new() });
}

pub(super) fn sasl_authenticate(context: &mut Context<'_>, call: Call) {
    let text = "this listener has no authentication; set security.protocol=PLAINTEXT";
    let response = SaslAuthenticateResponse {
        error_code: KafkaError::ILLEGAL_SASL_STATE,
        error_message: Some(Cow::Borrowed(text)),
        ..Default::default()
    };
    context.answer(call, &response);
}
