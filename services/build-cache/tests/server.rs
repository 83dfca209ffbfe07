//! The binary as a process, spoken to as clients speak: every protocol, refusals, and what a kill leaves.

#[path = "server/cli.rs"]
mod cli;
#[path = "server/clients.rs"]
mod clients;
mod common;
#[path = "server/lent.rs"]
mod lent;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::Command;

use blob_store::Key;
use build_cache::proto::bytestream::byte_stream_client::ByteStreamClient;
use build_cache::proto::bytestream::{QueryWriteStatusRequest, ReadRequest, WriteRequest};
use build_cache::proto::reapi::action_cache_client::ActionCacheClient;
use build_cache::proto::reapi::capabilities_client::CapabilitiesClient;
use build_cache::proto::reapi::content_addressable_storage_client::ContentAddressableStorageClient;
use build_cache::proto::reapi::{
    ActionResult, BatchReadBlobsRequest, BatchUpdateBlobsRequest, FindMissingBlobsRequest, GetActionResultRequest,
    GetCapabilitiesRequest, OutputFile, UpdateActionResultRequest, batch_update_blobs_request,
};
use bytes::Bytes;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use common::{digest, noise, start, try_call};

#[test]
fn every_http_protocol_gets_back_what_it_put() {
    let dir = tempfile::tempdir().expect("a folder");
    let server = start(dir.path(), &[]);
    let hex = "ab".repeat(32);
    for (n, len) in [(0, 100), (1, 20_000), (2, 70_000), (3, 3_000_000)] {
        let body = noise(n, len);
        server.round_trip(&format!("/cas/{}", Key::sha256(&body)), 200, &body);
        server.round_trip(&format!("/gradle/{n:032x}"), 200, &body);
        server.round_trip(&format!("/ccache/{n:033}"), 201, &body);
        server.round_trip(&format!("/x/ccache/ab/{n:031}"), 201, &body);
        server.round_trip(&format!("/dav/{n}/b/c/{hex}"), 201, &body);
        server.round_trip(&format!("/maven/v1/org.x/{n}/buildinfo.xml"), 201, &body);
        server.round_trip(&format!("/v1/cache/{n}77"), 200, &body);
        server.round_trip(&format!("/v8/artifacts/{n:016x}?slug=team"), 202, &body);
    }
    assert_eq!(server.status("PROPFIND", "/dav/3/b/", b""), 207);
    assert_eq!(server.status("PROPFIND", &format!("/dav/3/b/c/{hex}"), b""), 207);
    assert_eq!(server.status("PROPFIND", "/dav/none", b""), 404);
    assert_eq!(server.status("MKCOL", "/dav/new/", b""), 201);
    assert_eq!(server.status("DELETE", &format!("/dav/3/b/c/{hex}"), b""), 204);
    assert_eq!(server.status("GET", &format!("/dav/3/b/c/{hex}"), b""), 404);
    assert_eq!(server.status("GET", "/v8/artifacts/status", b""), 200);
    assert_eq!(
        server.status("GET", &format!("/cas/{}", Key::sha256(b"")), b""),
        200,
        "nothing is always there"
    );
}

