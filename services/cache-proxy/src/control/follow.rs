//! Follows what servers tell of each other: a cluster's slots, the sentinels' master, commands of modules.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;

use super::probe::{connect, probe};
use super::{Control, with};
use crate::config::ReadPolicy;
use crate::hash::SLOTS;
use crate::resp::reply::Value;
use crate::topology::{NOBODY, NodeInfo, PoolPlan, Router, Topology};

/// Redirections come in flocks; the cluster is asked this often at most.
const PAUSE: Duration = Duration::from_millis(50);

/// Asks a cluster for its slots, on a period and when a redirection or a failure tells that they changed.
pub async fn cluster(control: Arc<Control>, plan: Arc<PoolPlan>) {
    loop {
        match ask_cluster(&control, &plan).await {
            Ok(mut topology) => {
                measure(&mut topology, &plan).await;
                publish(&control, &plan, topology);
            }
            Err(error) => tracing::warn!(
                pool = plan.config.name,
                error = format!("{error:#}"),
                "ask the cluster for its slots"
            ),
        }
        rest(&plan).await;
    }
}

async fn rest(plan: &PoolPlan) {
    tokio::time::sleep(PAUSE).await;
    let _period_or_call = tokio::time::timeout(plan.config.refresh_interval.0, plan.stale.notified()).await;
}

fn publish(control: &Control, plan: &Arc<PoolPlan>, topology: Topology) {
    let old = control.topology(plan);
    let is_same = match (&old.router, &topology.router) {
        (Router::Slots(old), Router::Slots(new)) => old == new,
        (Router::One(old), Router::One(new)) => old == new,
        _ => false,
    };
    // The time of probes changes always; it matters only where reads go to the nearest.
    let is_same = is_same && old.nodes.len() == topology.nodes.len() && {
        let nears = plan.config.reads == ReadPolicy::Nearest;
        let pairs = old.nodes.iter().zip(&topology.nodes);
        pairs.into_iter().all(|(a, b)| {
            (&a.addr, a.replica_of, a.is_healthy) == (&b.addr, b.replica_of, b.is_healthy)
                && !(nears && a.probe_micros != b.probe_micros)
        })
    };
    if !is_same {
        tracing::info!(
            pool = plan.config.name,
            servers = topology.nodes.len(),
            "the topology changed"
        );
        control.set_topology(plan, topology);
    }
}

/// Probes the nodes where reads are to go to replicas.
async fn measure(topology: &mut Topology, plan: &PoolPlan) {
    if plan.config.reads == ReadPolicy::Primary {
        return;
    }
    let probes = topology.nodes.iter().map(|node| probe(&node.addr, plan));
    let probes = futures::future::join_all(probes).await;
    for (node, took) in topology.nodes.iter_mut().zip(probes) {
        node.is_healthy = took.is_some();
        node.probe_micros = took.map_or(u64::MAX, |took| took.as_micros() as u64);
    }
}

/// Asks who is known first, then those that the configuration names; the first sound answer counts.
async fn ask_cluster(control: &Control, plan: &PoolPlan) -> anyhow::Result<Topology> {
    let known = control.topology(plan);
    let seeds = plan.config.server_names().into_iter().map(|name| name.addr);
    let addrs = known
        .nodes
        .iter()
        .filter(|node| node.replica_of.is_none())
        .map(|node| node.addr.clone())
        .chain(seeds);
    let mut last = anyhow::anyhow!("no server is known");
    for addr in addrs {
        let asked = tokio::time::timeout(plan.config.timeout_connect.0, ask_slots(&addr, plan)).await;
        match asked.context("no answer in time").and_then(|asked| asked) {
            Ok(topology) => return Ok(topology),
            Err(error) => last = error.context(addr),
        }
    }
    Err(last)
}

