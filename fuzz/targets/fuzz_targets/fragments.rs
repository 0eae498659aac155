//! See `shadowmesh_fuzz::targets::fragments`.
#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| shadowmesh_fuzz::targets::fragments(data));
