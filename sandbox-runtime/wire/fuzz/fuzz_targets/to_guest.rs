//! Any bytes, read as requests of a host.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| ostler_wire_fuzz::check::<ostler_wire::guest::ToGuest>(bytes));
