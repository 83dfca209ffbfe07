//! Compiles every file of `proto/` to Rust: messages by prost, services by tonic, parsing by protox, so no `protoc` is needed.

use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};

use prost::Message;

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=proto");
    let mut files = fs::read_dir("proto")?
        .map(|entry| Ok(entry?.path()))
        .collect::<Result<Vec<PathBuf>, std::io::Error>>()?;
    files.retain(|path| path.extension().is_some_and(|extension| extension == "proto"));
    files.sort();

    let descriptors = protox::compile(files, ["proto"])?;
    let out = PathBuf::from(std::env::var("OUT_DIR")?);
    // Comments are for the reader of the .proto files; tests read the rest.
    let mut bare = descriptors.clone();
    bare.file.iter_mut().for_each(|file| file.source_code_info = None);
    fs::write(out.join("descriptors.bin"), bare.encode_to_vec())?;

    tonic_prost_build::configure()
        .bytes(".")
        .btree_map(".")
        // A region error is rare and its message, with all its kinds inline, more than a thousand bytes: boxed, the usual
        // answer is small to move. Likewise the breakdown of times, which most answers leave out.
        .boxed("region_error")
        .boxed("exec_details_v2")
        // An RPC that a server does not implement answers UNIMPLEMENTED, on which clients fall back.
        .generate_default_stubs(true)
        .compile_fds(descriptors)?;
    write_modules(&bare, &out.join("modules.rs"))
}

/// One module per package: `pub mod metapb { include!(..) }`.
fn write_modules(descriptors: &prost_types::FileDescriptorSet, path: &Path) -> Result<(), Box<dyn Error>> {
    let mut packages: Vec<&str> = descriptors.file.iter().map(|file| file.package()).collect();
    packages.sort_unstable();
    packages.dedup();
    let modules: String = packages
        .iter()
        .map(|package| format!("pub mod {package} {{ include!(concat!(env!(\"OUT_DIR\"), \"/{package}.rs\")); }}\n"))
        .collect();
    Ok(fs::write(path, modules)?)
}
