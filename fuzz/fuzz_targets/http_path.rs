#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| build_cache::fuzz::http_path(data));
