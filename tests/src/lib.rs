//! Tests of Highwater that need more than one crate. The library is empty; what there is stands in `tests/tests/`:
//! tidy (the rules of ARCHITECTURE.md that a test can hold). Tests of the `highwater` program stand in `tools/tests/`.
#![forbid(unsafe_code)]
