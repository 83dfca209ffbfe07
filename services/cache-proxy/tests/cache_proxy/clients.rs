//! Clients as people have them: of PyPI, and the tools that come with Redis.

use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use crate::harness::*;

/// The versions that the tests run with.
const PACKAGES: [&str; 3] = ["redis==8.1.0", "pymemcache==4.0.0", "pylibmc==1.6.3"];

/// A folder with the packages, installed when it is not there.
fn packages() -> &'static PathBuf {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    FOLDER.get_or_init(|| {
        let name = format!("python-{}", PACKAGES.join("-").replace("==", "-"));
        let dir = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name);
        if !dir.is_dir() {
            let making = dir.with_extension("new");
            let mut command = Command::new(program("python3", "python3"));
            command.args([
                "-m",
                "pip",
                "install",
                "--quiet",
                "--disable-pip-version-check",
                "--upgrade",
                "--target",
            ]);
            let installed = command.arg(&making).args(PACKAGES).output().expect("python3 runs");
            let told = String::from_utf8_lossy(&installed.stderr);
            assert!(installed.status.success(), "is python3-pip there? {told}");
            std::fs::rename(&making, &dir).expect("moves");
        }
        dir
    })
}

/// Runs a part of `clients.py`.
pub fn python(what: &str, addr: &str, rest: &[String]) {
    // Tests run in their package's folder. Where that was when this was compiled may be another checkout, whose target directory this is too.
    let script = "tests/cache_proxy/clients.py";
    let port = addr.rsplit(':').next().expect("a port");
    let mut command = Command::new(program("python3", "python3"));
    command.env("PYTHONPATH", packages()).args([script, what, port]).args(rest);
    let ran = command.output().expect("runs");
    assert!(ran.status.success(), "{what}:\n{}", String::from_utf8_lossy(&ran.stderr));
}

#[test]
fn redis_py_with_its_defaults() {
    let servers = [redis(), redis()];
    let proxy = Proxy::start(&pool(&servers.each_ref(), "hash-tag = \"{}\"\nadmin = true"));
    python("redis", &proxy.addrs[0], &[]);
}

#[test]
fn pymemcache_and_libmemcached() {
    let servers = [memcached(), memcached(), memcached()];
    let weighted: Vec<_> = servers
        .iter()
        .zip([1, 3, 2])
        .map(|(server, weight)| format!("{}:{weight}", server.addr))
        .collect();
    let mut config = pool(&servers.each_ref(), "protocol = \"memcached\"\nhash = \"md5\"");
    for (server, weighted) in servers.iter().zip(&weighted) {
        config = config.replace(&format!("{:?}", server.addr), &format!("{weighted:?}"));
    }
    let proxy = Proxy::start(&config);
    python("pymemcache", &proxy.addrs[0], &[]);
    python("libmemcached", &proxy.addrs[0], &weighted);
}

#[test]
fn the_tools_of_redis() {
    let servers = [redis(), redis()];
    let proxy = Proxy::start(&pool(&servers.each_ref(), "admin = true"));
    let port = proxy.addrs[0].rsplit(':').next().expect("a port");
    let cli = |args: &[&str]| {
        let ran = Command::new(program("redis-cli", "redis-tools"))
            .args(["-p", port])
            .args(args)
            .output();
        String::from_utf8_lossy(&ran.expect("runs").stdout).trim().to_owned()
    };
    assert_eq!(cli(&["SET", "greeting", "hello"]), "OK");
    assert_eq!(cli(&["GET", "greeting"]), "hello");
    assert_eq!(cli(&["-n", "5", "GET", "greeting"]), "");
    assert_eq!(cli(&["HSET", "h", "f", "v"]), "1");
    assert_eq!(cli(&["-3", "HGETALL", "h"]), "f v");
    // Mass insertion, then all keys of all servers.
    let mut pipe = Command::new(program("redis-cli", "redis-tools"))
        .args(["-p", port, "--pipe"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("runs");
    let lines: String = (0..1000).map(|number| format!("SET piped{number} x\r\n")).collect();
    std::io::Write::write_all(&mut pipe.stdin.take().expect("is piped"), lines.as_bytes()).expect("writes");
    let told = pipe.wait_with_output().expect("ends");
    let told = String::from_utf8_lossy(&told.stdout).into_owned();
    assert!(told.contains("errors: 0, replies: 1000"), "{told}");
    assert_eq!(cli(&["--scan", "--pattern", "piped*"]).lines().count(), 1000);
    assert!(cli(&["--bigkeys"]).contains("Sampled 1002 keys"));
    let ran = Command::new(program("redis-benchmark", "redis-tools"))
        .args(["-p", port, "-q", "-n", "2000", "-c", "20", "-P", "8", "-r", "100"])
        .output()
        .expect("runs");
    let told = String::from_utf8_lossy(&ran.stdout).into_owned() + &String::from_utf8_lossy(&ran.stderr);
    assert!(ran.status.success() && told.contains("MSET (10 keys)"), "{told}");
    assert!(!told.to_lowercase().contains("err"), "{told}");
}
