//! Decodes a record about a group and checks that encoding it again and decoding the result yields the same record.
#![no_main]

use highwater_protocol::group_records::{decode, encode_key, encode_value};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let Some((&len, bytes)) = input.split_first() else { return };
    let (key, value) = bytes.split_at(bytes.len().min(usize::from(len)));
    for value in [Some(value), None] {
        let Ok(Some((key, value))) = decode(key, value) else { continue };
        let encoded = value.as_ref().map(encode_value);
        let again = decode(&encode_key(&key), encoded.as_deref());
        assert_eq!(again, Ok(Some((key, value))));
    }
});
