//! A Ferrite cluster behind a pool: a real one, in a process of its own.

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::harness::*;

pub struct Ferrite {
    pub process: Process,
    pub pd: String,
}

impl Ferrite {
    /// With data in `dir`.
    pub fn start(dir: &Path) -> Ferrite {
        let test = std::env::current_exe().expect("this binary");
        let built = test
            .ancestors()
            .nth(2)
            .expect("lies in <target>/<profile>/deps")
            .join("ferrite");
        let binary = std::env::var_os("FERRITE_BIN").map_or(built, PathBuf::from);
        assert!(
            binary.is_file(),
            "{} is missing: run `cargo build -p ferrite-server`, or set FERRITE_BIN",
            binary.display()
        );
        let mut command = Command::new(binary);
        command.args([
            "playground",
            "--stores",
            "1",
            "--free-ports",
            "--json",
            "--log-level",
            "error",
            "--data-dir",
        ]);
        let mut child = command.arg(dir).stdout(Stdio::piped()).spawn().expect("starts");
        let mut line = String::new();
        let out = child.stdout.take().expect("is piped");
        let process = Process(child);
        BufReader::new(out).read_line(&mut line).expect("tells where it listens");
        let told: serde_json::Value = serde_json::from_str(&line).expect("one line of JSON");
        let pd = told["pd"].as_str().expect("an address").to_owned();
        Ferrite { process, pd }
    }
}

/// Two pools of one cluster: Redis, then memcached.
fn pools(pd: &str) -> String {
    let pool = |name: &str, options: &str| {
        format!(
            "[[pools]]\nname = \"{name}\"\nlisten = \"127.0.0.1:0\"\nbackend = \"ferrite\"\nservers = [\"{pd}\"]\n\
             ferrite-prefix = \"{name}:\"\ntimeout-request = \"10s\"\n{options}\n"
        )
    };
    pool("redis", "") + &pool("memcached", "protocol = \"memcached\"")
}

fn says(client: &mut Client, cases: &[(&str, &str)]) {
    for (words, wanted) in cases {
        assert_eq!(client.ask(words), *wanted, "{words}");
    }
}

#[test]
fn strings_and_items_are_kept_through_a_kill() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut cluster = Ferrite::start(dir.path());
    let proxy = Proxy::start(&pools(&cluster.pd));
    strings(&proxy);
    expiry(&proxy);
    two_clients_count_together(&proxy);
    walk(&proxy);
    items(&proxy);
    // Killed and started again at other ports: everything that was answered is there.
    let mut client = proxy.client();
    assert_eq!(client.ask("SET kept 1"), "OK");
    cluster.process.kill();
    assert!(client.ask("GET kept").starts_with("!ERR the Ferrite cluster"));
    let back = Ferrite::start(dir.path());
    std::fs::write(&proxy.file, pools(&back.pd)).expect("writes");
    proxy.process.signal(rustix::process::Signal::HUP);
    eventually("the cluster answers again", || client.ask("GET kept") == "1");
    assert_eq!(client.ask("GET counter"), "200");
}

/// Every string command that is served.
fn strings(proxy: &Proxy) {
    let mut client = proxy.client();
    says(
        &mut client,
        &[
            ("SET a 1", "OK"),
            ("GET a", "1"),
            ("GET none", "(nil)"),
            ("SET a 2 NX", "(nil)"),
            ("SET none 2 XX", "(nil)"),
            ("SET a 3 XX GET", "1"),
            ("MSET b 1 c 2 b 3", "OK"),
            ("MGET a b none c", "[3 3 (nil) 2]"),
            ("EXISTS a b none a", "3"),
            ("TOUCH a none", "1"),
            ("INCR n", "1"),
            ("INCRBY n 9", "10"),
            ("DECR n", "9"),
            ("DECRBY n 4", "5"),
            ("INCRBYFLOAT n 0.5", "5.5"),
            ("INCR n", "!ERR value is not an integer or out of range"),
            ("APPEND s Hello", "5"),
            ("APPEND s !", "6"),
            ("STRLEN s", "6"),
            ("GETRANGE s 1 -2", "ello"),
            ("SETRANGE s 5 ?!", "7"),
            ("GETSET s new", "Hello?!"),
            ("GETDEL s", "new"),
            ("SETNX s 1", "1"),
            ("SETNX s 2", "0"),
            ("TYPE s", "string"),
            ("DEL a b none", "2"),
            ("UNLINK c", "1"),
            (
                "LPUSH l x",
                "!ERR command 'lpush' is not served by a pool of a Ferrite cluster",
            ),
            ("PING", "PONG"),
        ],
    );
    // A pipeline keeps the order of what touches one key.
    for number in 0..20 {
        client.command(&format!("SET p {number}"));
        client.command("GET p");
    }
    for number in 0..20 {
        assert_eq!([client.answer(), client.answer()], ["OK".to_owned(), number.to_string()]);
    }
}