async fn ask_slots(addr: &str, plan: &PoolPlan) -> anyhow::Result<Topology> {
    let answer = connect(addr, plan).await?.value(&[b"CLUSTER", b"SLOTS"]).await?;
    let from = addr.rsplit_once(':').map_or(addr, |(host, _port)| host);
    let topology = read_slots(&answer, from).context("its answer to CLUSTER SLOTS cannot be read")?;
    anyhow::ensure!(!topology.nodes.is_empty(), "it knows no slots");
    Ok(topology)
}

/// Of an answer to `CLUSTER SLOTS`. `from`: the host that answered, which stands for hosts left out.
fn read_slots(answer: &Value, from: &str) -> Option<Topology> {
    let mut slots = Box::new([NOBODY; SLOTS]);
    let mut nodes: Vec<NodeInfo> = Vec::new();
    let mut known: BTreeMap<String, u16> = BTreeMap::new();
    for range in answer.list() {
        let [first, last, primary, replicas @ ..] = range.list() else {
            return None;
        };
        let mut index_of = |value: &Value, replica_of: Option<u16>| -> Option<u16> {
            let [host, port, rest @ ..] = value.list() else {
                return None;
            };
            let port = u16::try_from(port.integer()?).ok()?;
            let host = host.text().filter(|host| !host.is_empty() && *host != "?").unwrap_or(from);
            let is_bare = host.contains(':') && !host.starts_with('[');
            let addr = if is_bare {
                format!("[{host}]:{port}")
            } else {
                format!("{host}:{port}")
            };
            let next = u16::try_from(nodes.len()).ok().filter(|next| *next < NOBODY)?;
            let index = *known.entry(addr.clone()).or_insert(next);
            if index == next {
                nodes.push(NodeInfo {
                    addr,
                    id: rest.first().and_then(Value::text).unwrap_or_default().into(),
                    replica_of,
                    is_healthy: true,
                    probe_micros: 0,
                });
            }
            Some(index)
        };
        let owner = index_of(primary, None)?;
        for replica in replicas {
            index_of(replica, Some(owner))?;
        }
        let first = usize::try_from(first.integer()?).ok()?;
        let last = usize::try_from(last.integer()?).ok()?;
        slots.get_mut(first..=last)?.fill(owner);
    }
    let mut replicas = vec![Vec::new(); nodes.len()];
    for (at, node) in nodes.iter().enumerate() {
        if let Some(list) = node.replica_of.and_then(|primary| replicas.get_mut(usize::from(primary))) {
            list.push(at as u16);
        }
    }
    Some(Topology {
        nodes,
        router: Router::Slots(slots.into()),
        replicas,
    })
}

/// Asks sentinels who the master is, on a period and when a server fails.
pub async fn sentinel(control: Arc<Control>, plan: Arc<PoolPlan>) {
    loop {
        match ask_sentinels(&plan).await {
            Ok(mut topology) => {
                measure(&mut topology, &plan).await;
                publish_master(&control, &plan, topology);
            }
            Err(error) => tracing::warn!(
                pool = plan.config.name,
                error = format!("{error:#}"),
                "ask the sentinels for the master"
            ),
        }
        rest(&plan).await;
    }
}

fn publish_master(control: &Control, plan: &Arc<PoolPlan>, topology: Topology) {
    let old = control.topology(plan);
    if old.nodes.first().map(|node| &node.addr) != topology.nodes.first().map(|node| &node.addr) {
        let master = topology.nodes.first().map_or("", |node| &node.addr);
        tracing::info!(pool = plan.config.name, master, "the master changed");
        return control.set_topology(plan, topology);
    }
    publish(control, plan, topology);
}

async fn ask_sentinels(plan: &PoolPlan) -> anyhow::Result<Topology> {
    let mut last = anyhow::anyhow!("no sentinel is known");
    for name in plan.config.server_names() {
        let asked = tokio::time::timeout(plan.config.timeout_connect.0, ask_sentinel(&name.addr, plan)).await;
        match asked.context("no answer in time").and_then(|asked| asked) {
            Ok(topology) => return Ok(topology),
            Err(error) => last = error.context(name.addr),
        }
    }
    Err(last)
}

