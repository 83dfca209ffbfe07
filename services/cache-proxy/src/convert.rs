//! Takes over a configuration of twemproxy: the subset of YAML that its files are written in, read line by line.

use crate::config::{Config, PoolConfig, Protocol};
use crate::hash::Hash;
use crate::ring::Distribution;

/// The TOML that serves like `text`, with a comment for each option that has no counterpart. The error tells the line.
pub fn convert(text: &str) -> Result<String, String> {
    let mut pools: Vec<PoolConfig> = Vec::new();
    let mut notes = Vec::new();
    let mut in_servers = false;
    for (number, raw) in text.lines().enumerate() {
        let fault = |what: &str| format!("line {}: {what}", number + 1);
        let line = without_comment(raw).trim_end();
        let word = line.trim_start();
        if word.is_empty() || word == "---" {
            continue;
        }
        if let Some(server) = word.strip_prefix("- ") {
            let pool = pools.last_mut().filter(|_| in_servers);
            let pool = pool.ok_or_else(|| fault("a list outside of servers"))?;
            pool.servers.push(unquoted(server.trim()).into());
            continue;
        }
        let (key, value) = word.split_once(':').ok_or_else(|| fault("wanted KEY: VALUE"))?;
        let (key, value) = (unquoted(key.trim()), unquoted(value.trim()));
        in_servers = false;
        if line.len() == word.len() {
            pools.push(PoolConfig {
                name: key.into(),
                protocol: Protocol::Memcached,
                // What twemproxy has where nothing is said.
                timeout_client: base::Span::secs(0),
                ..PoolConfig::default()
            });
            continue;
        }
        let pool = pools.last_mut().ok_or_else(|| fault("an option before any pool"))?;
        in_servers = key == "servers";
        set(pool, key, value, &mut notes).map_err(|what| fault(&what))?;
    }
    render(pools, &notes)
}

fn set(pool: &mut PoolConfig, key: &str, value: &str, notes: &mut Vec<String>) -> Result<(), String> {
    match key {
        "servers" => {}
        "listen" => pool.listen = value.into(),
        "redis" if value == "true" => pool.protocol = Protocol::Redis,
        "redis" => pool.protocol = Protocol::Memcached,
        "hash" => pool.hash = word::<Hash>(value).ok_or_else(|| format!("hash {value} is not known here"))?,
        "distribution" => {
            pool.distribution = word::<Distribution>(value).ok_or_else(|| format!("distribution {value} is not known"))?;
        }
        "hash_tag" => pool.hash_tag = value.into(),
        "timeout" => {
            let millis: u64 = value.parse().map_err(|_error| format!("timeout {value} is not a number"))?;
            pool.timeout_request = base::Span::millis(millis.max(10));
            pool.timeout_connect = base::Span::millis(millis.max(10));
        }
        "server_connections" => pool.connections = value.parse().map_err(|_error| format!("{value} is not a number"))?,
        "client_connections" => pool.clients_max = value.parse().map_err(|_error| format!("{value} is not a number"))?,
        "auto_eject_hosts" => pool.eject = value == "true",
        "server_failure_limit" => pool.eject_failures = value.parse().map_err(|_error| format!("{value} is not a number"))?,
        "server_retry_timeout" => notes.push(format!(
            "{}: server_retry_timeout = {value}: a failing server comes back after probe-successes probes instead",
            pool.name
        )),
        "redis_auth" => notes.push(format!(
            "{}: redis_auth: set server-password to it, and a user for clients (ferrite-cache-proxy hash-password)",
            pool.name
        )),
        "redis_db" if value == "0" => {}
        "backlog" | "preconnect" | "tcpkeepalive" | "reuseport" => {
            notes.push(format!("{}: {key} = {value} has no counterpart and is not needed", pool.name));
        }
        _ => notes.push(format!("{}: {key} = {value} has no counterpart: look at it", pool.name)),
    }
    Ok(())
}

/// A value of a list of words, as the configuration writes it.
fn word<T: serde::de::DeserializeOwned>(value: &str) -> Option<T> {
    toml::Value::String(value.into()).try_into().ok()
}

fn unquoted(text: &str) -> &str {
    let inner = text.strip_prefix('"').and_then(|text| text.strip_suffix('"'));
    inner
        .or_else(|| text.strip_prefix('\'').and_then(|text| text.strip_suffix('\'')))
        .unwrap_or(text)
}

/// A `#` at the beginning or after a blank begins a comment.
fn without_comment(line: &str) -> &str {
    let at = line.char_indices().find(|(at, character)| {
        *character == '#'
            && line
                .get(..*at)
                .is_some_and(|before| before.is_empty() || before.ends_with([' ', '\t']))
    });
    at.and_then(|(at, _)| line.get(..at)).unwrap_or(line)
}

/// Only what differs from the defaults, so that people can read it.
fn render(pools: Vec<PoolConfig>, notes: &[String]) -> Result<String, String> {
    let config = Config {
        pools,
        ..Config::default()
    };
    let plain = toml::Table::try_from(PoolConfig::default()).map_err(|error| error.to_string())?;
    let mut list = Vec::new();
    for pool in &config.pools {
        let mut table = toml::Table::try_from(pool).map_err(|error| error.to_string())?;
        table.retain(|key, value| plain.get(key) != Some(value));
        list.push(toml::Value::Table(table));
    }
    let mut root = toml::Table::new();
    root.insert("pools".into(), toml::Value::Array(list));
    let mut text = String::new();
    let faults = config.validate();
    for note in notes.iter().chain(&faults) {
        text += &format!("# {note}\n");
    }
    text += &toml::to_string(&root).map_err(|error| error.to_string())?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = "alpha:\n  listen: 127.0.0.1:22121 # clients\n  hash: fnv1a_64\n  hash_tag: \"{}\"\n  distribution: ketama\n  auto_eject_hosts: true\n  \
                        redis: true\n  server_retry_timeout: 2000\n  server_failure_limit: 1\n  timeout: 400\n  servers:\n   - 127.0.0.1:6379:1 one\n   - \
                        127.0.0.1:6380:2\n\nbeta:\n  listen: 127.0.0.1:22122\n  hash: murmur\n  distribution: modula\n  servers:\n  - 127.0.0.1:11211:1\n";

    #[test]
    fn a_file_of_twemproxy_is_taken_over() {
        let text = convert(FILE).expect("converts");
        let config: Config = toml::from_str(&text).expect("reads");
        assert_eq!(config.validate(), [""; 0], "{text}");
        let [alpha, beta] = config.pools.as_slice() else {
            panic!("{text}");
        };
        assert_eq!((alpha.protocol, alpha.tag()), (Protocol::Redis, Some((b'{', b'}'))));
        assert_eq!(alpha.servers, ["127.0.0.1:6379:1 one", "127.0.0.1:6380:2"]);
        assert_eq!((alpha.eject, alpha.eject_failures), (true, 1));
        assert_eq!(alpha.timeout_request, base::Span::millis(400));
        assert_eq!(
            (beta.protocol, beta.hash, beta.distribution),
            (Protocol::Memcached, Hash::Murmur, Distribution::Modula)
        );
        assert!(text.contains("# alpha: server_retry_timeout"), "{text}");
    }

    #[test]
    fn what_cannot_be_read_is_told_by_line() {
        assert!(convert("a:\n  hash: jenkins9\n").is_err_and(|error| error.starts_with("line 2")));
        assert!(convert("  listen: x\n").is_err_and(|error| error.starts_with("line 1")));
        assert!(convert("a:\n  - x\n").is_err_and(|error| error.starts_with("line 2")));
    }
}
