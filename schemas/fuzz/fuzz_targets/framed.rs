#![no_main]

libfuzzer_sys::fuzz_target!(|payload: &[u8]| aion_schemas_fuzz::framed(payload));
