#![no_main]

#[path = "../../tests/fuzz/input.rs"]
mod input;
#[path = "../../tests/fuzz/origins.rs"]
mod origins;

libfuzzer_sys::fuzz_target!(|data: &[u8]| origins::body(data));
