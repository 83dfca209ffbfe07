//! Reads the path of an HTTP request: which tool speaks, in which instance, and about what.
//!
//! A path is `/[instance/]MARKER/rest`; the instance may have several parts. Markers: `ac` and `cas` (Bazel, moon, ccache's
//! `bazel` layout), `gradle`, `dav` (sccache and other WebDAV), `ccache`, `maven`, `v8/artifacts` (Turborepo), `v1/cache` (Nx).
//! Names end up in hashes, never in paths on disk.

use blob_store::{Content, Key};

use crate::error::Error;
use crate::tier::Id;

/// Longest path that is read.
const PATH_MAX: usize = 2048;
/// Longest instance name; the store bounds it too.
const INSTANCE_MAX: usize = 200;

/// Who speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Protocol {
    Bazel,
    Reapi,
    Gradle,
    Dav,
    Ccache,
    Maven,
    Turbo,
    Nx,
}

impl Protocol {
    /// As metrics and the log name it.
    pub fn name(self) -> &'static str {
        match self {
            Protocol::Bazel => "bazel",
            Protocol::Reapi => "reapi",
            Protocol::Gradle => "gradle",
            Protocol::Dav => "dav",
            Protocol::Ccache => "ccache",
            Protocol::Maven => "maven",
            Protocol::Turbo => "turbo",
            Protocol::Nx => "nx",
        }
    }
}

/// What a path means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    pub protocol: Protocol,
    pub instance: String,
    pub what: What,
}

impl Target {
    /// A blob of this target's instance.
    pub fn id(&self, key: Key, content: Content) -> Id<'_> {
        Id {
            key,
            content,
            instance: &self.instance,
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum What {
    /// Content under its digest, or a value under a name.
    Blob { key: Key, content: Content, name: String },
    /// The result of an action.
    Action(Key),
    /// A folder of a tree; all of them exist.
    Folder,
    /// Turborepo: whether the cache is on.
    TurboStatus,
    /// Turborepo: what happened to artifacts.
    TurboEvents,
    /// Turborepo: which of several artifacts are there.
    TurboQuery,
}

/// The key under which the result of an action is kept. HTTP and gRPC share it.
pub fn action_key(instance: &str, digest: &Key, function: Content) -> Key {
    let kind = match function {
        Content::Blake3 => "ac-blake3",
        Content::Sha256 | Content::Named => "ac",
    };
    Key::named(&[kind, instance, &digest.to_string()])
}

/// The key of an artifact of Turborepo; teams have names of their own.
pub fn turbo_key(instance: &str, team: &str, hash: &str) -> Key {
    Key::named(&["turbo", instance, team, hash])
}

/// Reads a path. `query` is what follows `?`.
pub fn parse(path: &str, query: &str) -> Result<Target, Error> {
    if path.len() > PATH_MAX {
        return Err(Error::Malformed("the path is too long"));
    }
    let decoded = percent_decode(path).ok_or(Error::Malformed("the path is not text"))?;
    let is_folder = decoded.ends_with('/');
    let parts: Vec<&str> = decoded.split('/').filter(|part| !part.is_empty()).collect();
    if parts.iter().any(|part| !is_plain(part)) {
        return Err(Error::Malformed("the path has a part that no client sends"));
    }
    parse_digest(&parts)
        .or_else(|| parse_marked(&parts, is_folder, query))
        .filter(|target| target.instance.len() <= INSTANCE_MAX)
        .ok_or(Error::NotFound)
}

/// Parts of names that tools make, and nothing that means something to a file system.
fn is_plain(part: &str) -> bool {
    part != "."
        && part != ".."
        && part
            .bytes()
            .all(|byte| byte.is_ascii_graphic() && !b"\\\"<>|*?".contains(&byte))
}

fn percent_decode(path: &str) -> Option<String> {
    if !path.contains('%') {
        return Some(path.to_owned());
    }
    let mut bytes = Vec::with_capacity(path.len());
    let mut rest = path.as_bytes();
    while let [first, tail @ ..] = rest {
        rest = tail;
        if *first != b'%' {
            bytes.push(*first);
            continue;
        }
        let digits = std::str::from_utf8(tail.get(..2)?).ok()?;
        if !digits.bytes().all(|digit| digit.is_ascii_hexdigit()) {
            return None;
        }
        let byte = u8::from_str_radix(digits, 16).ok()?;
        // A slash that was hidden would change where parts end.
        if byte == b'/' || byte == 0 {
            return None;
        }
        bytes.push(byte);
        rest = &tail[2..];
    }
    String::from_utf8(bytes).ok()
}

/// `[instance/]ac/<64 hex>` and `[instance/]cas/<64 hex>`.
fn parse_digest(parts: &[&str]) -> Option<Target> {
    let [instance @ .., kind, hex] = parts else { return None };
    let digest = Key::from_hex(hex)?;
    let instance = instance.join("/");
    let what = match *kind {
        "ac" => What::Action(action_key(&instance, &digest, Content::Sha256)),
        "cas" => What::Blob {
            key: digest,
            content: Content::Sha256,
            name: (*hex).to_owned(),
        },
        _ => return None,
    };
    Some(Target {
        protocol: Protocol::Bazel,
        instance,
        what,
    })
}

fn parse_marked(parts: &[&str], is_folder: bool, query: &str) -> Option<Target> {
    for (at, part) in parts.iter().enumerate() {
        let instance = parts[..at].join("/");
        let rest = &parts[at + 1..];
        let (protocol, what) = match *part {
            "gradle" => (Protocol::Gradle, leaf(Protocol::Gradle, &instance, rest)?),
            "dav" => (Protocol::Dav, tree(Protocol::Dav, &instance, rest, is_folder)),
            "ccache" => (Protocol::Ccache, tree(Protocol::Ccache, &instance, rest, is_folder)),
            "maven" => (Protocol::Maven, tree(Protocol::Maven, &instance, rest, is_folder)),
            "v8" if rest.first() == Some(&"artifacts") => (Protocol::Turbo, turbo(&instance, &rest[1..], query)?),
            "v1" if rest.first() == Some(&"cache") => (Protocol::Nx, leaf(Protocol::Nx, &instance, &rest[1..])?),
            _ => continue,
        };
        return Some(Target {
            protocol,
            instance,
            what,
        });
    }
    None
}

fn named(protocol: Protocol, instance: &str, name: String) -> What {
    What::Blob {
        key: Key::named(&[protocol.name(), instance, &name]),
        content: Content::Named,
        name,
    }
}

fn leaf(protocol: Protocol, instance: &str, rest: &[&str]) -> Option<What> {
    match rest {
        [name] if name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte)) => {
            Some(named(protocol, instance, (*name).to_owned()))
        }
        _ => None,
    }
}

