//! Manners of HTTP, over the binary.

use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Barrier};

use thumbnails::codec::Meta;

use crate::common::{Server, call, quarters, to_jpeg, to_png};
use crate::origin::Origin;

fn folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::write(
        folder.path().join("cat.jpg"),
        to_jpeg(&quarters(400, 300), Meta::default(), false),
    )
    .expect("writes");
    std::fs::write(folder.path().join("cat.png"), to_png(&quarters(400, 300))).expect("writes");
    std::fs::write(folder.path().join("no.txt"), "no picture").expect("writes");
    folder
}

#[test]
fn pictures_come_in_size_and_format() {
    let folder = folder();
    let server = Server::start(folder.path(), "");
    for (path, wanted) in [
        ("/_/rs:fit:100:100/plain/local:///cat.jpg", ("jpg", 100, 75)),
        ("/_/rs:fill:100:100/g:sm/plain/local:///cat.jpg@png", ("png", 100, 100)),
        ("/_/rs:force:50:60/plain/local:///cat.png@webp", ("webp", 50, 60)),
        ("/_/w:40/rot:90/plain/local:///cat.png", ("png", 40, 53)),
        ("/_/c:200:100:nowe/plain/local:///cat.png@gif", ("gif", 200, 100)),
        ("/_/w:100/pd:10:20/bg:ff0000/plain/local:///cat.png@jpg", ("jpg", 140, 95)),
        ("/_/w:100/dpr:2/plain/local:///cat.png@jpg", ("jpg", 200, 150)),
        ("/_/raw:1/plain/local:///cat.png", ("png", 400, 300)),
        ("/_/w:100/skp:png/plain/local:///cat.png", ("png", 400, 300)),
        ("/_/w:100/bG9jYWw6Ly8vY2F0LmpwZw.webp", ("webp", 100, 75)),
        #[cfg(feature = "avif")]
        ("/_/w:100/plain/local:///cat.png@avif", ("avif", 100, 75)),
    ] {
        let answer = server.get(path);
        assert_eq!(answer.status, 200, "{path}: {}", String::from_utf8_lossy(&answer.body));
        assert_eq!(answer.picture(), wanted, "{path}");
        assert_eq!(
            answer.header("content-type"),
            format!("image/{}", wanted.0.replace("jpg", "jpeg"))
        );
    }
}

#[test]
fn the_format_is_negotiated_and_caches_know_it() {
    let folder = folder();
    let server = Server::start(folder.path(), "[output]\nprefer = [\"webp\"]\n");
    let path = "/_/w:100/plain/local:///cat.jpg";
    let webp = server.call("GET", path, &[("accept", "image/avif,image/webp,*/*")]);
    assert_eq!((webp.picture().0, webp.header("vary")), ("webp", "Accept"));
    let jpeg = server.call("GET", path, &[("accept", "*/*")]);
    assert_eq!((jpeg.picture().0, jpeg.header("vary")), ("jpg", "Accept"));
    assert_eq!(
        server
            .call("GET", &format!("{path}@png"), &[("accept", "image/webp")])
            .header("vary"),
        ""
    );
}

#[test]
fn what_the_client_has_is_not_sent_again() {
    let folder = folder();
    let server = Server::start(folder.path(), "[server]\nallow-origin = \"*\"\n");
    let path = "/_/w:100/fn:kitten/att:1/plain/local:///cat.jpg";
    let first = server.get(path);
    assert_eq!(first.header("cache-status"), "ferrite-thumbnails; fwd=uri-miss");
    assert_eq!(first.header("access-control-allow-origin"), "*");
    assert!(
        first
            .header("content-disposition")
            .starts_with("attachment; filename=\"kitten.jpg\"")
    );
    assert_eq!(first.header("cache-control"), "public, max-age=31536000");
    let (etag, modified) = (first.header("etag"), first.header("last-modified"));
    let again = server.call("GET", path, &[("if-none-match", etag)]);
    assert_eq!((again.status, again.body.len(), again.header("etag")), (304, 0, etag));
    assert_eq!(again.header("cache-status"), "ferrite-thumbnails; hit; detail=memory");
    assert_eq!(server.call("GET", path, &[("if-modified-since", modified)]).status, 304);
    assert_eq!(server.call("GET", path, &[("if-none-match", "\"other\"")]).status, 200);
    let head = server.call("HEAD", path, &[]);
    assert_eq!(
        (head.status, head.body.len(), head.header("content-length")),
        (200, 0, &*first.body.len().to_string())
    );
    assert_eq!(server.call("OPTIONS", path, &[]).status, 204);
    assert_eq!(server.call("POST", path, &[]).status, 405);
}

