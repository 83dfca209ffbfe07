//! Faults of a configuration, all at once.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use base::{ByteSize, Span};

use super::{Backend, Config, PoolConfig, Protocol, ReadPolicy, ServerConfig, ServerName, UserConfig};
use crate::command::Table;
use crate::users;

/// What was found so far.
#[derive(Default)]
struct Faults(Vec<String>);

impl Faults {
    fn wanted(&mut self, holds: bool, fault: impl FnOnce() -> String) {
        if !holds {
            self.0.push(fault());
        }
    }

    fn within(&mut self, name: &str, value: usize, low: usize, high: usize) {
        self.wanted((low..=high).contains(&value), || {
            format!("{name} = {value}: wanted {low} to {high}")
        });
    }

    fn span(&mut self, name: &str, value: Span, low: Span, high: Span) {
        self.wanted((low..=high).contains(&value), || {
            format!("{name} = {value}: wanted {low} to {high}")
        });
    }

    fn size(&mut self, name: &str, value: ByteSize, low: ByteSize, high: ByteSize) {
        self.wanted((low..=high).contains(&value), || {
            format!("{name} = {value}: wanted {low} to {high}")
        });
    }
}

impl Config {
    /// Every fault of the values at once.
    pub fn validate(&self) -> Vec<String> {
        let mut faults = Faults::default();
        self.server.validate(&mut faults);
        faults.wanted(!self.pools.is_empty(), || "pools: wanted at least one [[pools]]".into());
        let mut names = BTreeSet::new();
        let mut listeners = BTreeSet::new();
        for pool in &self.pools {
            faults.wanted(names.insert(&pool.name), || {
                format!("pools.name = {:?}: wanted each name once", pool.name)
            });
            faults.wanted(pool.listen.ends_with(":0") || listeners.insert(&pool.listen), || {
                format!("pool {:?}: listen = {:?}: another pool listens there", pool.name, pool.listen)
            });
            pool.validate(&mut faults, self.server.allow_insecure);
            self.validate_mirror(pool, &mut faults);
        }
        if let Err(error) = base::log::check_filter(&self.log.level) {
            faults.0.push(format!(
                "log.level = {:?}: wanted a level or a filter ({error})",
                self.log.level
            ));
        }
        faults.0
    }

    fn validate_mirror(&self, pool: &PoolConfig, faults: &mut Faults) {
        if pool.mirror.is_empty() {
            return;
        }
        let shadow = self.pools.iter().find(|other| other.name == pool.mirror);
        let fits = shadow.is_some_and(|shadow| {
            shadow.name != pool.name
                && shadow.mirror.is_empty()
                && (shadow.protocol, pool.protocol) == (Protocol::Redis, Protocol::Redis)
                && shadow.backend != Backend::Ferrite
                && pool.backend != Backend::Ferrite
        });
        faults.wanted(fits, || {
            format!(
                "pool {:?}: mirror = {:?}: wanted another redis pool, of servers, that has no mirror itself",
                pool.name, pool.mirror
            )
        });
    }
}

impl ServerConfig {
    fn validate(&self, faults: &mut Faults) {
        faults.within("server.threads", self.threads, 0, 256);
        faults.wanted(
            self.admin_addr.is_empty() || self.admin_addr.parse::<SocketAddr>().is_ok(),
            || format!("server.admin-addr = {:?}: wanted IP:PORT or nothing", self.admin_addr),
        );
        let is_open = self
            .admin_addr
            .parse::<SocketAddr>()
            .is_ok_and(|addr| !addr.ip().is_loopback());
        faults.wanted(!is_open || self.allow_insecure, || {
            format!(
                "server.admin-addr = {}: other machines reach it: wanted a loopback address, or server.allow-insecure",
                self.admin_addr
            )
        });
        faults.span("server.drain", self.drain, Span::secs(0), Span::secs(60));
    }
}

