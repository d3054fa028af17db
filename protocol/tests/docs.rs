//! Checks that `docs/wire-format.md` describes the format that the code implements.

use highwater_protocol::error::ErrorCode;
use highwater_protocol::limits::{CREDIT_BYTES_MAX, ERROR_TEXT_BYTES_MAX, TOPIC_NAME_BYTES_MAX};
use highwater_protocol::native::{DeleteTopicRequest, MessageKind, message};

fn doc() -> String {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/wire-format.md");
    std::fs::read_to_string(path).expect("docs/wire-format.md exists")
}

#[test]
fn every_message_has_a_row_with_its_number() {
    let doc = doc();
    for kind in MessageKind::ALL {
        let row = format!("| {} | `{kind:?}` |", *kind as u16);
        assert!(doc.lines().any(|line| line.starts_with(&row)), "no row begins with {row}");
    }
}

#[test]
fn every_error_has_a_row_with_its_number_and_whether_to_retry() {
    let doc = doc();
    for code in ErrorCode::ALL {
        let retry = if code.is_retryable() { "yes" } else { "no" };
        let row = format!("| {} | `{code}` | {retry} |", *code as u16);
        assert!(doc.lines().any(|line| line.starts_with(&row)), "no row begins with {row}");
    }
}

#[test]
fn the_example_matches_the_encoder() {
    let doc = doc();
    let example = doc.split("```").nth(1).expect("an example");
    let bytes: Vec<u8> = example
        .lines()
        .flat_map(|line| line.split("    ").next().unwrap_or_default().split_whitespace())
        .map(|byte| u8::from_str_radix(byte, 16).expect("two hexadecimal digits"))
        .collect();
    assert_eq!(bytes, message(7, &DeleteTopicRequest { name: "t".into() }));
}

#[test]
fn the_documented_limits_match_the_code() {
    let doc = doc();
    assert!(doc.contains(&format!("at most {ERROR_TEXT_BYTES_MAX} bytes")));
    assert!(doc.contains(&format!("1 to {TOPIC_NAME_BYTES_MAX} of")));
    assert!(doc.contains(&format!("More than {} MiB of credit", CREDIT_BYTES_MAX >> 20)));
}
