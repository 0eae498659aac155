//! See `shadowmesh_fuzz::targets::token`.
#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| shadowmesh_fuzz::targets::token(data));
