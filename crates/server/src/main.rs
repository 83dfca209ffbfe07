//! The binary `ferrite`; everything it does stands in the library.

use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// Heap profiling is built in and asleep until `/debug/pprof/heap` asks for it; then one allocation in about 512 KiB is sampled.
/// Freed pages go back to the system by a thread of the allocator, so that an idle process is small.
// SAFETY: jemalloc reads this symbol, a thin pointer, as `const char *`; the bytes are static and end with NUL.
#[allow(unsafe_code)]
#[unsafe(export_name = "_rjem_malloc_conf")]
pub static MALLOC_CONF: &[u8; 69] = b"prof:true,prof_active:false,lg_prof_sample:19,background_thread:true\0";

fn main() -> ExitCode {
    server::cli::main()
}
