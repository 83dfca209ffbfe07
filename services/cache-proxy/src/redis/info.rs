//! `INFO`, `SLOWLOG`, `HOTKEYS`, `CLIENT LIST`, and the proxy as a cluster of one.

use std::fmt::Write as _;
use std::rc::Rc;

use super::local::REDIS_VERSION;
use super::{Flow, Request, Session};
use crate::hash::{SLOTS, slot};
use crate::insight::Card;
use crate::meter::Tally;
use crate::pool::View;
use crate::resp::number;
use crate::resp::write;

/// What the proxy calls itself in a cluster: there is one, whatever the servers do.
const NODE_ID: &str = "0000000000000000000000000000000000000001";

/// A line of `CLIENT LIST`.
pub(super) fn client_line(card: &Card) -> String {
    let told = card.told.lock();
    let age = base::WallTime::now().seconds().saturating_sub(card.since.seconds());
    format!(
        "id={} addr={} laddr={} name={} age={age} db={} user={} lib-name={} lib-ver={} resp={}\n",
        card.id, card.addr, card.local, told.name, told.db, told.user, told.library, told.version, told.resp
    )
}

impl Session {
    pub(super) fn info(&self, view: &View, request: Request<'_>, tally: Tally) -> Flow {
        let wanted: Vec<String> = (1..request.args.len())
            .map(|at| String::from_utf8_lossy(request.arg(at)).to_lowercase())
            .collect();
        let is_wanted = |section: &str| {
            wanted.is_empty()
                || wanted
                    .iter()
                    .any(|word| word == section || matches!(word.as_str(), "all" | "everything" | "default"))
        };
        let insight = &self.pool.meter.insight;
        let mut text = String::new();
        if is_wanted("server") {
            let mode = if view.topology.is_cluster() { "cluster" } else { "standalone" };
            let _ = write!(
                text,
                "# Server\r\nredis_version:{REDIS_VERSION}\r\nredis_mode:{mode}\r\nproxy:ferrite-cache-proxy\r\nproxy_version:{}\r\npool:{}\r\nprocess_id:{}\r\n\r\n",
                env!("CARGO_PKG_VERSION"),
                view.config.name,
                std::process::id()
            );
        }
        let sheets: Vec<_> = insight
            .pools()
            .into_iter()
            .filter(|(pool, _)| *pool == view.config.name)
            .collect();
        let sum = |of: fn(&crate::meter::Sheet) -> u64| sheets.iter().map(|(_, sheet)| of(sheet)).sum::<u64>();
        if is_wanted("clients") {
            let _ = write!(
                text,
                "# Clients\r\nconnected_clients:{}\r\nmaxclients:{}\r\nprivate_connections:{}\r\n\r\n",
                sum(|sheet| sheet.clients.get()),
                view.config.clients_max,
                sum(|sheet| sheet.private.get())
            );
        }
        if is_wanted("stats") {
            let requests = sum(|sheet| sheet.commands.iter().map(|command| command.requests.get()).sum());
            let errors = sum(|sheet| sheet.commands.iter().map(|command| command.errors.get()).sum());
            let _ = write!(
                text,
                "# Stats\r\ntotal_connections_received:{}\r\ntotal_commands_processed:{requests}\r\ntotal_error_replies:{errors}\r\n\
                 total_net_input_bytes:{}\r\ntotal_net_output_bytes:{}\r\nredirections:{}\r\nrate_limited:{}\r\n\r\n",
                sum(|sheet| sheet.clients_total.get()),
                sum(|sheet| sheet.bytes_in.get()),
                sum(|sheet| sheet.bytes_out.get()),
                sum(|sheet| sheet.redirects.get()),
                sum(|sheet| sheet.rate_limited.get())
            );
        }
        if is_wanted("replication") {
            text += "# Replication\r\nrole:master\r\nconnected_slaves:0\r\n\r\n";
        }
        if is_wanted("cluster") {
            let _ = write!(
                text,
                "# Cluster\r\ncluster_enabled:{}\r\n\r\n",
                u8::from(view.topology.is_cluster())
            );
        }
        if is_wanted("servers") {
            text += "# Servers\r\n";
            for (at, node) in view.topology.nodes.iter().enumerate() {
                let _ = write!(
                    text,
                    "server{at}:addr={},healthy={},role={}\r\n",
                    node.addr,
                    u8::from(node.is_healthy),
                    if node.replica_of.is_some() { "replica" } else { "primary" }
                );
            }
        }
        self.say(tally, |out| write::bulk(out, text.as_bytes()))
    }

