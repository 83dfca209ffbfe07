//! The binary `ferrite-thumbnails`; everything it does stands in the library.

// Memory that codecs give back goes to the system again; glibc's allocator keeps it in the arena of each thread.
#[cfg(not(feature = "mimalloc"))]
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

#[cfg(feature = "mimalloc")]
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> std::process::ExitCode {
    thumbnails::cli::main()
}
