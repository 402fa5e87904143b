#![no_main]

#[path = "../../tests/fuzz/input.rs"]
mod input;
#[path = "../../tests/fuzz/last_event_id.rs"]
mod last_event_id;

libfuzzer_sys::fuzz_target!(|data: &[u8]| last_event_id::body(data));
