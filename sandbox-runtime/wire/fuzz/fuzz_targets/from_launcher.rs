//! Any bytes, read as answers of a launcher.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| ostler_wire_fuzz::check::<ostler_wire::launcher::FromLauncher>(bytes));
