//! Names of ByteStream resources: `[instance/]blobs/[function/]hash/size` for reading, `[instance/]uploads/uuid/blobs/..` for
//! writing, with `compressed-blobs/zstd` where the bytes go over the wire compressed.

use blob_store::{Content, Key};

use crate::cache::Coding;
use crate::error::Error;
use crate::tier::Id;

/// What a resource name says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resource {
    pub instance: String,
    pub key: Key,
    pub len: u64,
    pub content: Content,
    pub coding: Coding,
}

impl Resource {
    pub fn id(&self) -> Id<'_> {
        Id {
            key: self.key,
            content: self.content,
            instance: &self.instance,
        }
    }
}

const WANTED_READ: Error =
    Error::Malformed("wanted a resource [instance/]blobs/hash/size or [instance/]compressed-blobs/zstd/hash/size");
const WANTED_WRITE: Error =
    Error::Malformed("wanted a resource [instance/]uploads/uuid/blobs/hash/size, or compressed-blobs/zstd");

/// Reads the name of a blob to read.
pub fn parse_read(name: &str) -> Result<Resource, Error> {
    let parts: Vec<&str> = name.split('/').collect();
    // The instance may have parts with any name, so the last marker counts.
    let marker = parts.iter().rposition(|part| is_blobs(part)).ok_or(WANTED_READ)?;
    parse_blob(&parts[..marker], &parts[marker..]).ok_or(WANTED_READ)
}

/// Reads the name of a blob to write; what follows the size is the client's own affair.
pub fn parse_write(name: &str) -> Result<Resource, Error> {
    let parts: Vec<&str> = name.split('/').collect();
    for (at, part) in parts.iter().enumerate() {
        if *part == "uploads" && parts.get(at + 2).is_some_and(|part| is_blobs(part)) {
            return parse_blob(&parts[..at], &parts[at + 2..]).ok_or(WANTED_WRITE);
        }
    }
    Err(WANTED_WRITE)
}

fn is_blobs(part: &str) -> bool {
    part == "blobs" || part == "compressed-blobs"
}

fn parse_blob(instance: &[&str], rest: &[&str]) -> Option<Resource> {
    let (coding, rest) = match rest {
        ["blobs", rest @ ..] => (Coding::Identity, rest),
        ["compressed-blobs", "zstd", rest @ ..] => (Coding::Zstd, rest),
        _ => return None,
    };
    let (content, rest) = match rest {
        ["blake3", rest @ ..] => (Content::Blake3, rest),
        ["sha256", rest @ ..] => (Content::Sha256, rest),
        _ => (Content::Sha256, rest),
    };
    let [hash, len, ..] = rest else { return None };
    Some(Resource {
        instance: instance.join("/"),
        key: Key::from_hex(hash)?,
        len: len.parse().ok().filter(|len| *len <= i64::MAX as u64)?,
        content,
        coding,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEX: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    #[test]
    fn names_are_read() {
        for (name, instance, content, coding) in [
            (format!("blobs/{HEX}/3"), "", Content::Sha256, Coding::Identity),
            (format!("a/b/blobs/{HEX}/3"), "a/b", Content::Sha256, Coding::Identity),
            (format!("x/compressed-blobs/zstd/{HEX}/3"), "x", Content::Sha256, Coding::Zstd),
            (format!("blobs/blake3/{HEX}/3"), "", Content::Blake3, Coding::Identity),
            (
                format!("compressed-blobs/zstd/blake3/{HEX}/3"),
                "",
                Content::Blake3,
                Coding::Zstd,
            ),
        ] {
            let wanted = Resource {
                instance: instance.into(),
                key: Key::from_hex(HEX).expect("hex"),
                len: 3,
                content,
                coding,
            };
            assert_eq!(parse_read(&name).expect("a name"), wanted, "{name}");
            let upload = match instance {
                "" => format!("uploads/0-0/{name}/more/of/it"),
                _ => format!("{instance}/uploads/0-0/{}", &name[instance.len() + 1..]),
            };
            assert_eq!(parse_write(&upload).expect("a name"), wanted, "{upload}");
        }
    }

    #[test]
    fn what_is_no_name_is_refused() {
        for name in [
            "".to_owned(),
            "blobs".to_owned(),
            format!("blobs/{HEX}"),
            format!("blobs/{HEX}/-1"),
            format!("blobs/{HEX}/9999999999999999999999"),
            format!("compressed-blobs/gzip/{HEX}/3"),
            "blobs/00/3".to_owned(),
            "uploads/x".to_owned(),
        ] {
            assert!(parse_read(&name).is_err(), "{name}");
            assert!(parse_write(&name).is_err(), "{name}");
        }
        assert!(parse_write(&format!("blobs/{HEX}/3")).is_err());
    }
}
