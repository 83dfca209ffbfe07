//! Sources besides folders and web servers, how much of them is read, and clients that ask too often.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use thumbnails::codec::Meta;

use crate::common::{Server, quarters, to_jpeg, to_png};
use crate::origin::{Origin, Reply};

/// Enough of noise behind the header that nobody reads it by chance.
fn large_jpeg() -> Vec<u8> {
    let mut jpeg = to_jpeg(&quarters(900, 600), Meta::default(), false);
    jpeg.resize(400_000, 0);
    jpeg
}

/// Answers as stores do: parts where a range is asked for, 304 for the tag that is known.
fn object(head: &str, body: &[u8], sent: &AtomicUsize) -> Reply {
    let fields =
        "etag: \"v7\"\r\nlast-modified: Sun, 06 Nov 1994 08:49:37 GMT\r\ncache-control: max-age=0\r\nx-ms-version: 2023-11-03";
    if head.contains("if-none-match: \"v7\"") {
        return (format!("304 Not Modified\r\n{fields}"), Vec::new());
    }
    let range = head
        .split("range: bytes=0-")
        .nth(1)
        .and_then(|rest| rest.split("\r\n").next());
    let Some(last) = range.and_then(|last| last.parse::<usize>().ok()) else {
        sent.fetch_add(body.len(), Ordering::SeqCst);
        return (format!("200 OK\r\n{fields}"), body.to_vec());
    };
    let part = &body[..body.len().min(last + 1)];
    sent.fetch_add(part.len(), Ordering::SeqCst);
    let range = format!("content-range: bytes 0-{}/{}", part.len() - 1, body.len());
    (format!("206 Partial Content\r\n{fields}\r\n{range}"), part.to_vec())
}

#[test]
fn object_stores_are_read_by_their_own_protocols() {
    let (body, sent) = (large_jpeg(), Arc::new(AtomicUsize::new(0)));
    let counted = sent.clone();
    let origin = Origin::start(move |path, head| match path {
        // Google's client encodes the point too.
        "/photos/public/a%20b.jpg" | "/pictures/c%2Ejpg" | "/box/d.jpg" => object(head, &body, &counted),
        _ => (
            "404 Not Found\r\ncontent-type: application/xml".into(),
            b"<Error><Code>NoSuchKey</Code></Error>".to_vec(),
        ),
    });
    let at = &origin.addr;
    let toml = format!(
        "[objects]\nbuckets = [\"s3://photos/public\", \"gs://pictures\", \"abs://box\"]\n[objects.options]\n\
         aws_endpoint = \"http://{at}\"\naws_allow_http = \"true\"\naws_access_key_id = \"id\"\naws_secret_access_key = \"key\"\n\
         google_base_url = \"http://{at}\"\ngoogle_allow_http = \"true\"\ngoogle_skip_signature = \"true\"\n\
         azure_storage_endpoint = \"http://{at}\"\nazure_allow_http = \"true\"\nazure_storage_account_name = \"me\"\nazure_skip_signature = \"true\"\n"
    );
    let folder = tempfile::tempdir().expect("a folder");
    let server = Server::start(folder.path(), &toml);
    for source in [
        "s3://photos/public/a%20b.jpg",
        "gs://pictures/c.jpg",
        "abs://box/d.jpg",
        "az://box/d.jpg",
    ] {
        let answer = server.get(&format!("/_/w:90/plain/{source}"));
        assert_eq!(answer.status, 200, "{source}: {}", String::from_utf8_lossy(&answer.body));
        assert_eq!(answer.picture(), ("jpg", 90, 60), "{source}");
        assert_eq!(answer.header("last-modified"), "Sun, 06 Nov 1994 08:49:37 GMT");
        // It says that it may change at once, so it is asked again, and is as it was.
        let before = sent.load(Ordering::SeqCst);
        let again = server.get(&format!("/_/w:90/plain/{source}"));
        assert_eq!(
            (again.status, again.header("cache-status")),
            (200, "ferrite-thumbnails; fwd=stale")
        );
        assert_eq!(sent.load(Ordering::SeqCst), before, "{source} is not sent again");
        let info = server.get(&format!("/info/_/plain/{source}"));
        let json: serde_json::Value = serde_json::from_slice(&info.body).expect("JSON");
        assert_eq!(
            (json["width"].as_u64(), json["bytes"].as_u64()),
            (Some(900), Some(400_000)),
            "{source}"
        );
        assert_eq!(
            sent.load(Ordering::SeqCst) - before,
            64 << 10,
            "{source}: its start was enough"
        );
    }
    for (source, status) in [
        ("s3://photos/private/a.jpg", 403),
        ("s3://others/a.jpg", 403),
        ("gs://photos/public/a.jpg", 403),
        ("s3://photos/public/../private/a.jpg", 400),
        ("s3://photos/public/none.jpg", 404),
        ("gs://pictures/none.jpg", 404),
        ("abs://box/none.jpg", 404),
        ("ferrite:///a.jpg", 403),
    ] {
        assert_eq!(server.get(&format!("/_/w:90/plain/{source}")).status, status, "{source}");
    }
}