    pub(super) fn slowlog(&self, view: &View, request: Request<'_>, name: &str, tally: Tally) -> Flow {
        let insight = &self.pool.meter.insight;
        let pool = &view.config.name;
        match name {
            "slowlog|len" => {
                let count = insight.slow_entries(pool).len();
                self.say(tally, |out| write::integer(out, count as i64))
            }
            "slowlog|reset" => {
                insight.slow_reset(pool);
                self.say(tally, |out| write::simple(out, "OK"))
            }
            "slowlog|get" => {
                let limit = match request.args.len() {
                    2 => Some(10),
                    _ => number(request.arg(2)),
                };
                let Some(limit) = limit else {
                    return self.error("ERR value is not an integer or out of range");
                };
                let mut entries = insight.slow_entries(pool);
                entries.truncate(usize::try_from(limit).unwrap_or(usize::MAX));
                let table = &view.plan.table;
                self.say(tally, |out| {
                    write::array(out, entries.len());
                    for entry in &entries {
                        let command = table.commands().get(usize::from(entry.request.command));
                        write::array(out, 6);
                        write::integer(out, entry.id as i64);
                        write::integer(out, entry.seconds as i64);
                        write::integer(out, entry.request.micros as i64);
                        write::array(out, 2);
                        write::bulk(out, command.map_or("?", |command| command.name.as_str()).as_bytes());
                        write::bulk(out, &entry.request.key);
                        write::bulk(out, b"");
                        write::bulk(out, b"");
                    }
                })
            }
            _ => self.error("ERR unknown subcommand of SLOWLOG: wanted GET, LEN or RESET"),
        }
    }

    /// `HOTKEYS [count]` and `HOTKEYS BIG [count]`: pairs of key and requests, or key and bytes.
    pub(super) fn hotkeys(&self, request: Request<'_>, tally: Tally) -> Flow {
        let is_big = request.is(1, "big");
        let at = if is_big { 2 } else { 1 };
        let limit = match request.args.len() {
            count if count > at => number(request.arg(at)).and_then(|limit| usize::try_from(limit).ok()),
            _ => Some(10),
        };
        let Some(limit) = limit else {
            return self.error("ERR wanted HOTKEYS [BIG] [COUNT]");
        };
        let (hot, big) = self.pool.meter.insight.hot(&self.view.config.name);
        let mut ranked = if is_big { big } else { hot };
        ranked.truncate(limit);
        self.say(tally, |out| {
            write::array(out, 2 * ranked.len());
            for (key, value) in &ranked {
                write::bulk(out, key);
                write::integer(out, *value as i64);
            }
        })
    }

    /// To clients that know clusters the proxy is a cluster of one server that has all slots.
    pub(super) fn cluster(&self, view: &Rc<View>, request: Request<'_>, name: &str, tally: Tally) -> Flow {
        if name == "cluster|keyslot" {
            return self.say(tally, |out| write::integer(out, i64::from(slot(request.arg(2)))));
        }
        if !view.topology.is_cluster() {
            return self.error("ERR This instance has cluster support disabled");
        }
        let (host, port) = self.card.local.rsplit_once(':').unwrap_or(("", "0"));
        let host = host.trim_matches(['[', ']']);
        let port_number = port.parse().unwrap_or(0);
        match name {
            "cluster|slots" => self.say(tally, |out| {
                write::array(out, 1);
                write::array(out, 3);
                write::integer(out, 0);
                write::integer(out, SLOTS as i64 - 1);
                write::array(out, 3);
                write::bulk(out, host.as_bytes());
                write::integer(out, port_number);
                write::bulk(out, NODE_ID.as_bytes());
            }),
            "cluster|shards" => self.shards(host, port_number, tally),
            "cluster|nodes" => {
                let line = format!(
                    "{NODE_ID} {host}:{port}@{port} myself,master - 0 0 1 connected 0-{}\n",
                    SLOTS - 1
                );
                self.say(tally, |out| write::bulk(out, line.as_bytes()))
            }
            "cluster|info" => {
                let text = format!(
                    "cluster_enabled:1\r\ncluster_state:ok\r\ncluster_slots_assigned:{SLOTS}\r\ncluster_slots_ok:{SLOTS}\r\n\
                     cluster_slots_pfail:0\r\ncluster_slots_fail:0\r\ncluster_known_nodes:1\r\ncluster_size:1\r\ncluster_current_epoch:1\r\n\
                     cluster_my_epoch:1\r\n"
                );
                self.say(tally, |out| write::bulk(out, text.as_bytes()))
            }
            "cluster|myid" => self.say(tally, |out| write::bulk(out, NODE_ID.as_bytes())),
            _ => self.error(&format!("ERR '{}' is not served by the proxy", name.replace('|', " "))),
        }
    }

    fn shards(&self, host: &str, port: i64, tally: Tally) -> Flow {
        let version = self.version;
        self.say(tally, |out| {
            write::array(out, 1);
            write::map(out, version, 2);
            write::bulk(out, b"slots");
            write::array(out, 2);
            write::integer(out, 0);
            write::integer(out, SLOTS as i64 - 1);
            write::bulk(out, b"nodes");
            write::array(out, 1);
            write::map(out, version, 7);
            let texts = [
                ("id", NODE_ID),
                ("endpoint", host),
                ("ip", host),
                ("role", "master"),
                ("health", "online"),
            ];
            for (key, value) in texts {
                write::bulk(out, key.as_bytes());
                write::bulk(out, value.as_bytes());
            }
            write::bulk(out, b"port");
            write::integer(out, port);
            write::bulk(out, b"replication-offset");
            write::integer(out, 0);
        })
    }
}
