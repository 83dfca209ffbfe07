//! One thread: an event loop with listeners of its own and all state of its clients, so that nothing is locked.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{AbortHandle, spawn_local};

use crate::clock;
use crate::hot::Sketch;
use crate::insight::{Card, Insight};
use crate::mailbox::Mailbox;
use crate::meter::{Meter, Sheet};
use crate::net::{self, SCRATCH, Stream};
use crate::pool::Pool;
use crate::session;
use crate::topology::{Plan, PoolPlan};

thread_local! {
    static ROOM: RefCell<Vec<u8>> = RefCell::new(vec![0; SCRATCH]);
}

/// Room for one read. Readers never nest: what they call only appends to buffers.
pub fn scratch<T>(with: impl FnOnce(&mut [u8]) -> T) -> T {
    ROOM.with(|room| with(&mut room.borrow_mut()))
}

/// Runs until the plans end, then waits for running requests. `started` is told once it listens.
pub fn run(plans: watch::Receiver<Arc<Plan>>, insight: Arc<Insight>, started: std::sync::mpsc::SyncSender<()>) {
    let built = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build_local(Default::default());
    let runtime = match built {
        Ok(runtime) => runtime,
        Err(error) => {
            tracing::error!(%error, "start an event loop");
            std::process::exit(2);
        }
    };
    let worker = Rc::new(Worker {
        insight,
        pools: RefCell::default(),
        sessions: RefCell::default(),
    });
    runtime.block_on(worker.main(plans, started));
    // Requests of the stores' clients may still hold tasks; they end with the process.
    runtime.shutdown_timeout(Duration::from_millis(100));
}

struct Worker {
    insight: Arc<Insight>,
    pools: RefCell<BTreeMap<String, Place>>,
    sessions: RefCell<BTreeMap<u64, Serving>>,
}

/// A client that is served.
type Serving = (Arc<Card>, Rc<Mailbox>);

/// A pool with its listener.
struct Place {
    pool: Rc<Pool>,
    addr: SocketAddr,
    listener: AbortHandle,
    clients: Rc<Cell<usize>>,
}

impl Worker {
    async fn main(self: Rc<Worker>, mut plans: watch::Receiver<Arc<Plan>>, started: std::sync::mpsc::SyncSender<()>) {
        spawn_local(Rc::clone(&self).watch_kills());
        let mut started = Some(started);
        let mut drain = Duration::ZERO;
        loop {
            let plan = Arc::clone(&plans.borrow_and_update());
            drain = plan.drain.max(drain);
            self.apply(&plan);
            if let Some(started) = started.take() {
                // Who waits for it may have given up.
                let _told = started.send(());
            }
            if plans.changed().await.is_err() {
                break;
            }
        }
        self.pools.borrow().values().for_each(|place| place.listener.abort());
        let _drained = tokio::time::timeout(drain, self.drained()).await;
    }