fn tree(protocol: Protocol, instance: &str, rest: &[&str], is_folder: bool) -> What {
    match is_folder || rest.is_empty() {
        true => What::Folder,
        false => named(protocol, instance, rest.join("/")),
    }
}

fn turbo(instance: &str, rest: &[&str], query: &str) -> Option<What> {
    match rest {
        [] => Some(What::TurboQuery),
        ["status"] => Some(What::TurboStatus),
        ["events"] => Some(What::TurboEvents),
        [hash] => Some(What::Blob {
            key: turbo_key(instance, &team(query), hash),
            content: Content::Named,
            name: (*hash).to_owned(),
        }),
        _ => None,
    }
}

/// The team that a query of Turborepo names.
pub fn team(query: &str) -> String {
    let value = |name: &str| {
        let mut pairs = query.split('&').filter_map(|pair| pair.split_once('='));
        pairs.find(|(key, _)| *key == name).map(|(_, value)| value.to_owned())
    };
    value("teamId").or_else(|| value("slug")).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEX: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    fn must_parse(path: &str) -> Target {
        parse(path, "").unwrap_or_else(|error| panic!("{path}: {error}"))
    }

    #[test]
    fn every_tool_is_known_by_its_path() {
        for (path, protocol, instance) in [
            (format!("/cas/{HEX}"), Protocol::Bazel, ""),
            (format!("/ac/{HEX}"), Protocol::Bazel, ""),
            (format!("/ci/main/ac/{HEX}"), Protocol::Bazel, "ci/main"),
            (format!("/ccache/ac/{HEX}"), Protocol::Bazel, "ccache"),
            ("/gradle/0123456789abcdef0123456789abcdef".into(), Protocol::Gradle, ""),
            ("/ci/gradle/0123".into(), Protocol::Gradle, "ci"),
            (format!("/dav/a/b/c/{HEX}"), Protocol::Dav, ""),
            ("/dav/.sccache_check".into(), Protocol::Dav, ""),
            ("/x/ccache/ab/cdef".into(), Protocol::Ccache, "x"),
            ("/maven/v1/org.x/y/0a1b/buildinfo.xml".into(), Protocol::Maven, ""),
            ("/v8/artifacts/0123456789abcdef".into(), Protocol::Turbo, ""),
            ("/v1/cache/123456".into(), Protocol::Nx, ""),
        ] {
            let target = must_parse(&path);
            assert_eq!((target.protocol, target.instance.as_str()), (protocol, instance), "{path}");
            assert!(matches!(target.what, What::Blob { .. } | What::Action(_)), "{path}");
        }
        assert_eq!(must_parse("/dav/").what, What::Folder);
        assert_eq!(must_parse("/dav/a/b/").what, What::Folder);
        assert_eq!(must_parse("/v8/artifacts/status").what, What::TurboStatus);
    }

    #[test]
    fn instances_and_teams_are_apart() {
        let key = |path: &str, query: &str| match parse(path, query).expect("a path").what {
            What::Blob { key, .. } | What::Action(key) => key,
            other => panic!("{other:?}"),
        };
        assert_ne!(key(&format!("/ac/{HEX}"), ""), key(&format!("/a/ac/{HEX}"), ""));
        assert_eq!(
            key(&format!("/cas/{HEX}"), ""),
            key(&format!("/a/cas/{HEX}"), ""),
            "content is shared"
        );
        assert_ne!(key("/v8/artifacts/00", "slug=a"), key("/v8/artifacts/00", "teamId=b&slug=a"));
        assert_eq!(key("/gradle/%61b", ""), key("/gradle/ab", ""));
    }

    #[test]
    fn what_no_client_sends_is_refused() {
        for path in [
            "/dav/../etc/passwd",
            "/dav/%2e%2e/x",
            "/dav/a%2fb",
            "/dav/a\\b",
            "/dav/%zz",
            "/dav/%",
            "/dav/a%00",
            "/maven/a b",
            "/dav/%ff",
        ] {
            assert!(matches!(parse(path, ""), Err(Error::Malformed(_))), "{path}");
        }
        for path in ["/", "/x", "/cas/00", "/gradle/", "/gradle/a/b", "/v8/x", "/v1/cache/a.b"] {
            assert!(matches!(parse(path, ""), Err(Error::NotFound)), "{path}");
        }
        assert!(matches!(parse(&"/a".repeat(2000), ""), Err(Error::Malformed(_))));
    }
}
