//! Results of actions: served only while every blob they name is there, and serving one renews those blobs.

use blob_store::{Content, Key};
use bytes::Bytes;
use prost::Message;

use crate::cache::Cache;
use crate::error::Error;
use crate::proto::reapi::{ActionResult, Digest, Directory, Tree};
use crate::tier::Id;

/// Larger results are none: the values of some other tool under a name that looks like one.
pub const RESULT_MAX: u64 = 16 << 20;
/// Trees above this are not looked into; nobody has one.
const TREE_MAX: u64 = 64 << 20;

/// What a digest of the wire says, or why it says nothing.
pub fn digest_key(digest: &Digest) -> Result<(Key, u64), Error> {
    let key = Key::from_hex(&digest.hash).ok_or(Error::Malformed("a digest's hash is not 64 hexadecimal digits"))?;
    let len = u64::try_from(digest.size_bytes).map_err(|_| Error::Malformed("a digest's size is negative"))?;
    Ok((key, len))
}

/// The result in `value`, if it is one. ccache keeps values of its own under `ac`, which are none.
pub fn decode(value: &Bytes) -> Option<ActionResult> {
    ActionResult::decode(value.clone()).ok()
}

/// In which instance digests are meant, and by which function they were made.
#[derive(Clone, Copy, Debug)]
pub struct Scope<'a> {
    pub instance: &'a str,
    pub content: Content,
}

impl<'a> Scope<'a> {
    /// What a digest of the wire names, and its length.
    pub fn id(&self, digest: &Digest) -> Result<(Id<'a>, u64), Error> {
        let (key, len) = digest_key(digest)?;
        let (content, instance) = (self.content, self.instance);
        Ok((Id { key, content, instance }, len))
    }
}

/// Whether everything that `result` names is there, here or in a tier; all of it that is here is renewed.
pub async fn is_complete(cache: &Cache, scope: Scope<'_>, result: &ActionResult) -> Result<bool, Error> {
    let mut wanted = references(result);
    for directory in &result.output_directories {
        if let Some(tree) = &directory.tree_digest {
            let Some(files) = tree_files(cache, scope, tree).await? else {
                return Ok(false);
            };
            wanted.extend(files);
        }
    }
    are_present(cache, scope, &wanted).await
}

/// Blobs that the result itself names.
fn references(result: &ActionResult) -> Vec<Digest> {
    // A file that came inline need not be there as a blob.
    let files = result.output_files.iter().filter(|file| file.contents.is_empty());
    let directories = &result.output_directories;
    files
        .filter_map(|file| file.digest.clone())
        .chain(directories.iter().filter_map(|directory| directory.tree_digest.clone()))
        .chain(
            directories
                .iter()
                .filter_map(|directory| directory.root_directory_digest.clone()),
        )
        .chain(result.stdout_digest.clone().filter(|_| result.stdout_raw.is_empty()))
        .chain(result.stderr_digest.clone().filter(|_| result.stderr_raw.is_empty()))
        .collect()
}

/// Files of the tree with this digest; `None` if it is not there or no tree.
async fn tree_files(cache: &Cache, scope: Scope<'_>, digest: &Digest) -> Result<Option<Vec<Digest>>, Error> {
    let (id, len) = scope.id(digest)?;
    if len > TREE_MAX {
        return Ok(Some(Vec::new()));
    }
    let Some(bytes) = cache.read(id, TREE_MAX).await? else {
        return Ok(None);
    };
    let Ok(tree) = Tree::decode(bytes) else { return Ok(None) };
    let files = |directory: &Directory| {
        directory
            .files
            .iter()
            .filter_map(|file| file.digest.clone())
            .collect::<Vec<_>>()
    };
    Ok(Some(tree.root.iter().chain(&tree.children).flat_map(files).collect()))
}

async fn are_present(cache: &Cache, scope: Scope<'_>, wanted: &[Digest]) -> Result<bool, Error> {
    let (mut ids, mut lens) = (Vec::with_capacity(wanted.len()), Vec::with_capacity(wanted.len()));
    for digest in wanted {
        match scope.id(digest) {
            Ok((id, len)) => {
                ids.push(id);
                lens.push(Some(len));
            }
            Err(_) => return Ok(false),
        }
    }
    Ok(cache.renew(&ids).await? == lens)
}

/// Every directory below the one with this digest, breadth first, each once.
pub async fn directories(cache: &Cache, scope: Scope<'_>, root: &Digest) -> Result<Vec<Directory>, Error> {
    const COUNT_MAX: usize = 100_000;
    let mut seen = std::collections::BTreeSet::new();
    let mut queue = std::collections::VecDeque::from([root.clone()]);
    let mut found = Vec::new();
    while let Some(digest) = queue.pop_front() {
        let (id, _) = scope.id(&digest)?;
        if !seen.insert(id.key) {
            continue;
        }
        let bytes = cache.read(id, TREE_MAX).await?.ok_or(Error::NotFound)?;
        let directory = Directory::decode(bytes).map_err(|_| Error::Malformed("a blob of the tree is no directory"))?;
        queue.extend(directory.directories.iter().filter_map(|child| child.digest.clone()));
        found.push(directory);
        if found.len() > COUNT_MAX {
            return Err(Error::Malformed("the tree has too many directories"));
        }
    }
    Ok(found)
}

/// The key of a digest under `function`.
pub fn function(value: i32, hash: &str) -> Result<Content, Error> {
    use crate::proto::reapi::digest_function::Value;
    match Value::try_from(value) {
        Ok(Value::Unknown | Value::Sha256) if hash.len() == 64 => Ok(Content::Sha256),
        Ok(Value::Blake3) => Ok(Content::Blake3),
        _ => Err(Error::Malformed("wanted a digest by SHA256 or BLAKE3")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::reapi::{OutputDirectory, OutputFile};

    #[test]
    fn everything_named_is_wanted_once_it_is_not_inline() {
        let digest = |n: i64| {
            Some(Digest {
                hash: Key::sha256(&n.to_le_bytes()).to_string(),
                size_bytes: n,
            })
        };
        let file = |n, contents: &'static [u8]| OutputFile {
            digest: digest(n),
            contents: Bytes::from_static(contents),
            ..Default::default()
        };
        let result = ActionResult {
            output_files: vec![file(1, b""), file(2, b"inline")],
            output_directories: vec![OutputDirectory {
                tree_digest: digest(3),
                root_directory_digest: digest(4),
                ..Default::default()
            }],
            stdout_digest: digest(5),
            stderr_digest: digest(6),
            stderr_raw: Bytes::from_static(b"inline"),
            ..Default::default()
        };
        let sizes: Vec<i64> = references(&result).iter().map(|digest| digest.size_bytes).collect();
        assert_eq!(sizes, [1, 3, 4, 5]);
    }
}
