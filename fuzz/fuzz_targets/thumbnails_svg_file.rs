#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| thumbnails::fuzz::svg_file(data));
