#![no_main]

libfuzzer_sys::fuzz_target!(|body: &[u8]| aion_schemas_fuzz::avro(body));