#[test]
fn signatures_are_wanted_where_there_are_keys() {
    let folder = folder();
    let server = Server::start(
        folder.path(),
        "[url]\nkeys = [\"736563726574\", \"6e6577\"]\nsalts = [\"68656c6c6f\", \"73616c74\"]\n",
    );
    let signer = thumbnails::url::sign::Signer::new(&["6e6577".into()], &["73616c74".into()], 32, &[]).expect("valid");
    let path = "/w:100/plain/local:///cat.jpg";
    let signed = format!("/{}{path}", signer.sign(path));
    assert_eq!(server.get(&signed).status, 200);
    assert_eq!(server.get(&signed.replace("w:100", "w:101")).status, 403);
    assert_eq!(server.get(&format!("/_{path}")).status, 403);
    assert_eq!(server.get(&format!("/info/{}{path}", signer.sign(path))).status, 200);
    assert_eq!(server.get(&format!("/info/_{path}")).status, 403);
}

#[test]
fn errors_have_their_status() {
    let folder = folder();
    let server = Server::start(folder.path(), "[limits]\nresolution-max = 0.2\n");
    std::fs::write(folder.path().join("large.png"), to_png(&quarters(600, 400))).expect("writes");
    for (path, status) in [
        ("/_/w:100/plain/local:///none.jpg", 404),
        ("/_/w:100/plain/local:///../cat.jpg", 403),
        ("/_/w:100/plain/ftp://x/y", 403),
        ("/_/w:100/plain/http://127.0.0.1:1/x", 403),
        ("/_/w:100/plain/http://[::ffff:127.0.0.1]/x", 403),
        ("/_/w:100/plain/http://localhost/x", 403),
        ("/_/w:x/plain/local:///cat.jpg", 400),
        ("/_/nonsense:1/plain/local:///cat.jpg", 400),
        ("/_/w:100/plain/local:///no.txt", 422),
        ("/_/w:100/plain/local:///large.png", 422),
        ("/_/w:9000/el:1/plain/local:///cat.jpg", 422),
        ("/_/exp:1000/plain/local:///cat.jpg", 404),
        ("/nothing", 400),
    ] {
        let answer = server.get(path);
        assert_eq!(answer.status, status, "{path}: {}", String::from_utf8_lossy(&answer.body));
        assert_eq!(answer.header("cache-control"), "no-store");
    }
    let info = server.get("/info/_/plain/local:///cat.jpg");
    let json: serde_json::Value = serde_json::from_slice(&info.body).expect("JSON");
    assert_eq!(
        (json["format"].as_str(), json["width"].as_u64(), json["orientation"].as_u64()),
        (Some("jpeg"), Some(400), Some(1))
    );
    assert_eq!(call(&server.status_addr, "GET", "/health", &[]).status, 200);
}

