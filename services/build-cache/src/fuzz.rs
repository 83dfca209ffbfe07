//! What reads the words of clients and tiers, as functions of bytes: see [`blob_store::fuzz`], whose [`run`](blob_store::fuzz::run) the
//! tests use too. Each function panics when what it was given shows a fault.

use ::http::{HeaderMap, HeaderValue, header};
use blob_store::Content;

use crate::access::Access;
use crate::http::headers;
use crate::name::{self, Target, What};
use crate::reapi::{Resource, parse_read, parse_write};
use crate::tier::{Head, read_record};

/// A path with its query: what is read stays within bounds, does not depend on how the bytes were escaped, and keeps instances apart.
pub fn http_path(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let (path, query) = text.split_once('?').unwrap_or((text, ""));
    let Ok(target) = name::parse(path, query) else { return };
    check_target(&target);
    let escaped: String = match path.contains('%') {
        true => return,
        false => path
            .bytes()
            .map(|byte| match byte {
                b'/' => "/".to_owned(),
                other => format!("%{other:02x}"),
            })
            .collect(),
    };
    match name::parse(&escaped, query) {
        Ok(other) => assert_eq!(other, target, "escaped it means something else"),
        Err(_) => assert!(escaped.len() > 2048, "escaped it means nothing"),
    }
    if let Ok(other) = name::parse(&format!("/elsewhere/{path}"), query) {
        match (&target.what, &other.what) {
            (What::Action(a), What::Action(b)) => assert_ne!(a, b, "two instances, one result"),
            (What::Blob { key: a, content, .. }, What::Blob { key: b, .. }) => match content {
                Content::Named => assert_ne!(a, b, "two instances, one name"),
                Content::Sha256 | Content::Blake3 => assert_eq!(a, b, "content is shared"),
            },
            (a, b) => assert_eq!(a, b),
        }
    }
}

fn check_target(target: &Target) {
    let is_sound = |text: &str| {
        text.split('/')
            .all(|part| part != ".." && part != "." && part.bytes().all(|byte| byte.is_ascii_graphic()))
    };
    assert!(
        target.instance.len() <= 200 && is_sound(&target.instance),
        "instance {:?}",
        target.instance
    );
    if let What::Blob { name, .. } = &target.what {
        assert!(!name.is_empty() && is_sound(name) && !name.contains('\\'), "name {name:?}");
    }
}

/// Values of headers, one a line: a range, codings, credentials. A range lies within the blob; nobody becomes somebody without the
/// password or the token of theirs.
pub fn http_headers(data: &[u8]) {
    let mut lines = data.split(|byte| *byte == b'\n');
    let mut next = || lines.next().unwrap_or_default();
    let (range, codings, credentials) = (next(), next(), next());
    for len in [0, 1, 1000, u64::MAX] {
        if let Some(Ok((start, end))) = headers::range(range, len) {
            assert!(start < end && end <= len, "[{start}, {end}) of {len}");
        }
    }
    if let Ok(value) = HeaderValue::from_bytes(codings) {
        let takes_zstd = headers::accepts_zstd(&value);
        assert!(!takes_zstd || codings.windows(4).any(|four| four == b"zstd"));
    }
    let Ok(value) = HeaderValue::from_bytes(credentials) else {
        return;
    };
    const TEXT: &str = "[access]\nanonymous = \"read\"\n[[access.users]]\nname = \"ci\"\npassword = \"p\"\nrole = \"write\"\n\
                [[access.users]]\nname = \"boss\"\ntoken = \"t\"\nrole = \"admin\"\n";
    thread_local! {
        static ACCESS: Access = Access::new(&toml::from_str(TEXT).expect("a configuration"));
    }
    let mut all = HeaderMap::new();
    all.insert(header::AUTHORIZATION, value);
    if let Ok(caller) = ACCESS.with(|access| access.identify(&all, None)) {
        let given = String::from_utf8_lossy(credentials).to_ascii_lowercase();
        let is_boss = caller.check_admin().is_ok();
        assert!(is_boss == given.starts_with("bearer "), "{given:?} is {}", caller.name());
        assert!(is_boss || given.starts_with("basic "), "{given:?} is {}", caller.name());
        let secret = given.split_once(' ').map(|(_, secret)| secret.trim());
        assert_eq!(secret, Some(if is_boss { "t" } else { "y2k6ca==" }));
    }
}

/// Names of ByteStream resources: what is read can be written in one way, and is read as the same from it; instances may have any name.
pub fn resource_name(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Ok(resource) = parse_read(text) {
        let written = write_resource(&resource, "");
        assert_eq!(parse_read(&written).expect("what was read"), resource, "{written}");
        must_be_within(&resource, "a/blobs", &parse_read(&format!("a/blobs/{text}")));
    }
    if let Ok(resource) = parse_write(text) {
        let written = write_resource(&resource, "uploads/0/");
        assert_eq!(parse_write(&written).expect("what was read"), resource, "{written}");
        must_be_within(&resource, "a/b", &parse_write(&format!("a/b/{text}")));
    }
}

