//! Two honest DRPC connections, their applications and the network between them.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| ringmux::fuzzing::drpc_pair(input));
