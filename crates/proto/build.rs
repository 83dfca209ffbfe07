//! Compiles every file of `proto/` to Rust: messages by prost, services by tonic, parsing by protox, so no `protoc` is needed.

use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};

use prost::Message;
use prost_types::field_descriptor_proto::Label;

/// Errors and their parts are rare, and with all their kinds inline more than a thousand bytes; details are mostly left out.
/// Boxed, the usual answer and the usual pair of a scan are small to hold and to move.
const BOXED: [&str; 5] = [
    ".errorpb.Error",
    ".kvrpcpb.KeyError",
    ".kvrpcpb.LockInfo",
    ".kvrpcpb.ExecDetails",
    ".kvrpcpb.ExecDetailsV2",
];

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

    let mut builder = tonic_prost_build::configure()
        .bytes(".")
        .btree_map(".")
        // An RPC that a server does not implement answers UNIMPLEMENTED, on which clients fall back.
        .generate_default_stubs(true);
    for field in fields_of_types(&bare, &BOXED) {
        builder = builder.boxed(field);
    }
    builder.compile_fds(descriptors)?;
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

/// Paths of the singular fields whose type is one of `types`, in top-level messages, which is where all of them are.
fn fields_of_types(descriptors: &prost_types::FileDescriptorSet, types: &[&str]) -> Vec<String> {
    let messages = descriptors
        .file
        .iter()
        .flat_map(|file| file.message_type.iter().map(move |message| (file.package(), message)));
    let fields = messages.flat_map(|(package, message)| message.field.iter().map(move |field| (package, message.name(), field)));
    fields
        .filter(|(_, _, field)| types.contains(&field.type_name()) && field.label() != Label::Repeated)
        .map(|(package, message, field)| format!(".{package}.{message}.{}", field.name()))
        .collect()
}
