//! SASL authentication.

use std::borrow::Cow;

use crate::kafka::error::KafkaError;
use crate::kafka::schema::schema;

schema! {
    /// Chooses a mechanism.
    pub struct SaslHandshakeRequest<'a> in 0..=1 {
        mechanism: &'a str => 0..;
    }

    /// Whether the mechanism is enabled.
    pub struct SaslHandshakeResponse<'a> in 0..=1 {
        error_code: KafkaError => 0..;
        mechanisms: Vec<Cow<'a, str>> => 0..;
    }

    /// The client's step of the mechanism.
    pub struct SaslAuthenticateRequest<'a> in 0..=2, flexible 2 {
        auth_bytes: &'a [u8] => 0..;
    }

    /// The broker's step of the mechanism.
    pub struct SaslAuthenticateResponse<'a> in 0..=2, flexible 2 {
        error_code: KafkaError => 0..;
        error_message: Option<Cow<'a, str>> => 0..;
        auth_bytes: Cow<'a, [u8]> => 0..;
        session_lifetime_ms: i64 => 1..;
    }
}
