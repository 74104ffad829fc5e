//! A fault that was put in: the harness must find it, or it looks at nothing.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| ringmux::fuzzing::canary(input));