#[test]
fn a_fallback_stands_in_for_a_short_time() {
    let folder = folder();
    std::fs::write(folder.path().join("fallback.png"), to_png(&quarters(80, 80))).expect("writes");
    let toml = format!(
        "[fallback]\npath = \"{}\"\nstatus = 200\nttl = \"30s\"\n",
        folder.path().join("fallback.png").display()
    );
    let server = Server::start(folder.path(), &toml);
    for path in ["/_/w:40/plain/local:///none.jpg@webp", "/_/w:40/plain/local:///no.txt@webp"] {
        let answer = server.get(path);
        assert_eq!((answer.status, answer.picture()), (200, ("webp", 40, 40)));
        assert_eq!(answer.header("cache-control"), "public, max-age=30");
    }
    assert_eq!(server.get("/_/w:x/plain/local:///none.jpg").status, 400);
}

#[test]
fn sources_on_the_web_are_asked_once_and_then_whether_they_changed() {
    let picture = to_jpeg(&quarters(200, 100), Meta::default(), false);
    let origin = Origin::start(move |path, head| match path {
        "/a.jpg" if head.contains("if-none-match: \"v1\"") => ("304 Not Modified\r\netag: \"v1\"".into(), Vec::new()),
        "/a.jpg" => (
            "200 OK\r\netag: \"v1\"\r\ncache-control: public, max-age=77".into(),
            picture.clone(),
        ),
        "/now.jpg" if head.contains("if-none-match") => ("304 Not Modified".into(), Vec::new()),
        "/now.jpg" => ("200 OK\r\netag: \"v1\"\r\ncache-control: no-cache".into(), picture.clone()),
        "/private.jpg" => ("200 OK\r\ncache-control: no-store".into(), picture.clone()),
        "/to-a" => ("302 Found\r\nlocation: /a.jpg".into(), Vec::new()),
        "/loop" => ("302 Found\r\nlocation: /loop".into(), Vec::new()),
        "/out" => ("302 Found\r\nlocation: http://169.254.169.254/latest".into(), Vec::new()),
        "/file" => ("302 Found\r\nlocation: file:///etc/passwd".into(), Vec::new()),
        "/down" => ("500 Oh".into(), Vec::new()),
        "/huge" => ("200 OK".into(), vec![0; 3 << 20]),
        _ => ("404 Not Found".into(), Vec::new()),
    });
    let folder = tempfile::tempdir().expect("a folder");
    let server = Server::start(
        folder.path(),
        "[http]\nallow-loopback = true\n[limits]\nsource-max = \"1MiB\"\n",
    );
    let path = |name: &str| format!("/_/w:50/plain/http://{}{name}", origin.addr);
    let first = server.get(&path("/a.jpg"));
    assert_eq!(
        (first.picture(), first.header("cache-control")),
        (("jpg", 50, 25), "public, max-age=77")
    );
    assert_eq!(
        server.get(&path("/a.jpg")).header("cache-status"),
        "ferrite-thumbnails; hit; detail=memory"
    );
    assert_eq!(origin.requests(), 1);
    assert_eq!(server.get(&path("/to-a")).status, 200);
    server.get(&path("/now.jpg"));
    let renewed = server.get(&path("/now.jpg"));
    assert_eq!(
        (renewed.status, renewed.header("cache-status")),
        (200, "ferrite-thumbnails; fwd=stale")
    );
    for _ in 0..2 {
        assert_eq!(
            server.get(&path("/private.jpg")).header("cache-status"),
            "ferrite-thumbnails; fwd=uri-miss"
        );
    }
    for (name, status) in [
        ("/loop", 403),
        ("/out", 403),
        ("/file", 403),
        ("/down", 502),
        ("/huge", 422),
        ("/none", 404),
    ] {
        assert_eq!(server.get(&path(name)).status, status, "{name}");
    }
    // Purged, it is asked for anew.
    let before = origin.requests();
    let source = format!("http%3A%2F%2F{}%2Fa.jpg", origin.addr);
    assert_eq!(
        call(&server.status_addr, "DELETE", &format!("/purge/{source}"), &[]).status,
        200
    );
    assert_eq!(
        server.get(&path("/a.jpg")).header("cache-status"),
        "ferrite-thumbnails; fwd=uri-miss"
    );
    assert_eq!(origin.requests(), before + 1);
}

