//! Explores `fuzz_message`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fastvpn_tests::fuzz::fuzz_message(data));
