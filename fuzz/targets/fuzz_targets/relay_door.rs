//! See `shadowmesh_fuzz::targets::relay_door`.
#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| shadowmesh_fuzz::targets::relay_door(data));