#[test]
fn equal_requests_share_the_work_and_too_many_are_refused() {
    let picture = to_jpeg(&quarters(200, 100), Meta::default(), false);
    let open = Arc::new(AtomicBool::new(false));
    let is_open = open.clone();
    let origin = Origin::start(move |_, _| {
        while !is_open.load(Ordering::SeqCst) {
            std::thread::yield_now();
        }
        ("200 OK".into(), picture.clone())
    });
    let folder = tempfile::tempdir().expect("a folder");
    let server = Server::start(folder.path(), "[http]\nallow-loopback = true\n[limits]\ndownloads-max = 1\n");
    let path = format!("/_/w:50/plain/http://{}/a.jpg", origin.addr);
    let barrier = Barrier::new(6);
    let statuses: Vec<String> = std::thread::scope(|scope| {
        let joins: Vec<_> = (0..6)
            .map(|_| {
                scope.spawn(|| {
                    barrier.wait();
                    server.get(&path).header("cache-status").to_owned()
                })
            })
            .collect();
        while origin.requests() == 0 {
            std::thread::yield_now();
        }
        let busy = server.get(&format!("/_/w:51/plain/http://{}/b.jpg", origin.addr));
        assert_eq!((busy.status, busy.header("retry-after")), (503, "1"));
        assert_eq!(call(&server.status_addr, "GET", "/health", &[]).status, 200);
        while server.metric("ferrite_thumbnails_connections") < 7.0 {
            std::thread::yield_now();
        }
        open.store(true, Ordering::SeqCst);
        joins.into_iter().map(|join| join.join().expect("answers")).collect()
    });
    assert_eq!(origin.requests(), 1, "{statuses:?}");
    assert!(
        statuses.iter().filter(|status| status.contains("collapsed")).count() >= 1,
        "{statuses:?}"
    );
}

#[test]
fn results_outlive_a_restart_on_disk() {
    let (folder, cache) = (folder(), tempfile::tempdir().expect("a folder"));
    let toml = format!("[cache]\ndir = \"{}\"\ndisk-max = \"32MiB\"\n", cache.path().display());
    let path = "/_/w:100/plain/local:///cat.jpg";
    let first = {
        let server = Server::start(folder.path(), &toml);
        let first = server.get(path);
        while server.metric("ferrite_thumbnails_cache_disk_bytes") == 0.0 {
            std::thread::yield_now();
        }
        first
    };
    let server = Server::start(folder.path(), &toml);
    let again = server.get(path);
    assert_eq!(again.header("cache-status"), "ferrite-thumbnails; hit; detail=disk");
    assert_eq!(again.body, first.body);
}

#[test]
fn configurations_are_checked_ahead() {
    let run = |toml: &str, arg: &str| {
        let file = tempfile::NamedTempFile::new().expect("a file");
        std::fs::write(file.path(), toml).expect("writes");
        let out = Command::new(env!("CARGO_BIN_EXE_ferrite-thumbnails"))
            .args(["serve", "--config"])
            .arg(file.path())
            .arg(arg)
            .output()
            .expect("runs");
        (
            out.status.code(),
            String::from_utf8_lossy(&[out.stdout, out.stderr].concat()).into_owned(),
        )
    };
    let (code, text) = run("[server]\nqueue-max = 0\n", "--check-config");
    assert_eq!(code, Some(1));
    assert!(text.contains("queue-max") && text.contains("allow-unsigned"), "{text}");
    assert_eq!(run("[url]\nallow-unsigned = true\n", "--check-config").0, Some(0));
    assert_eq!(run("[url]\nnonsense = true\n", "--check-config").0, Some(1));
    let (code, text) = run("[url]\nallow-unsigned = true\n", "--print-config");
    assert!(code == Some(0) && text.contains("allow-unsigned = true"), "{text}");
}
