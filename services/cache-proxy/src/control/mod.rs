//! The control plane: makes plans and publishes them. It reads configuration files, probes servers, asks clusters for their slots and
//! sentinels for their master; threads never wait for it.

mod admin;
mod file_watch;
mod follow;
mod probe;
mod reload;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Context as _;
use parking_lot::Mutex;
use tokio::net::TcpSocket;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;

use crate::command::Table;
use crate::config::{Backend, Config, PoolConfig};
use crate::health::Board;
use crate::insight::Insight;
use crate::topology::{Plan, PoolPlan, Topology};
use crate::users::User;

/// A running proxy, but for its threads.
pub struct Control {
    state: Mutex<State>,
    plans: watch::Sender<Arc<Plan>>,
    insight: Arc<Insight>,
    path: Option<PathBuf>,
}

struct State {
    config: Config,
    pools: BTreeMap<String, PoolState>,
}

/// What the control plane holds of a pool.
struct PoolState {
    plan: Arc<PoolPlan>,
    /// Keeps the address while threads come and go.
    _reserved: Vec<TcpSocket>,
    /// Probes servers and follows the topology.
    tasks: Vec<JoinHandle<()>>,
}

impl Drop for PoolState {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

impl Control {
    /// Makes the first plan and starts what looks after it. `path`: where the configuration came from, to be followed.
    pub fn start(config: Config, path: Option<PathBuf>, insight: Arc<Insight>) -> anyhow::Result<Arc<Control>> {
        let control = Arc::new(Control {
            state: Mutex::new(State {
                config: Config::default(),
                pools: BTreeMap::new(),
            }),
            plans: watch::Sender::new(Arc::new(Plan::default())),
            insight,
            path,
        });
        control.take_over(config).context("start")?;
        Ok(control)
    }

    /// The plans, for a thread.
    pub fn plans(&self) -> watch::Receiver<Arc<Plan>> {
        self.plans.subscribe()
    }

    /// Where each pool listens.
    pub fn listeners(&self) -> Vec<(String, SocketAddr)> {
        let state = self.state.lock();
        let listeners = state.config.pools.iter().filter_map(|pool| state.pools.get(&pool.name));
        listeners
            .map(|pool| (pool.plan.config.name.clone(), pool.plan.addr))
            .collect()
    }

    /// Goes over to a configuration that was validated, whole or not at all.
    fn take_over(self: &Arc<Control>, config: Config) -> anyhow::Result<()> {
        let mut state = self.state.lock();
        let mut fresh = BTreeMap::new();
        for pool in &config.pools {
            let old = state.pools.get(&pool.name);
            fresh.insert(pool.name.clone(), make_plan(pool, old)?);
        }
        state.config = config;
        let mut old = std::mem::take(&mut state.pools);
        for (name, (plan, reserved)) in fresh {
            let reserved = match (reserved, old.get_mut(&name)) {
                (Some(socket), _) => vec![socket],
                (None, Some(old)) => std::mem::take(&mut old._reserved),
                (None, None) => Vec::new(),
            };
            let tasks = self.look_after(&plan);
            state.pools.insert(
                name,
                PoolState {
                    plan,
                    _reserved: reserved,
                    tasks,
                },
            );
        }
        self.publish(&state);
        Ok(())
    }

    fn look_after(self: &Arc<Control>, plan: &Arc<PoolPlan>) -> Vec<JoinHandle<()>> {
        let (control, config) = (Arc::clone(self), Arc::clone(&plan.config));
        let mut tasks = Vec::new();
        match config.backend {
            Backend::Servers => tasks.push(tokio::spawn(probe::watch_ring(control, Arc::clone(plan)))),
            Backend::Cluster => tasks.push(tokio::spawn(follow::cluster(control, Arc::clone(plan)))),
            Backend::Sentinel => tasks.push(tokio::spawn(follow::sentinel(control, Arc::clone(plan)))),
            Backend::Ferrite => {}
        }
        if config.learn_commands && config.backend != Backend::Ferrite {
            tasks.push(tokio::spawn(follow::commands(Arc::clone(self), Arc::clone(plan))));
        }
        tasks
    }

    /// Changes the plan of a pool and publishes it; nothing happens if the pool changed meanwhile or `change` has nothing to change.
    fn amend(&self, of: &Arc<PoolPlan>, change: impl FnOnce(&PoolPlan) -> Option<PoolPlan>) {
        let mut state = self.state.lock();
        let Some(pool) = state.pools.get_mut(&of.config.name) else {
            return;
        };
        // A reload made another configuration; its own tasks look after that.
        if !Arc::ptr_eq(&pool.plan.config, &of.config) {
            return;
        }
        let Some(plan) = change(&pool.plan) else {
            return;
        };
        pool.plan = Arc::new(plan);
        self.publish(&state);
    }

