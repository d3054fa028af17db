//! Tests of Highwater that need more than one crate. The library is empty; the tests are in `tests/tests/`: `tidy` (the rules of
//! ARCHITECTURE.md) and `librdkafka`. Tests of the `highwater` program are in `tools/tests/`.
#![forbid(unsafe_code)]
