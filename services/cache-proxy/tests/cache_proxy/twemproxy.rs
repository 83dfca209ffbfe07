//! Key for key as twemproxy has it: what one wrote the other finds.

use cache_proxy::config::Config;
use cache_proxy::hash::Hash;

use crate::harness::*;

/// Keys of many shapes, bytes above 0x7f among them.
fn keys() -> Vec<Vec<u8>> {
    let mut keys: Vec<Vec<u8>> = (0..150).map(|number| format!("key:{number}").into_bytes()).collect();
    keys.extend((0..30).map(|number| format!("pre{{tag{number}}}post").into_bytes()));
    keys.extend((0..20u8).map(|number| vec![b'x', 0x80 + number, 0xff, number + b'a']));
    keys
}

#[test]
fn every_hash_and_distribution_finds_what_twemproxy_wrote() {
    let servers = [redis(), redis(), redis()];
    let weights = [1, 3, 2];
    let mut yaml = String::new();
    let mut ports = Vec::new();
    for hash in Hash::ALL {
        for distribution in ["ketama", "modula"] {
            let port = free_port();
            let name = toml::Value::try_from(hash).expect("is a word");
            let name = name.as_str().expect("is a word").to_owned();
            yaml +=
                &format!("{name}_{distribution}:\n  listen: 127.0.0.1:{port}\n  hash: {name}\n  distribution: {distribution}\n");
            yaml += "  hash_tag: \"{}\"\n  redis: true\n  timeout: 2000\n  servers:\n";
            for (at, server) in servers.iter().enumerate() {
                let label = if at == 1 { " one" } else { "" };
                yaml += &format!("   - {}:{}{label}\n", server.addr, weights[at]);
            }
            ports.push(port);
        }
    }
    let peer = nutcracker(&yaml, ports[0]);
    // The proxy runs on twemproxy's own file, converted; its listeners get ports of their own.
    let converted = cache_proxy::convert::convert(&yaml).expect("converts");
    let mut config: Config = toml::from_str(&converted).expect("reads");
    config.server.threads = 1;
    config.pools.iter_mut().for_each(|pool| pool.listen = "127.0.0.1:0".into());
    let proxy = Proxy::start(&config.to_toml());
    let keys = keys();
    for (at, port) in ports.iter().enumerate() {
        let pool = &config.pools[at].name;
        let mut theirs = Client::connect(&format!("127.0.0.1:{port}"));
        let mut ours = Client::connect(&proxy.addrs[at]);
        for (number, key) in keys.iter().enumerate() {
            let value = format!("{pool}:{number}");
            let mut set = Vec::new();
            cache_proxy::resp::write::request(&mut set, &[b"SET", key, value.as_bytes()]);
            theirs.send(&set);
            assert_eq!(theirs.answer(), "OK");
            let mut get = Vec::new();
            cache_proxy::resp::write::request(&mut get, &[b"GET", key]);
            ours.send(&get);
            assert_eq!(ours.answer(), value, "{pool}: {}", key.escape_ascii());
        }
    }
    drop(peer);
}
