//! See `fuzz/targets/config.rs`.
#![no_main]
#[path = "../config.rs"]
mod config;
libfuzzer_sys::fuzz_target!(|data: &[u8]| config::config(data));
