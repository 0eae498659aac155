//! See `shadowmesh_fuzz::targets::bridge`.
#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| shadowmesh_fuzz::targets::bridge(data));