impl PoolConfig {
    fn validate(&self, faults: &mut Faults, allow_insecure: bool) {
        let name = |option: &str| format!("pool {:?}: {option}", self.name);
        faults.wanted(!self.name.is_empty() && self.name.len() <= 64, || {
            "pools.name: wanted 1 to 64 characters".into()
        });
        self.validate_listen(faults, allow_insecure);
        self.validate_servers(faults);
        faults.wanted(self.hash_tag.is_empty() || self.tag().is_some(), || {
            format!(
                "{} = {:?}: wanted two characters of ASCII, or nothing",
                name("hash-tag"),
                self.hash_tag
            )
        });
        faults.within(&name("databases"), self.databases as usize, 1, 1024);
        faults.within(&name("connections"), self.connections, 1, 64);
        faults.within(&name("in-flight-max"), self.in_flight_max, 1, 1_000_000);
        faults.within(&name("pipeline-max"), self.pipeline_max, 1, 100_000);
        faults.within(&name("clients-max"), self.clients_max, 1, 1_000_000);
        faults.within(&name("private-max"), self.private_max, 1, 1_000_000);
        faults.within(&name("eject-failures"), self.eject_failures as usize, 1, 1000);
        faults.within(&name("probe-successes"), self.probe_successes as usize, 1, 1000);
        faults.size(&name("request-max"), self.request_max, ByteSize::kib(1), ByteSize::gib(1));
        faults.size(&name("reply-max"), self.reply_max, ByteSize::kib(1), ByteSize::gib(4));
        let (ms, minutes) = (Span::millis, |count: u64| Span::secs(60 * count));
        faults.span(&name("timeout-connect"), self.timeout_connect, ms(10), minutes(1));
        faults.span(&name("timeout-request"), self.timeout_request, ms(10), minutes(10));
        faults.span(&name("probe-interval"), self.probe_interval, ms(10), minutes(10));
        faults.span(&name("refresh-interval"), self.refresh_interval, ms(100), minutes(60));
        self.validate_tls(faults);
        let mut names = BTreeSet::new();
        for user in &self.users {
            faults.wanted(names.insert(&user.name), || {
                format!("{}: {:?} stands there twice", name("users"), user.name)
            });
            user.validate(&self.name, faults);
        }
    }

    fn validate_listen(&self, faults: &mut Faults, allow_insecure: bool) {
        let Ok(addr) = self.listen.parse::<SocketAddr>() else {
            faults
                .0
                .push(format!("pool {:?}: listen = {:?}: wanted IP:PORT", self.name, self.listen));
            return;
        };
        let is_guarded = !self.users.is_empty() && self.users.iter().all(|user| !user.password.is_empty());
        let is_open = !addr.ip().is_loopback() && !is_guarded && self.tls_client_ca.as_os_str().is_empty();
        faults.wanted(!is_open || allow_insecure, || {
            format!(
                "pool {:?}: listen = {addr}: other machines reach it and no password is asked for: wanted users, tls-client-ca, a loopback \
                 address, or server.allow-insecure",
                self.name
            )
        });
    }

    fn validate_servers(&self, faults: &mut Faults) {
        let name = &self.name;
        faults.wanted(!self.servers.is_empty(), || {
            format!("pool {name:?}: servers: wanted at least one")
        });
        faults.wanted(self.servers.len() <= 4096, || {
            format!("pool {name:?}: servers: wanted at most 4096")
        });
        for server in &self.servers {
            if let Err(fault) = ServerName::parse(server) {
                faults.0.push(format!("pool {name:?}: servers: {fault}"));
            }
        }
        let is_redis_only = matches!(self.backend, Backend::Cluster | Backend::Sentinel);
        faults.wanted(!is_redis_only || self.protocol == Protocol::Redis, || {
            format!("pool {name:?}: backend: a cluster and sentinels want protocol = \"redis\"")
        });
        faults.wanted(self.backend != Backend::Sentinel || !self.sentinel_master.is_empty(), || {
            format!("pool {name:?}: sentinel-master: wanted the name of the master that the sentinels watch")
        });
        let has_replicas = matches!(self.backend, Backend::Cluster | Backend::Sentinel);
        faults.wanted(self.reads == ReadPolicy::Primary || has_replicas, || {
            format!("pool {name:?}: reads: replicas are known of a cluster and of sentinels alone")
        });
        let (hedge, most) = (self.hedge_after, self.timeout_request);
        faults.wanted(hedge.0.is_zero() || (Span::millis(1)..=most).contains(&hedge), || {
            format!("pool {name:?}: hedge-after = {hedge}: wanted 1ms to timeout-request ({most}), or 0s")
        });
        faults.wanted(hedge.0.is_zero() || self.reads != ReadPolicy::Primary, || {
            format!("pool {name:?}: hedge-after: wanted reads = \"prefer-replica\" or \"nearest\", since a replica may be asked")
        });
        faults.wanted(!self.eject || self.backend == Backend::Servers, || {
            format!("pool {name:?}: eject: only backend = \"servers\" has a ring to leave")
        });
        faults.wanted(self.ferrite_prefix.is_empty() || self.backend == Backend::Ferrite, || {
            format!("pool {name:?}: ferrite-prefix: wanted backend = \"ferrite\"")
        });
    }

