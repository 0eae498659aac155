//! See `shadowmesh_fuzz::targets::peer_door`.
#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| shadowmesh_fuzz::targets::peer_door(data));
