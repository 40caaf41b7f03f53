//! Explores `fuzz_control`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fastvpn_tests::fuzz::fuzz_control(data));
