//! Transactions against real processes: the registry's `tikv-client` as it is, and our own client, on three stores with regions
//! between the keys, in API V1 and V2.

mod collect;
#[path = "../common/mod.rs"]
mod common;
mod dead;
mod large;
mod own;
mod registry;
mod replica;
mod secure;

use std::io::Write;

use client::{Api, ClientOptions, Keyspace, TxnClient};
use common::{Cluster, PATIENCE};

/// Keys at which the first regions are split; the tests' keys lie on all sides.
const BORDERS: [&str; 2] = ["g", "p"];

/// A cluster with what a test has to know of it.
struct Setup {
    cluster: Cluster,
    api: Api,
    _config: tempfile::NamedTempFile,
}

impl Setup {
    fn v1() -> Setup {
        Setup::start(Api::V1)
    }

    fn v2() -> Setup {
        Setup::start(Api::V2(Keyspace::Id(0)))
    }

    /// Three stores, three regions with a copy on each.
    fn start(api: Api) -> Setup {
        Setup::start_with(api, "")
    }

    /// `pd`: more of the section of the placement driver.
    fn start_with(api: Api, pd: &str) -> Setup {
        let (version, prefix) = match api {
            Api::V1 => ("v1", ""),
            Api::V2(_) => ("v2", r"x\u0000\u0000\u0000"),
        };
        let mut config = tempfile::NamedTempFile::new().expect("a temporary file");
        let borders = BORDERS.map(|key| format!("\"{prefix}{key}\"")).join(", ");
        writeln!(config, "[pd]\nsplit-txn-keys = [{borders}]\n{pd}").expect("write");
        let path = config.path().display().to_string();
        let cluster = Cluster::three(&["--api-version", version, "--config", &path]);
        cluster.must_be_replicated();
        Setup {
            cluster,
            api,
            _config: config,
        }
    }

    /// The process that runs this store.
    fn node_of(&self, store: u64) -> usize {
        let runs = |node: &usize| self.cluster.nodes[*node].store_id() == store;
        self.cluster
            .stores()
            .into_iter()
            .find(runs)
            .expect("the store is one of these")
    }

    /// Prewrites that the stores did in this way.
    fn prewrites(&self, way: &str) -> f64 {
        let name = format!("ferrite_txn_prewrites_total{{way=\"{way}\"}}");
        let of = |store: usize| self.cluster.nodes[store].metric(&name);
        self.cluster.stores().into_iter().map(of).sum()
    }

    async fn own(&self) -> TxnClient {
        let options = ClientOptions {
            api: self.api.clone(),
            deadline: PATIENCE,
            ..Default::default()
        };
        TxnClient::connect(&self.cluster.endpoints(), options).await.expect("connect")
    }

    async fn registry(&self) -> tikv_client::TransactionClient {
        let config = tikv_client::Config::default().with_timeout(std::time::Duration::from_secs(10));
        let config = match self.api {
            Api::V1 => config,
            Api::V2(_) => config.with_default_keyspace(),
        };
        tikv_client::TransactionClient::new_with_config(self.cluster.endpoints(), config)
            .await
            .expect("the client connects")
    }
}

/// Waits until `done`, looking again and again.
async fn must_become(what: &str, mut done: impl AsyncFnMut() -> bool) {
    let deadline = base::MonoTime::now() + PATIENCE;
    while !done().await {
        assert!(base::MonoTime::now() < deadline, "not in time: {what}");
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
}
