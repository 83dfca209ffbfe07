//! The wire: messages and services of TiKV, PD and the part of etcd that their clients call, and Ferrite's own between stores.
//!
//! One module per package of `proto/*.proto`: messages as prost structs, `x_client` and `x_server` for each service. Every
//! `bytes` field is [`bytes::Bytes`], sliced out of the received buffer without copying. Not here: any meaning of a message.
//! Invariants: names and numbers are those of the wire and are never changed or reused; an RPC that a server does not
//! implement answers UNIMPLEMENTED; a server's streaming answers are `tonic::codegen::BoxStream`.

// Made by tonic and prost: its style is theirs.
#![allow(clippy::all)]

include!(concat!(env!("OUT_DIR"), "/modules.rs"));

/// All compiled files as a serialized `google.protobuf.FileDescriptorSet`, without comments.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));
