#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| thumbnails::fuzz::url_path(data));