#[allow(clippy::disallowed_methods)] // lets a time to live pass, which nobody tells
fn expiry(proxy: &Proxy) {
    let mut client = proxy.client();
    says(
        &mut client,
        &[
            ("SET e x EX 100", "OK"),
            ("TTL e", "100"),
            ("SET e y KEEPTTL", "OK"),
            ("TTL e", "100"),
            ("PERSIST e", "1"),
            ("TTL e", "-1"),
            ("EXPIRE e 50", "1"),
            ("EXPIRE e 60 NX", "0"),
            ("TTL e", "50"),
            ("GETEX e PX 90000", "y"),
            ("TTL e", "90"),
            ("TTL none", "-2"),
            ("SET e x PX 60", "OK"),
            ("SETEX f 100 v", "OK"),
            ("PSETEX g 60 v", "OK"),
            ("PEXPIRE f 60", "1"),
        ],
    );
    std::thread::sleep(Duration::from_millis(80));
    says(
        &mut client,
        &[("MGET e f g", "[(nil) (nil) (nil)]"), ("SET e z NX", "OK"), ("PTTL e", "-1")],
    );
}

fn two_clients_count_together(proxy: &Proxy) {
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                let mut client = proxy.client();
                (0..100).for_each(|_| assert!(!client.ask("INCR counter").starts_with('!')));
            });
        }
    });
    assert_eq!(proxy.client().ask("GET counter"), "200");
}

/// `SCAN` gives every key once, on whichever connection it goes on, and none of another pool.
fn walk(proxy: &Proxy) {
    let mut client = proxy.client();
    let pairs: Vec<_> = (0..250).map(|number| format!("walk{number:03} 1")).collect();
    client.ask(&format!("MSET {}", pairs.join(" ")));
    client.ask("SET walk-gone 1 PX 1");
    let mut found = Vec::new();
    let mut cursor = "0".to_owned();
    loop {
        let page = proxy.client().ask(&format!("SCAN {cursor} MATCH walk* COUNT 40"));
        let (next, keys) = page
            .trim_matches(['[', ']'])
            .split_once(" [")
            .unwrap_or_else(|| panic!("{page}"));
        found.extend(keys.split(' ').filter(|key| !key.is_empty()).map(str::to_owned));
        if next == "0" {
            break;
        }
        cursor = next.to_owned();
    }
    let wanted: Vec<_> = (0..250).map(|number| format!("walk{number:03}")).collect();
    assert_eq!(found, wanted);
    assert!(client.ask("SCAN 77").starts_with("!ERR invalid cursor"));
    assert!(client.ask("SCAN 0 COUNT 0").starts_with("!ERR"));
    assert_eq!(client.ask("SCAN 0 COUNT 1000 TYPE list"), "[0 []]");
}

fn items(proxy: &Proxy) {
    let mut client = Client::connect(&proxy.addrs[1]);
    let mut says = |request: &str, wanted: &[&str]| {
        client.send(format!("{request}\r\n").as_bytes());
        wanted
            .iter()
            .for_each(|wanted| assert_eq!(client.line(), *wanted, "{request}"));
    };
    says("set k 7 0 3\r\nabc", &["STORED"]);
    says("get k none", &["VALUE k 7 3", "abc", "END"]);
    says("add k 0 0 1\r\nx", &["NOT_STORED"]);
    says("replace k 1 0 1\r\n5", &["STORED"]);
    says("incr k 10", &["15"]);
    says("decr k 100", &["0"]);
    says("append k 0 0 1\r\n1", &["STORED"]);
    says("prepend k 0 0 1\r\n2", &["STORED"]);
    says("get k", &["VALUE k 1 3", "201", "END"]);
    says("touch k 100", &["TOUCHED"]);
    says("touch none 100", &["NOT_FOUND"]);
    says("set q 0 0 1 noreply\r\nx\r\nget q", &["VALUE q 0 1", "x", "END"]);
    says("set q 0 -1 1\r\nx", &["STORED"]);
    says("get q", &["END"]);
    client.send(b"gets k\r\n");
    let head = client.line();
    let unique = head.rsplit(' ').next().expect("has words").to_owned();
    assert_eq!([client.line(), client.line()], ["201", "END"]);
    for (unique, wanted) in [(unique.as_str(), "STORED"), (unique.as_str(), "EXISTS")] {
        client.send(format!("cas k 0 0 1 {unique}\r\nz\r\n").as_bytes());
        assert_eq!(client.line(), wanted);
    }
    for (request, wanted) in [("delete k", "DELETED"), ("delete k", "NOT_FOUND")] {
        client.send(format!("{request}\r\n").as_bytes());
        assert_eq!(client.line(), wanted);
    }
}