    /// Publishes another topology for a pool.
    fn set_topology(&self, of: &Arc<PoolPlan>, topology: Topology) {
        self.amend(of, |plan| Some(with(plan, Some(topology), None)));
    }

    /// The topology of a pool now.
    fn topology(&self, of: &PoolPlan) -> Arc<Topology> {
        let state = self.state.lock();
        let pool = state.pools.get(&of.config.name);
        pool.map_or_else(|| Arc::new(Topology::empty()), |pool| Arc::clone(&pool.plan.topology))
    }

    fn publish(&self, state: &State) {
        let server = &state.config.server;
        let pools = state.config.pools.iter().filter_map(|pool| state.pools.get(&pool.name));
        self.plans.send_replace(Arc::new(Plan {
            pools: pools.map(|pool| Arc::clone(&pool.plan)).collect(),
            slow: server.slow.0,
            big: server.big.0,
            drain: server.drain.0,
        }));
    }

    /// Serves metrics and the like, and follows the configuration, for as long as the process runs.
    pub async fn run(self: Arc<Control>) -> anyhow::Result<()> {
        let admin_addr = self.state.lock().config.server.admin_addr.clone();
        if !admin_addr.is_empty() {
            let addr = admin::serve(Arc::clone(&self), &admin_addr).await?;
            println!("admin listening on {addr}");
        }
        if self.path.is_some() {
            // Before anybody is told that it runs: without a handler the signal would end it.
            let hangup = signal(SignalKind::hangup()).context("listen for SIGHUP")?;
            tokio::spawn(reload::follow(Arc::clone(&self), hangup));
        }
        Ok(())
    }
}

/// A plan with some parts exchanged.
fn with(plan: &PoolPlan, topology: Option<Topology>, table: Option<Arc<Table>>) -> PoolPlan {
    PoolPlan {
        config: Arc::clone(&plan.config),
        topology: topology.map_or_else(|| Arc::clone(&plan.topology), Arc::new),
        table: table.unwrap_or_else(|| Arc::clone(&plan.table)),
        users: Arc::clone(&plan.users),
        acceptor: plan.acceptor.clone(),
        connector: plan.connector.clone(),
        addr: plan.addr,
        stale: Arc::clone(&plan.stale),
        health: Arc::clone(&plan.health),
        cursors: Arc::clone(&plan.cursors),
    }
}

/// The plan of a pool, and the socket that holds its address if that is new.
fn make_plan(pool: &PoolConfig, old: Option<&PoolState>) -> anyhow::Result<(Arc<PoolPlan>, Option<TcpSocket>)> {
    let wanted: SocketAddr = pool.listen.parse().with_context(|| format!("pool {}: listen", pool.name))?;
    let kept = old.filter(|old| old.plan.config.listen == pool.listen);
    let (addr, reserved) = match kept {
        Some(old) => (old.plan.addr, None),
        None => {
            let socket = crate::net::bind(wanted).with_context(|| format!("pool {}: listen on {wanted}", pool.name))?;
            let bound = socket
                .local_addr()
                .with_context(|| format!("pool {}: listen on {wanted}", pool.name))?;
            (bound, Some(socket))
        }
    };
    let table = match old {
        Some(old) if pool.learn_commands => Arc::clone(&old.plan.table),
        _ => Arc::new(Table::redis()),
    };
    let topology = match pool.backend {
        Backend::Servers => Topology::ring(pool, |_addr| false),
        // What is known holds until the servers say otherwise.
        _ => match old.filter(|old| old.plan.config.backend == pool.backend && old.plan.config.servers == pool.servers) {
            Some(old) => (*old.plan.topology).clone(),
            None => Topology::empty(),
        },
    };
    let users = pool.users.iter().map(|user| Arc::new(User::new(user, &table))).collect();
    let tls = |error: String| anyhow::anyhow!("pool {}: {error}", pool.name);
    let plan = PoolPlan {
        acceptor: crate::tls::acceptor(pool).map_err(tls)?,
        connector: crate::tls::connector(pool).map_err(tls)?,
        config: Arc::new(pool.clone()),
        topology: Arc::new(topology),
        table,
        users,
        addr,
        stale: Arc::new(Notify::new()),
        health: Arc::new(Board::default()),
        cursors: old.map_or_else(Arc::default, |old| Arc::clone(&old.plan.cursors)),
    };
    Ok((Arc::new(plan), reserved))
}