#[test]
fn a_header_is_looked_at_without_the_rest() {
    let (jpeg, sent) = (large_jpeg(), Arc::new(AtomicUsize::new(0)));
    let counted = sent.clone();
    // Its header is behind a profile of 200,000 bytes.
    let profile = vec![7; 200_000];
    let meta = Meta {
        icc: Some(&profile),
        ..Meta::default()
    };
    let mut late = to_jpeg(&quarters(300, 200), meta, false);
    late.resize(3 << 20, 0);
    let (whole, small) = (jpeg.clone(), to_png(&quarters(30, 20)));
    let origin = Origin::start(move |path, head| match path {
        "/ranges.jpg" => object(head, &jpeg, &counted),
        "/late.jpg" => object(head, &late, &counted),
        "/small.png" => object(head, &small, &counted),
        // Knows no ranges.
        "/whole.jpg" => ("200 OK".into(), whole.clone()),
        "/text" => object(head, &[b'x'; 200_000], &counted),
        "/lies.jpg" => ("206 Partial Content\r\ncontent-range: bytes 5-9/10".into(), vec![0; 5]),
        _ => ("404 Not Found".into(), Vec::new()),
    });
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::write(folder.path().join("local.jpg"), large_jpeg()).expect("writes");
    let server = Server::start(folder.path(), "[http]\nallow-loopback = true\n");
    let at = format!("http://{}", origin.addr);
    for (source, width, bytes, read) in [
        (format!("{at}/ranges.jpg"), 900, 400_000, 64 << 10),
        (format!("{at}/late.jpg"), 300, 3 << 20, (64 << 10) + (1 << 20)),
        (format!("{at}/whole.jpg"), 900, 400_000, 0),
        ("local:///local.jpg".to_owned(), 900, 400_000, 0),
    ] {
        let before = sent.load(Ordering::SeqCst);
        let info = server.get(&format!("/info/_/plain/{source}"));
        let json: serde_json::Value = serde_json::from_slice(&info.body).expect("JSON");
        assert_eq!(
            (json["width"].as_u64(), json["bytes"].as_u64()),
            (Some(width), Some(bytes)),
            "{source}"
        );
        assert_eq!(sent.load(Ordering::SeqCst) - before, read, "{source}");
    }
    assert_eq!(server.get(&format!("/info/_/plain/{at}/small.png")).status, 200);
    let before = origin.requests();
    assert_eq!(server.get(&format!("/info/_/plain/{at}/text")).status, 422);
    assert_eq!(origin.requests(), before + 1, "what is no picture by its start is none");
    assert_eq!(server.get(&format!("/info/_/plain/{at}/lies.jpg")).status, 502);
    assert_eq!(server.get(&format!("/info/_/plain/{at}/none")).status, 404);
}

#[test]
fn who_asks_too_often_is_told_when_to_come_back() {
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::write(folder.path().join("a.png"), to_png(&quarters(40, 40))).expect("writes");
    let server = Server::start(folder.path(), "[clients]\nrate = 0.1\nburst = 3\nheader = \"x-client\"\n");
    let path = "/_/w:20/plain/local:///a.png";
    let ask = |client: &str| server.call("GET", path, &[("x-client", client)]);
    assert_eq!([ask("a").status, ask("a").status, ask("a").status], [200; 3]);
    let refused = ask("a");
    let wait: u64 = refused.header("retry-after").parse().expect("seconds");
    assert!(refused.status == 429 && (5..=10).contains(&wait), "{} {wait}", refused.status);
    assert_eq!(refused.header("cache-control"), "no-store");
    assert_eq!(
        server
            .call("GET", "/info/_/plain/local:///a.png", &[("x-client", "a")])
            .status,
        429
    );
    assert_eq!(ask("b").status, 200, "another client");
    assert_eq!(server.get(path).status, 200, "one without the header is its address");
    assert_eq!(server.call("GET", "/health", &[("x-client", "a")]).status, 200);
    assert!(server.metric("ferrite_thumbnails_requests_total{cache=\"none\",status=\"429\"}") >= 2.0);
}
