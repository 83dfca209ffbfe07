//! Metrics in Prometheus' text form, made from the threads' counts when somebody asks.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;

use crate::config::Protocol;
use crate::insight::Insight;
use crate::meter::{BUCKETS, NodeSheet, Sheet, bucket_bound};
use crate::topology::PoolPlan;

/// Sums of a command over all threads.
#[derive(Default)]
struct CommandSums {
    requests: u64,
    errors: u64,
    micros: u64,
    buckets: [u64; BUCKETS],
}

/// All metrics.
pub fn render(insight: &Insight, plans: &[Arc<PoolPlan>]) -> String {
    let mut page = String::new();
    pools(&mut page, insight);
    nodes(&mut page, insight, plans);
    commands(&mut page, insight, plans);
    page
}

fn head(page: &mut String, name: &str, kind: &str, help: &str) {
    let _ = writeln!(
        page,
        "# HELP ferrite_cache_proxy_{name} {help}\n# TYPE ferrite_cache_proxy_{name} {kind}"
    );
}

fn escaped(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

type PoolFigure = (&'static str, &'static str, &'static str, fn(&Sheet) -> u64);

const POOL_FIGURES: &[PoolFigure] = &[
    ("clients", "gauge", "Clients that are connected.", |sheet| sheet.clients.get()),
    ("clients_total", "counter", "Clients that connected.", |sheet| {
        sheet.clients_total.get()
    }),
    ("private_connections", "gauge", "Connections of clients' own.", |sheet| {
        sheet.private.get()
    }),
    ("received_bytes_total", "counter", "Bytes from clients.", |sheet| {
        sheet.bytes_in.get()
    }),
    ("sent_bytes_total", "counter", "Bytes to clients.", |sheet| {
        sheet.bytes_out.get()
    }),
    (
        "big_total",
        "counter",
        "Requests and replies of at least server.big.",
        |sheet| sheet.big.get(),
    ),
    (
        "rate_limited_total",
        "counter",
        "Requests refused for their user's rate.",
        |sheet| sheet.rate_limited.get(),
    ),
    (
        "malformed_total",
        "counter",
        "Clients closed for malformed requests.",
        |sheet| sheet.malformed.get(),
    ),
    (
        "redirects_total",
        "counter",
        "Requests that a server sent on to another.",
        |sheet| sheet.redirects.get(),
    ),
    ("mirrored_total", "counter", "Requests that were mirrored.", |sheet| {
        sheet.mirrored.get()
    }),
    (
        "hedges_total",
        "counter",
        "Reads that were asked of another server as well.",
        |sheet| sheet.hedges.get(),
    ),
];

fn pools(page: &mut String, insight: &Insight) {
    let rows = insight.pools();
    for (name, kind, help, of) in POOL_FIGURES {
        let mut sums = BTreeMap::<&str, u64>::new();
        for (pool, sheet) in &rows {
            *sums.entry(pool).or_default() += of(sheet);
        }
        head(page, name, kind, help);
        for (pool, sum) in sums {
            let _ = writeln!(page, "ferrite_cache_proxy_{name}{{pool=\"{}\"}} {sum}", escaped(pool));
        }
    }
}

type NodeFigure = (&'static str, &'static str, &'static str, fn(&NodeSheet) -> u64);

const NODE_FIGURES: &[NodeFigure] = &[
    ("server_requests_total", "counter", "Requests sent to a server.", |sheet| {
        sheet.requests.get()
    }),
    (
        "server_failures_total",
        "counter",
        "Connections to a server that failed.",
        |sheet| sheet.failures.get(),
    ),
    (
        "server_timeouts_total",
        "counter",
        "Of them, those for want of a reply in time.",
        |sheet| sheet.timeouts.get(),
    ),
    (
        "server_refused_total",
        "counter",
        "Requests refused since too many were in flight.",
        |sheet| sheet.refused.get(),
    ),
    ("server_in_flight", "gauge", "Requests that wait for a server.", |sheet| {
        sheet.in_flight.get()
    }),
    ("server_connections", "gauge", "Connections to a server.", |sheet| {
        sheet.connections.get()
    }),
    (
        "server_connects_total",
        "counter",
        "Connections to a server that were begun.",
        |sheet| sheet.connects.get(),
    ),
    ("server_received_bytes_total", "counter", "Bytes from a server.", |sheet| {
        sheet.bytes_in.get()
    }),
    ("server_sent_bytes_total", "counter", "Bytes to a server.", |sheet| {
        sheet.bytes_out.get()
    }),
];

fn nodes(page: &mut String, insight: &Insight, plans: &[Arc<PoolPlan>]) {
    let rows = insight.nodes();
    for (name, kind, help, of) in NODE_FIGURES {
        let mut sums = BTreeMap::<(&str, &str), u64>::new();
        for (pool, addr, sheet) in &rows {
            *sums.entry((pool, addr)).or_default() += of(sheet);
        }
        head(page, name, kind, help);
        for ((pool, addr), sum) in sums {
            let (pool, addr) = (escaped(pool), escaped(addr));
            let _ = writeln!(page, "ferrite_cache_proxy_{name}{{pool=\"{pool}\",server=\"{addr}\"}} {sum}");
        }
    }
    head(
        page,
        "server_healthy",
        "gauge",
        "Whether a server is healthy by probes and requests.",
    );
    for plan in plans {
        for node in &plan.topology.nodes {
            let (pool, addr) = (escaped(&plan.config.name), escaped(&node.addr));
            let _ = writeln!(
                page,
                "ferrite_cache_proxy_server_healthy{{pool=\"{pool}\",server=\"{addr}\"}} {}",
                u8::from(node.is_healthy)
            );
        }
    }
}

fn commands(page: &mut String, insight: &Insight, plans: &[Arc<PoolPlan>]) {
    let mut sums = BTreeMap::<(String, String), CommandSums>::new();
    for (pool, sheet) in insight.pools() {
        let plan = plans.iter().find(|plan| plan.config.name == pool);
        for (at, command) in sheet.commands.iter().enumerate() {
            let requests = command.requests.get();
            if requests == 0 {
                continue;
            }
            let sum = sums.entry((pool.clone(), name_of(plan, at))).or_default();
            sum.requests += requests;
            sum.errors += command.errors.get();
            sum.micros += command.micros.get();
            for (sum, bucket) in sum.buckets.iter_mut().zip(&command.buckets) {
                *sum += bucket.get();
            }
        }
    }
    let label = |(pool, command): &(String, String)| format!("pool=\"{}\",command=\"{}\"", escaped(pool), escaped(command));
    head(page, "errors_total", "counter", "Error replies by command.");
    for (key, sum) in &sums {
        let _ = writeln!(page, "ferrite_cache_proxy_errors_total{{{}}} {}", label(key), sum.errors);
    }
    head(
        page,
        "request_seconds",
        "histogram",
        "Time from a request to its reply by command.",
    );
    for (key, sum) in &sums {
        let label = label(key);
        let mut below = 0;
        for (at, count) in sum.buckets.iter().enumerate().take(BUCKETS - 1) {
            below += count;
            let bound = bucket_bound(at) as f64 / 1e6;
            let _ = writeln!(
                page,
                "ferrite_cache_proxy_request_seconds_bucket{{{label},le=\"{bound}\"}} {below}"
            );
        }
        let seconds = sum.micros as f64 / 1e6;
        let _ = writeln!(
            page,
            "ferrite_cache_proxy_request_seconds_bucket{{{label},le=\"+Inf\"}} {0}\nferrite_cache_proxy_request_seconds_sum{{{label}}} {seconds}\n\
             ferrite_cache_proxy_request_seconds_count{{{label}}} {0}",
            sum.requests
        );
    }
}

fn name_of(plan: Option<&Arc<PoolPlan>>, at: usize) -> String {
    let Some(plan) = plan else {
        return "removed".into();
    };
    if plan.config.protocol == Protocol::Memcached {
        return crate::memcached::COUNTED.get(at).copied().unwrap_or("other").into();
    }
    let command = plan.table.commands().get(at);
    command.map_or_else(|| "other".into(), |command| command.name.clone())
}