    fn validate_tls(&self, faults: &mut Faults) {
        let name = &self.name;
        let (certificate, key) = (&self.tls_certificate, &self.tls_key);
        faults.wanted(certificate.as_os_str().is_empty() == key.as_os_str().is_empty(), || {
            format!("pool {name:?}: wanted both tls-certificate and tls-key, or neither")
        });
        faults.wanted(
            self.tls_client_ca.as_os_str().is_empty() || !certificate.as_os_str().is_empty(),
            || format!("pool {name:?}: tls-client-ca: wanted tls-certificate"),
        );
        let (certificate, key) = (&self.server_tls_certificate, &self.server_tls_key);
        faults.wanted(certificate.as_os_str().is_empty() == key.as_os_str().is_empty(), || {
            format!("pool {name:?}: wanted both server-tls-certificate and server-tls-key, or neither")
        });
        faults.wanted(!self.server_tls || !self.server_tls_ca.as_os_str().is_empty(), || {
            format!("pool {name:?}: server-tls = true: wanted server-tls-ca")
        });
        if let Err(error) = crate::tls::acceptor(self) {
            faults.0.push(format!("pool {name:?}: {error}"));
        }
        if let Err(error) = crate::tls::connector(self) {
            faults.0.push(format!("pool {name:?}: {error}"));
        }
    }
}

impl UserConfig {
    fn validate(&self, pool: &str, faults: &mut Faults) {
        let name = format!("pool {pool:?}: user {:?}", self.name);
        faults.wanted(!self.name.is_empty(), || {
            format!("{name}: wanted a name; \"default\" is who gives a password alone")
        });
        faults.wanted(
            self.password.is_empty() || users::Secret::parse(&self.password).is_some(),
            || format!("{name}: password: wanted what `ferrite-cache-proxy hash-password` prints"),
        );
        let table = Table::redis();
        for word in &self.commands {
            faults.wanted(users::is_known(&table, word), || {
                format!("{name}: commands: {word:?}: wanted a command, or a group with @")
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_fault_is_told_at_once() {
        let text = "[server]\nthreads = 1000\n[[pools]]\nname = \"a\"\nlisten = \"0.0.0.0:1\"\nservers = [\"x\"]\nhash-tag = \"{\"\n\
                    [[pools]]\nname = \"a\"\nlisten = \"127.0.0.1:7\"\nbackend = \"sentinel\"\ntimeout-request = \"1ms\"\n\
                    [[pools.users]]\nname = \"u\"\npassword = \"secret\"\ncommands = [\"nope\"]\n[log]\nlevel = \"inof\"\n";
        let config: Config = toml::from_str(text).expect("reads");
        let faults = config.validate().join("\n");
        for part in [
            "server.threads",
            "no password",
            "HOST:PORT",
            "hash-tag",
            "each name once",
            "sentinel-master",
            "wanted at least one",
            "timeout-request",
            "hash-password",
            "\"nope\"",
            "log.level",
        ] {
            assert!(faults.contains(part), "{part} not in:\n{faults}");
        }
    }

    #[test]
    fn unknown_keys_are_refused() {
        let error = toml::from_str::<Config>("[[pools]]\nserver = [\"a:1\"]\n").expect_err("no such option");
        assert!(error.to_string().contains("servers"), "{error}");
    }

    #[test]
    fn servers_are_read_as_twemproxy_writes_them() {
        let parse = |text| ServerName::parse(text).map(|server| (server.addr, server.weight, server.ring_name));
        assert_eq!(parse("a:1"), Ok(("a:1".into(), 1, "a:1".into())));
        assert_eq!(parse("a:1:5 one"), Ok(("a:1".into(), 5, "one".into())));
        assert_eq!(parse("a:11211:2"), Ok(("a:11211".into(), 2, "a".into())));
        assert_eq!(parse("[::1]:7:2"), Ok(("[::1]:7".into(), 2, "[::1]:7".into())));
        for bad in ["", "a", "a:0", "a:x", "a:1:0", "a:1:x", ":1"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }
}
