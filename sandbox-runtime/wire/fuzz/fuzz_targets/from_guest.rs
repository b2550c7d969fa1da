//! Any bytes, read as answers of a guest, which is hostile.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| ostler_wire_fuzz::check::<ostler_wire::guest::FromGuest>(bytes));
