//! Benchmarks of Highwater. Micro benchmarks of the codecs so far: `cargo bench -p highwater-bench --bench codec`.
#![forbid(unsafe_code)]
