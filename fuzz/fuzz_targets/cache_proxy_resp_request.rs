#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| cache_proxy::fuzz::resp_request(data));