    async fn drained(&self) {
        let is_busy = || {
            self.sessions
                .borrow()
                .values()
                .any(|(_, mailbox)| mailbox.waiting() + mailbox.backlog() > 0)
        };
        while is_busy() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    fn apply(self: &Rc<Worker>, plan: &Plan) {
        clock::refresh();
        let mut pools = self.pools.borrow_mut();
        pools.retain(|name, place| {
            let stays = plan
                .pools
                .iter()
                .any(|pool| pool.config.name == *name && (pool.config.protocol == place.pool.view().config.protocol));
            if !stays {
                place.listener.abort();
                place.pool.retire();
            }
            stays
        });
        for pool_plan in &plan.pools {
            let name = &pool_plan.config.name;
            if let Some(place) = pools.get_mut(name) {
                place.pool.apply(Arc::clone(pool_plan));
                if place.addr != pool_plan.addr {
                    place.listener.abort();
                    place.listener = self.listen(pool_plan, &place.pool, &place.clients);
                    place.addr = pool_plan.addr;
                }
            } else {
                let pool = self.pool(pool_plan);
                let clients = Rc::new(Cell::new(0));
                let listener = self.listen(pool_plan, &pool, &clients);
                let addr = pool_plan.addr;
                pools.insert(
                    name.clone(),
                    Place {
                        pool,
                        addr,
                        listener,
                        clients,
                    },
                );
            }
        }
        for place in pools.values() {
            let mirror = place.pool.view().config.mirror.clone();
            place.pool.set_mirror(pools.get(&mirror).map(|mirror| &mirror.pool));
            place.pool.meter.slow.set(plan.slow);
            place.pool.meter.big.set(plan.big);
        }
    }

    fn pool(&self, plan: &Arc<PoolPlan>) -> Rc<Pool> {
        let name = &plan.config.name;
        let sheet = Arc::new(Sheet::new(plan.table.commands().len()));
        let hot = Arc::new(parking_lot::Mutex::new(Sketch::default()));
        self.insight.add_pool(name, Arc::clone(&sheet), Arc::clone(&hot));
        let meter = Meter::new(name, sheet, Arc::clone(&self.insight), hot);
        Pool::new(Arc::clone(plan), Rc::new(meter))
    }

    fn listen(self: &Rc<Worker>, plan: &PoolPlan, pool: &Rc<Pool>, clients: &Rc<Cell<usize>>) -> AbortHandle {
        let listener = net::listen(plan.addr).map_err(|error| tracing::error!(addr = %plan.addr, %error, "listen"));
        let accepting = accept(Rc::clone(self), listener.ok(), Rc::clone(pool), Rc::clone(clients));
        spawn_local(accepting).abort_handle()
    }

    async fn watch_kills(self: Rc<Worker>) {
        loop {
            // Now and then it looks unasked: a call may come while it looks.
            let _called = tokio::time::timeout(Duration::from_secs(1), self.insight.kills.notified()).await;
            for (card, mailbox) in self.sessions.borrow().values() {
                if card.is_killed.load(Ordering::Relaxed) {
                    mailbox.abort();
                }
            }
        }
    }
}

async fn accept(worker: Rc<Worker>, listener: Option<TcpListener>, pool: Rc<Pool>, clients: Rc<Cell<usize>>) {
    let Some(listener) = listener else {
        return;
    };
    loop {
        match listener.accept().await {
            Ok((stream, peer)) => {
                let serving = serve(Rc::clone(&worker), stream, peer, Rc::clone(&pool), Rc::clone(&clients));
                spawn_local(serving);
            }
            Err(error) => {
                tracing::warn!(pool = pool.name(), %error, "accept");
                // Too many open files, as a rule: give those who hold them time to end.
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
}

/// How long a client may take for its TLS handshake.
const HANDSHAKE: Duration = Duration::from_secs(10);

async fn serve(worker: Rc<Worker>, tcp: TcpStream, peer: SocketAddr, pool: Rc<Pool>, clients: Rc<Cell<usize>>) {
    let view = pool.view();
    if clients.get() >= view.config.clients_max {
        let refusal: &[u8] = match pool.is_memcached() {
            true => b"SERVER_ERROR max number of clients reached\r\n",
            false => b"-ERR max number of clients reached\r\n",
        };
        // The client may not even read it; nothing is owed.
        let _written = tcp.try_write(refusal);
        return;
    }
    clients.set(clients.get() + 1);
    let _nodelay = tcp.set_nodelay(true);
    let local = tcp.local_addr().map(|addr| addr.to_string()).unwrap_or_default();
    if let Some(stream) = secure(tcp, &view.plan).await {
        drop(view);
        let card = worker.insight.enter(&pool.name(), peer.to_string(), local);
        let mailbox = Mailbox::new(card.id, Rc::clone(&pool.meter));
        worker
            .sessions
            .borrow_mut()
            .insert(card.id, (Arc::clone(&card), Rc::clone(&mailbox)));
        pool.meter.sheet.clients.add(1);
        pool.meter.sheet.clients_total.add(1);
        session::run(stream, &pool, &card, &mailbox).await;
        pool.meter.sheet.clients.sub(1);
        mailbox.close();
        worker.sessions.borrow_mut().remove(&card.id);
        worker.insight.leave(card.id);
    }
    clients.set(clients.get() - 1);
}

async fn secure(tcp: TcpStream, plan: &PoolPlan) -> Option<Stream> {
    let Some(acceptor) = &plan.acceptor else {
        return Some(Stream::Tcp(tcp));
    };
    match tokio::time::timeout(HANDSHAKE, acceptor.accept(tcp)).await {
        Ok(Ok(stream)) => Some(Stream::TlsServer(Box::new(stream))),
        _ => None,
    }
}
