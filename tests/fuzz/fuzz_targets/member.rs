//! Explores `fuzz_member`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fastvpn_tests::fuzz::fuzz_member(data));
