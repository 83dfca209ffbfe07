//! The binary `ferrite-cache-proxy`; everything it does stands in the library.

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// What a burst of clients took goes back to the system a second later, by a thread of the allocator: a proxy that has nothing to do makes no
/// calls that would do it.
// SAFETY: jemalloc reads this symbol, a thin pointer, as `const char *`; the bytes are static and end with NUL.
#[allow(unsafe_code)]
#[unsafe(export_name = "_rjem_malloc_conf")]
pub static MALLOC_CONF: &[u8; 43] = b"background_thread:true,dirty_decay_ms:1000\0";

fn main() -> std::process::ExitCode {
    cache_proxy::cli::main()
}
