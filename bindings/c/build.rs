//! Gives the shared library its name, so that programs find it wherever it is installed.

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rustc-cdylib-link-arg=-Wl,-soname,libferrite_client.so");
}
