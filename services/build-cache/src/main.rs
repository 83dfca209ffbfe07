//! The binary `ferrite-build-cache`; everything it does stands in the library.

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> std::process::ExitCode {
    build_cache::cli::main()
}
