//! The binary `ferrite-cache-proxy`; everything it does stands in the library.

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> std::process::ExitCode {
    cache_proxy::cli::main()
}
