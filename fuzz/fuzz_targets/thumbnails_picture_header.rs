#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| thumbnails::fuzz::picture_header(data));