#[test]
fn headers_of_artifacts_come_back() {
    let dir = tempfile::tempdir().expect("a folder");
    let server = start(dir.path(), &[]);
    let headers = [("x-artifact-tag", "signature"), ("x-artifact-duration", "77")];
    let path = "/v8/artifacts/00ff?teamId=t";
    assert_eq!(server.call("PUT", path, &headers, b"artifact").0, 202);
    let (_, fields, _) = server.call("GET", path, &[], b"");
    assert_eq!(
        (fields["x-artifact-tag"].as_str(), fields["x-artifact-duration"].as_str()),
        ("signature", "77")
    );
    let (_, _, found) = server.call("POST", "/v8/artifacts?teamId=t", &[], br#"{"hashes":["00ff","11"]}"#);
    let found: serde_json::Value = serde_json::from_slice(&found).expect("JSON");
    assert_eq!(found["00ff"]["size"], 8);
    assert!(found["11"].is_null());
}

#[test]
fn zstd_goes_both_ways_and_bombs_are_refused() {
    let dir = tempfile::tempdir().expect("a folder");
    let config = dir.path().join("c.toml");
    std::fs::write(&config, "[store]\nblob-max = \"1MiB\"\n").expect("writes");
    let server = start(&dir.path().join("d"), &["--config", config.to_str().expect("text")]);
    let zstd = ("content-encoding", "zstd");
    let body = noise(2, 300_000);
    let path = format!("/cas/{}", Key::sha256(&body));
    let packed = zstd::bulk::compress(&body, 3).expect("compresses");
    assert_eq!(server.call("PUT", &path, &[zstd], &packed).0, 200);
    let (_, fields, got) = server.call("GET", &path, &[("accept-encoding", "gzip, zstd")], b"");
    assert_eq!(fields["content-encoding"], "zstd");
    assert_eq!(zstd::stream::decode_all(&got[..]).expect("is zstd"), body);
    assert_eq!(
        server.call("GET", &path, &[("range", "bytes=200000-200009")], b"").2,
        body[200_000..200_010]
    );
    // 64 MiB of nothing in a few kilobytes, and a frame that breaks off.
    let bomb = zstd::bulk::compress(&vec![0; 64 << 20], 3).expect("compresses");
    assert_eq!(server.call("PUT", "/dav/bomb", &[zstd], &bomb).0, 413);
    assert_eq!(server.call("PUT", "/dav/cut", &[zstd], &packed[..packed.len() / 2]).0, 400);
    assert_eq!(server.status("GET", "/dav/cut", b""), 404);
    assert_eq!(
        server.status("PUT", "/gradle/aa", &noise(3, 2 << 20)),
        413,
        "Gradle knows too large"
    );
}

#[test]
fn what_is_wrong_is_refused_clearly() {
    let dir = tempfile::tempdir().expect("a folder");
    let server = start(dir.path(), &[]);
    assert_eq!(server.status("PUT", &format!("/cas/{}", Key::sha256(b"x")), b"y"), 400);
    assert_eq!(server.status("GET", "/dav/../../etc/passwd", b""), 400);
    assert_eq!(server.status("PUT", "/dav/%2e%2e/x", b"x"), 400);
    assert_eq!(server.call("GET", "/dav/x", &[("x-long", &"a".repeat(40_000))], b"").0, 431);
    assert_eq!(server.status("POST", "/gradle/ab", b""), 405);
    assert_eq!(server.status("DELETE", "/admin/instance/x", b""), 401);
}

#[test]
fn an_upload_that_stops_is_ended_with_408() {
    let dir = tempfile::tempdir().expect("a folder");
    let config = dir.path().join("c.toml");
    std::fs::write(&config, "[server]\nidle = \"1s\"\n").expect("writes");
    let server = start(&dir.path().join("d"), &["--config", config.to_str().expect("text")]);
    let mut io = TcpStream::connect(&server.addr).expect("connects");
    io.write_all(b"PUT /dav/slow HTTP/1.1\r\nhost: x\r\ncontent-length: 1000\r\n\r\nsome")
        .expect("sends");
    let mut answer = String::new();
    io.read_to_string(&mut answer).expect("is answered");
    assert!(answer.starts_with("HTTP/1.1 408"), "{answer}");
    assert_eq!(server.status("GET", "/dav/slow", b""), 404);
    let mut silent = TcpStream::connect(&server.addr).expect("connects");
    silent.write_all(b"GET /dav/slow HTT").expect("sends");
    let mut rest = Vec::new();
    silent.read_to_end(&mut rest).expect("headers that never end are cut off");
}

#[test]
fn rights_hold_by_instance_and_gradle_is_never_switched_off() {
    let dir = tempfile::tempdir().expect("a folder");
    let config = dir.path().join("c.toml");
    let text = "[access]\nanonymous = \"read\"\n[[access.users]]\nname = \"ci\"\npassword = \"p\"\ntoken = \"t\"\nrole = \"write\"\ninstances = [\"ci/*\"]\n\
                [[access.users]]\nname = \"boss\"\ntoken = \"b\"\nrole = \"admin\"\n";
    std::fs::write(&config, text).expect("writes");
    let server = start(&dir.path().join("d"), &["--config", config.to_str().expect("text")]);
    let basic = ("authorization", "Basic Y2k6cA==");
    let put = |path: &str, headers: &[(&str, &str)]| server.call("PUT", path, headers, b"x").0;
    assert_eq!(put("/ci/main/dav/a", &[]), 401);
    assert_eq!(put("/ci/main/dav/a", &[("authorization", "Bearer wrong")]), 401);
    assert_eq!(put("/release/dav/a", &[basic]), 403);
    assert_eq!(put("/ci/main/dav/a", &[basic]), 201);
    assert_eq!(put("/ci/main/dav/b", &[("authorization", "Bearer t")]), 201);
    assert_eq!(put("/release/gradle/aa", &[basic]), 413);
    assert_eq!(server.status("GET", "/ci/main/dav/a", b""), 200);
    let boss = ("authorization", "Bearer b");
    let (status, _, purged) = server.call("DELETE", "/admin/instance/ci/main", &[boss], b"");
    assert_eq!((status, purged.as_slice()), (200, br#"{"purged":2}"#.as_slice()));
    assert_eq!(server.status("GET", "/ci/main/dav/a", b""), 404);
}

#[tokio::test]
async fn the_remote_execution_api_works_end_to_end() {
    let dir = tempfile::tempdir().expect("a folder");
    let server = start(dir.path(), &[]);
    let instance_name = "a/b".to_owned();
    let mut capabilities = CapabilitiesClient::connect(server.url()).await.expect("connects");
    let found = capabilities
        .get_capabilities(GetCapabilitiesRequest::default())
        .await
        .expect("answers")
        .into_inner();
    assert_eq!(
        found.low_api_version.map(|version| (version.major, version.minor)),
        Some((2, 0))
    );

    let mut cas = ContentAddressableStorageClient::connect(server.url())
        .await
        .expect("connects");
    let (small, large, other) = (noise(2, 5_000), noise(4, 1_500_000), noise(6, 9_000));
    let missing = async |cas: &mut ContentAddressableStorageClient<_>| {
        let request = FindMissingBlobsRequest {
            instance_name: "a/b".into(),
            blob_digests: vec![digest(&small), digest(&large), digest(b"")],
            ..Default::default()
        };
        cas.find_missing_blobs(request)
            .await
            .expect("answers")
            .into_inner()
            .missing_blob_digests
    };
    assert_eq!(missing(&mut cas).await, [digest(&small), digest(&large)]);
    let request = |bytes: &[u8], data: Vec<u8>, compressor| batch_update_blobs_request::Request {
        digest: Some(digest(bytes)),
        data: data.into(),
        compressor,
    };
    let packed = zstd::bulk::compress(&small, 1).expect("compresses");
    let update = BatchUpdateBlobsRequest {
        instance_name: instance_name.clone(),
        requests: vec![request(&small, packed, 1), request(&other, b"wrong".to_vec(), 0)],
        ..Default::default()
    };
    let stored = cas.batch_update_blobs(update).await.expect("answers").into_inner().responses;
    let codes: Vec<i32> = stored
        .iter()
        .map(|one| one.status.as_ref().map_or(-1, |status| status.code))
        .collect();
    assert_eq!(codes, [0, tonic::Code::InvalidArgument as i32]);

    // An action result that names a blob which is not there yet is a miss.
    let mut actions = ActionCacheClient::connect(server.url()).await.expect("connects");
    let result = ActionResult {
        output_files: vec![OutputFile {
            path: "out".into(),
            digest: Some(digest(&large)),
            ..Default::default()
        }],
        execution_metadata: Bytes::from_static(b"\x0a\x01w"),
        ..Default::default()
    };
    let update = UpdateActionResultRequest {
        instance_name: instance_name.clone(),
        action_digest: Some(digest(b"action")),
        action_result: Some(result.clone()),
        ..Default::default()
    };
    actions.update_action_result(update).await.expect("stores");
    let get = GetActionResultRequest {
        instance_name: instance_name.clone(),
        action_digest: Some(digest(b"action")),
        ..Default::default()
    };
    let held_back = actions.get_action_result(get.clone()).await.expect_err("is held back");
    assert_eq!(held_back.code(), tonic::Code::NotFound);
    let over_http = format!("/a/b/ac/{}", Key::sha256(b"action"));
    assert_eq!(server.status("GET", &over_http, b""), 404, "over HTTP too");

    let mut streams = ByteStreamClient::connect(server.url()).await.expect("connects");
    let name = format!("a/b/uploads/u/compressed-blobs/zstd/{}/{}", Key::sha256(&large), large.len());
    let packed = zstd::bulk::compress(&large, 3).expect("compresses");
    let (mut parts, mut offset) = (Vec::new(), 0);
    for piece in packed.chunks(100_000) {
        parts.push(WriteRequest {
            resource_name: if offset == 0 { name.clone() } else { String::new() },
            write_offset: offset as i64,
            finish_write: offset + piece.len() == packed.len(),
            data: Bytes::copy_from_slice(piece),
        });
        offset += piece.len();
    }
    let written = streams.write(tokio_stream::iter(parts)).await.expect("stores").into_inner();
    assert_eq!(written.committed_size, packed.len() as i64);
    assert!(missing(&mut cas).await.is_empty());
    assert_eq!(
        actions.get_action_result(get).await.expect("is complete").into_inner(),
        result
    );
    assert_eq!(server.status("GET", &over_http, b""), 200);

    for (start, coding) in [
        (0, "blobs"),
        (200_000, "blobs"),
        (0, "compressed-blobs/zstd"),
        (200_000, "compressed-blobs/zstd"),
    ] {
        let request = ReadRequest {
            resource_name: format!("a/b/{coding}/{}/{}", Key::sha256(&large), large.len()),
            read_offset: start as i64,
            read_limit: 0,
        };
        let mut answers = streams.read(request).await.expect("reads").into_inner();
        let mut got = Vec::new();
        while let Some(answer) = answers.message().await.expect("whole") {
            got.extend_from_slice(&answer.data);
        }
        if coding != "blobs" {
            got = zstd::stream::decode_all(&got[..]).expect("is zstd");
        }
        assert_eq!(got, large[start..], "{coding} from {start}");
    }
    let read = BatchReadBlobsRequest {
        instance_name,
        digests: vec![digest(&small), digest(&other)],
        ..Default::default()
    };
    let read = cas.batch_read_blobs(read).await.expect("answers").into_inner().responses;
    assert_eq!(read[0].data, small);
    assert_eq!(
        read[1].status.as_ref().map(|status| status.code),
        Some(tonic::Code::NotFound as i32)
    );

    let told = String::from_utf8(server.call("GET", "/metrics", &[], b"").2).expect("text");
    let is_told = |line: &str| assert!(told.lines().any(|other| other == line), "{line} in {told}");
    let labels = "instance=\"a/b\",op=";
    for (op, count) in [("get", 7), ("put", 3), ("find", 2)] {
        is_told(&format!(
            "ferrite_build_cache_request_seconds_count{{{labels}\"{op}\",protocol=\"reapi\"}} {count}"
        ));
    }
    assert!(told.contains("ferrite_build_cache_store_disk_free_bytes "));
    is_told("ferrite_build_cache_requests_total{instance=\"a/b\",outcome=\"refused\",protocol=\"reapi\"} 1");
}

#[test]
fn what_comes_as_zstd_is_kept_as_it_came_where_ranges_stay_cheap() {
    let dir = tempfile::tempdir().expect("a folder");
    let server = start(dir.path(), &[]);
    let pack = |bytes: &[u8]| zstd::bulk::compress(bytes, 15).expect("compresses");
    let frames = |bytes: &[u8]| bytes.chunks(128 << 10).flat_map(pack).collect::<Vec<u8>>();
    let (small, large) = (noise(2, 20_000), noise(4, 900_000));
    for (body, packed, is_kept) in [
        (&small, pack(&small), true),
        (&large, frames(&large), true),
        (&large[..800_000].to_vec(), pack(&large[..800_000]), false),
    ] {
        let path = format!("/cas/{}", Key::sha256(body));
        assert_eq!(server.call("PUT", &path, &[("content-encoding", "zstd")], &packed).0, 200);
        let got = server.call("GET", &path, &[("accept-encoding", "zstd")], b"").2;
        assert_eq!(got == packed, is_kept, "{} bytes", body.len());
        assert!(zstd::stream::decode_all(&got[..]).expect("is zstd") == *body);
        assert!(server.call("GET", &path, &[], b"").2 == *body);
        let range = server.call("GET", &path, &[("range", "bytes=15000-15999")], b"").2;
        assert!(range == body[15_000..16_000]);
    }
}

#[tokio::test]
async fn an_upload_that_broke_off_goes_on_where_it_stopped() {
    let dir = tempfile::tempdir().expect("a folder");
    let config = dir.path().join("c.toml");
    let text = "[[access.users]]\nname = \"boss\"\ntoken = \"boss\"\nrole = \"admin\"\n";
    std::fs::write(&config, text).expect("writes");
    let server = start(&dir.path().join("d"), &["--config", config.to_str().expect("text")]);
    let mut streams = ByteStreamClient::connect(server.url()).await.expect("connects");
    let body = noise(4, 1_500_000);
    let packed = zstd::bulk::compress(&body, 1).expect("compresses");
    for (kind, sent) in [("blobs", &body), ("compressed-blobs/zstd", &packed)] {
        let name = format!("ci/uploads/some-id/{kind}/{}/{}", Key::sha256(&body), body.len());
        let part = |start: usize, end: usize| WriteRequest {
            resource_name: name.clone(),
            write_offset: start as i64,
            finish_write: end == sent.len(),
            data: Bytes::copy_from_slice(&sent[start..end]),
        };
        let middle = sent.len() / 2;
        // The stream ends before the upload does.
        let broken = streams
            .write(tokio_stream::iter(vec![part(0, 1000), part(1000, middle)]))
            .await;
        assert_eq!(broken.expect_err("is not whole").code(), tonic::Code::InvalidArgument);
        let query = QueryWriteStatusRequest {
            resource_name: name.clone(),
        };
        let status = streams.query_write_status(query.clone()).await.expect("answers").into_inner();
        assert_eq!((status.committed_size, status.complete), (middle as i64, false), "{kind}");
        let gap = streams.write(tokio_stream::iter(vec![part(middle + 1, sent.len())])).await;
        assert_eq!(gap.expect_err("is a gap").code(), tonic::Code::OutOfRange);
        let stranger = QueryWriteStatusRequest {
            resource_name: name.replace("some-id", "another"),
        };
        let status = streams.query_write_status(stranger).await.expect("answers").into_inner();
        assert_eq!(status.committed_size, 0, "another upload");
        let rest = streams
            .write(tokio_stream::iter(vec![part(middle, sent.len())]))
            .await
            .expect("stores");
        assert_eq!(rest.into_inner().committed_size, sent.len() as i64);
        let status = streams.query_write_status(query).await.expect("answers").into_inner();
        assert_eq!((status.committed_size, status.complete), (body.len() as i64, true));
        let path = format!("/cas/{}", Key::sha256(&body));
        assert!(server.call("GET", &path, &[], b"").2 == body, "{kind}");
        // Once more, by the other way.
        let boss = ("authorization", "Bearer boss");
        assert_eq!(server.call("DELETE", &format!("/admin/key{path}"), &[boss], b"").0, 200);
    }
}

#[test]
fn killed_it_serves_no_wrong_byte_and_keeps_what_it_acknowledged() {
    kill_often("always", 8);
}

/// A kill takes nothing from the system, which has what was acknowledged.
#[test]
fn killed_without_syncs_it_keeps_as_much() {
    kill_often("never", 4);
}

/// Kills the process in the middle of uploads and reads, again and again; then every byte is read. `FERRITE_KILLS` sets how often.
fn kill_often(sync: &str, kills: u64) {
    let kills = std::env::var("FERRITE_KILLS").map_or(kills, |text| text.parse().expect("a number"));
    let args = ["--sync", sync, "--size-max", "8GiB"];
    let dir = tempfile::tempdir().expect("a folder");
    let mut acknowledged: Vec<(u64, usize)> = Vec::new();
    let mut rng = SmallRng::seed_from_u64(11);
    let mut reads = 0;
    for round in 0..kills {
        let mut server = start(dir.path(), &args);
        let uploads = rng.random_range(1..40);
        let workers: Vec<_> = (0..3u64)
            .map(|worker| {
                let (addr, known) = (server.addr.clone(), acknowledged.clone());
                base::thread::spawn("worker", move || work(&addr, (round * 3 + worker) * 1_000_000, &known))
            })
            .collect();
        // The kill comes after a number of uploads that somebody else makes, at whatever moment that is for the workers.
        for n in 0..uploads {
            let body = noise(round * 1000 + n + 900_000_000, 3_000);
            let _outcome = try_call(&server.addr, "PUT", &format!("/cas/{}", Key::sha256(&body)), &[], &body);
        }
        server.child.kill().expect("is killed");
        for worker in workers {
            let (put, read) = worker.join().expect("no wrong byte");
            acknowledged.extend(put);
            reads += read;
        }
    }
    let server = start(dir.path(), &args);
    for (seed, len) in &acknowledged {
        let body = noise(*seed, *len);
        let (status, _, got) = server.call("GET", &format!("/cas/{}", Key::sha256(&body)), &[], b"");
        assert_eq!(
            (status, got == body),
            (200, true),
            "blob {seed} of {len} bytes was acknowledged"
        );
    }
    drop(server);
    let mut verify = Command::new(env!("CARGO_BIN_EXE_ferrite-build-cache"));
    let verify = verify
        .args(["verify", "--size-max", "8GiB", "--data-dir"])
        .arg(dir.path())
        .output()
        .expect("runs");
    let text = String::from_utf8_lossy(&verify.stdout).into_owned();
    println!(
        "--sync {sync}: {kills} kills, {} blobs acknowledged, {reads} read meanwhile; {text}",
        acknowledged.len()
    );
    assert!(text.contains("damaged 0, missing 0, leftover 0"), "{text}");
    assert!(acknowledged.len() as u64 > kills, "the kills came before anything was stored");
}

/// Uploads and reads until the server goes away: what was acknowledged, and how many reads were right.
fn work(addr: &str, seeds: u64, known: &[(u64, usize)]) -> (Vec<(u64, usize)>, u64) {
    let mut rng = SmallRng::seed_from_u64(seeds);
    let (mut put, mut reads) = (Vec::new(), 0);
    for seed in seeds.. {
        let len = if rng.random_bool(0.3) {
            rng.random_range(70_000..600_000)
        } else {
            rng.random_range(0..30_000)
        };
        let body = noise(seed, len);
        match try_call(addr, "PUT", &format!("/cas/{}", Key::sha256(&body)), &[], &body) {
            Ok((200, ..)) => put.push((seed, len)),
            Ok((status, ..)) => panic!("put answered {status}"),
            Err(_) => break,
        }
        let all = known.len() + put.len();
        let at = rng.random_range(0..all);
        let (seed, len) = if at < known.len() { known[at] } else { put[at - known.len()] };
        let body = noise(seed, len);
        match try_call(addr, "GET", &format!("/cas/{}", Key::sha256(&body)), &[], b"") {
            Ok((status, _, got)) => assert!(status == 200 && got == body, "blob {seed} answered {status}"),
            Err(_) => break,
        }
        reads += 1;
    }
    (put, reads)
}