async fn ask_sentinel(addr: &str, plan: &PoolPlan) -> anyhow::Result<Topology> {
    let name = plan.config.sentinel_master.as_bytes();
    // Sentinels have passwords of their own; without one they are asked bare.
    let mut link = crate::link::Link::new(crate::conn::dial(addr, plan).await?);
    let master = link.value(&[b"SENTINEL", b"get-master-addr-by-name", name]).await?;
    let place = |host: Option<&Value>, port: Option<&Value>| Some(format!("{}:{}", host?.text()?, port?.text()?));
    let primary = place(master.list().first(), master.list().get(1)).context("it does not know the master")?;
    // A sentinel may be late: the master must say itself that it is one.
    let role = connect(&primary, plan).await?.value(&[b"ROLE"]).await?;
    anyhow::ensure!(
        role.list().first().and_then(Value::text) == Some("master"),
        "{primary} is not a master yet"
    );
    let mut replicas = Vec::new();
    if plan.config.reads != ReadPolicy::Primary {
        for fields in link.value(&[b"SENTINEL", b"replicas", name]).await?.list() {
            let field = |wanted: &str| {
                fields
                    .list()
                    .chunks_exact(2)
                    .find(|pair| pair[0].text() == Some(wanted))
                    .map(|pair| &pair[1])
            };
            let is_down = field("flags")
                .and_then(Value::text)
                .is_some_and(|flags| flags.contains("down"));
            if !is_down && let Some(addr) = place(field("ip"), field("port")) {
                replicas.push(addr);
            }
        }
    }
    Ok(Topology::primary(primary, replicas))
}

/// Extends the table of commands by what a server knows, once one answers.
pub async fn commands(control: Arc<Control>, plan: Arc<PoolPlan>) {
    loop {
        let addr = control.topology(&plan).nodes.first().map(|node| node.addr.clone());
        if let Some(addr) = addr {
            match ask_commands(&addr, &plan).await {
                Ok(answer) => {
                    control.amend(&plan, |plan| {
                        let mut table = (*plan.table).clone();
                        let learnt = table.extend(&answer);
                        tracing::info!(pool = plan.config.name, learnt, "commands were learnt");
                        (learnt > 0).then(|| with(plan, None, Some(Arc::new(table))))
                    });
                    return;
                }
                Err(error) => tracing::warn!(
                    pool = plan.config.name,
                    error = format!("{error:#}"),
                    "ask a server for its commands"
                ),
            }
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

async fn ask_commands(addr: &str, plan: &PoolPlan) -> anyhow::Result<Value> {
    let asked = async { Ok(connect(addr, plan).await?.value(&[b"COMMAND"]).await?) };
    tokio::time::timeout(Duration::from_secs(5), asked)
        .await
        .context("no answer in time")?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_read_with_replicas() {
        let answer = b"*2\r\n*4\r\n:0\r\n:99\r\n*3\r\n$2\r\nh1\r\n:1\r\n$1\r\na\r\n*3\r\n$0\r\n\r\n:2\r\n$1\r\nb\r\n*3\r\n:100\r\n:16383\r\n*2\r\n$2\r\nh3\r\n:3\r\n";
        let topology = read_slots(&Value::read(answer).expect("reads"), "seed").expect("is sound");
        let addrs: Vec<_> = topology.nodes.iter().map(|node| node.addr.as_str()).collect();
        assert_eq!(addrs, ["h1:1", "seed:2", "h3:3"]);
        assert_eq!(topology.replicas, [vec![1], vec![], vec![]]);
        let Router::Slots(slots) = &topology.router else {
            panic!("not slots");
        };
        assert_eq!((slots[99], slots[100], slots[16383]), (0, 2, 2));
        let bad = b"*1\r\n*3\r\n:0\r\n:99999\r\n*2\r\n$2\r\nh1\r\n:1\r\n";
        assert!(read_slots(&Value::read(bad).expect("reads"), "seed").is_none());
    }
}
