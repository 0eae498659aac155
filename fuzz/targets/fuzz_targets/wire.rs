//! See `shadowmesh_fuzz::targets::wire`.
#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| shadowmesh_fuzz::targets::wire(data));
