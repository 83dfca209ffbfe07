#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| blob_store::fuzz::journal_replay(data));