/// A name behind that of an outer instance is the same blob, in an instance below that one.
fn must_be_within(inner: &Resource, prefix: &str, outer: &Result<Resource, crate::error::Error>) {
    // An empty first part is no instance, but behind others it is a part of theirs.
    if inner.instance.is_empty() && outer.as_ref().is_ok_and(|outer| outer.instance.ends_with('/')) {
        return;
    }
    let slash = if inner.instance.is_empty() { "" } else { "/" };
    let wanted = Resource {
        instance: format!("{prefix}{slash}{}", inner.instance),
        ..inner.clone()
    };
    assert_eq!(outer.as_ref().ok(), Some(&wanted));
}

fn write_resource(resource: &Resource, uploads: &str) -> String {
    use crate::cache::Coding;
    let Resource { instance, key, len, .. } = resource;
    assert!(*len <= i64::MAX as u64);
    let slash = if instance.is_empty() { "" } else { "/" };
    let kind = match resource.coding {
        Coding::Identity => "blobs",
        Coding::Zstd => "compressed-blobs/zstd",
    };
    let function = match resource.content {
        Content::Blake3 => "blake3/",
        Content::Sha256 | Content::Named => "",
    };
    format!("{instance}{slash}{uploads}{kind}/{function}{key}/{len}")
}

/// The record of a blob in a shared tier: what is read fits together.
pub fn tier_record(data: &[u8]) {
    let Ok((head, body)) = read_record(data) else { return };
    assert_eq!(Head::decode(&head.encode()).expect("what was read"), head);
    assert!(body.is_none_or(|body| body as u64 == head.stored), "a body of another length");
}

#[cfg(test)]
mod tests {
    use super::*;
    use blob_store::fuzz::run;

    const HEX: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    fn corpus(texts: &[&str]) -> Vec<Vec<u8>> {
        texts.iter().map(|text| text.replace("HEX", HEX).into_bytes()).collect()
    }

    #[test]
    fn any_path_is_refused_or_read_the_same_however_it_is_escaped() {
        let corpus = corpus(&[
            "/cas/HEX",
            "/ci/main/ac/HEX",
            "/gradle/0123456789abcdef",
            "/ci/gradle/01",
            "/dav/a/b/c/HEX",
            "/dav/.sccache_check",
            "/x/ccache/ab/cdef",
            "/maven/v1/org.x/y/0a1b/buildinfo.xml",
            "/v8/artifacts/0123456789abcdef?teamId=t&slug=s",
            "/v8/artifacts/status",
            "/v1/cache/123456",
            "/dav/%61b/",
        ]);
        corpus.iter().for_each(|input| {
            let text = std::str::from_utf8(input).expect("text");
            assert!(name::parse(text.split('?').next().expect("a path"), "").is_ok(), "{text}");
        });
        run(3, 40_000, &corpus, http_path);
    }

    #[test]
    fn any_headers_are_refused_or_mean_what_they_say() {
        let corpus = corpus(&[
            "bytes=0-9\ngzip, zstd\nBasic Y2k6cA==",
            "bytes=-5\nzstd;q=0.5\nBearer t",
            "bytes=7-\n*;q=0\nbearer  t",
            "bytes=0-18446744073709551614\nzstd;q=0\nbasic Y2k6cQ==",
        ]);
        run(4, 40_000, &corpus, http_headers);
    }

    #[test]
    fn any_resource_name_is_refused_or_can_be_written() {
        let corpus = corpus(&[
            "blobs/HEX/3",
            "a/b/blobs/HEX/3",
            "x/compressed-blobs/zstd/HEX/3",
            "blobs/blake3/HEX/3",
            "compressed-blobs/zstd/blake3/HEX/3",
            "uploads/0-0/blobs/HEX/3/more",
            "a/uploads/0-0/compressed-blobs/zstd/HEX/9223372036854775807",
            "uploads/blobs/uploads/0/blobs/HEX/1",
        ]);
        run(5, 40_000, &corpus, resource_name);
    }

    #[test]
    fn any_record_of_a_tier_is_refused_or_fits_together() {
        let head = Head {
            form: blob_store::Form::Raw,
            len: 3,
            stored: 3,
            check: 1,
            written: 2,
        };
        let inline = [&head.encode()[..], b"\0abc"].concat();
        let chunked = Head {
            form: blob_store::Form::Zstd,
            stored: 3 << 20,
            ..head
        };
        let chunked = [&chunked.encode()[..], &[1], &[9; 16], &3u32.to_be_bytes()].concat();
        assert!(read_record(&inline).is_ok() && read_record(&chunked).is_ok());
        run(6, 40_000, &[inline, chunked], tier_record);
    }
}
