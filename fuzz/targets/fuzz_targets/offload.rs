//! See `shadowmesh_fuzz::targets::offload`.
#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| shadowmesh_fuzz::targets::offload(data));
