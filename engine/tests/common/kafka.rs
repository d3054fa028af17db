//! Requests of a Kafka client and their responses, as bytes.

use bytes::{BufMut, BytesMut};
use highwater_net::kafka::api::ApiKey;
use highwater_net::kafka::schema::Message;
use highwater_net::kafka::wire::{Form, Reader, put_string};

/// Encodes a request.
pub(crate) fn request<'a>(
    api: ApiKey,
    version: i16,
    correlation_id: i32,
    body: &impl Message<'a>,
) -> BytesMut {
    let mut out = BytesMut::new();
    out.put_i32(0);
    out.put_i16(api as i16);
    out.put_i16(version);
    out.put_i32(correlation_id);
    put_string(&mut out, Form { version, flexible: false }, Some("engine-test"));
    if api.api().request_header_is_flexible(version) {
        out.put_u8(0);
    }
    body.encode(version, &mut out);
    let bytes = (out.len() - 4) as u32;
    out[..4].copy_from_slice(&bytes.to_be_bytes());
    out
}

/// A complete response.
pub(crate) struct Answer {
    api: ApiKey,
    version: i16,
    pub(crate) correlation_id: i32,
    bytes: Vec<u8>,
}

impl Answer {
    /// Parses the bytes after the length as the response to a request of this kind.
    pub(crate) fn new(api: ApiKey, version: i16, bytes: Vec<u8>) -> Self {
        let correlation_id = i32::from_be_bytes(bytes[..4].try_into().expect("four bytes"));
        Self { api, version, correlation_id, bytes }
    }

    /// Decodes the body, and checks that nothing follows it.
    pub(crate) fn body<'a, M: Message<'a>>(&'a self) -> M {
        let mut r = Reader::new(&self.bytes);
        r.take(4, "correlation id").expect("it has one");
        if self.api.api().response_header_is_flexible(self.version) {
            assert_eq!(r.take(1, "tagged fields").expect("a count"), [0]);
        }
        let body = M::decode(self.version, &mut r).expect("an answer of this version");
        r.finish().expect("nothing follows");
        body
    }
}
