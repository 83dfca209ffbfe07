//! The binary `ferrite-cache-proxy`; everything it does stands in the library.

fn main() -> std::process::ExitCode {
    cache_proxy::cli::main()
}
