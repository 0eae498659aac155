//! See `shadowmesh_fuzz::sim::scenario`.
#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| shadowmesh_fuzz::sim::scenario(data));
