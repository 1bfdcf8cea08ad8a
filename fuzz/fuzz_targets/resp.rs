#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| lode_tests::fuzz::run("resp", bytes));
