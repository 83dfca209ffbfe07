//! Three members of Debian's `etcd-server` on loopback, with their data on the same disk.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use proto::etcdserverpb::StatusRequest;
use proto::etcdserverpb::kv_client::KvClient;
use proto::etcdserverpb::maintenance_client::MaintenanceClient;
use tonic::transport::Channel;

use super::caller::{Caller, connect};
use super::process::{Server, free_ports, wait_for};

pub struct Etcd {
    members: Vec<Server>,
    /// Connections to the member that leads, as a store's clients talk to the leader of a region.
    channels: Vec<Channel>,
    pub version: String,
}

impl Etcd {
    pub async fn start(dir: &Path, connections: usize) -> Result<Self> {
        let ports = free_ports(6)?;
        let (clients, peers) = ports.split_at(3);
        let url = |port: u16| format!("http://127.0.0.1:{port}");
        let cluster: Vec<_> = peers
            .iter()
            .enumerate()
            .map(|(n, &port)| format!("m{n}={}", url(port)))
            .collect();
        let start = |n: usize| {
            let name = format!("m{n}");
            let mut command = Command::new("etcd");
            command.args(["--name", &name, "--log-level", "error", "--initial-cluster-state", "new"]);
            command
                .arg("--data-dir")
                .arg(dir.join(&name))
                .arg("--initial-cluster")
                .arg(cluster.join(","));
            for (flag, port) in [("client", clients[n]), ("peer", peers[n])] {
                command.args([format!("--listen-{flag}-urls"), url(port)]);
            }
            command.args([
                "--advertise-client-urls",
                &url(clients[n]),
                "--initial-advertise-peer-urls",
                &url(peers[n]),
            ]);
            command.args(["--quota-backend-bytes", "8589934592"]);
            Server::start(&format!("etcd-{name}"), &mut command, dir)
        };
        let hint = "is etcd installed? Debian: apt-get install etcd-server";
        let mut members = (0..3).map(start).collect::<Result<Vec<_>>>().context(hint)?;

        let (leader, version) = wait_for("a leader of etcd", Duration::from_secs(20), async || {
            members.iter_mut().try_for_each(Server::check_alive)?;
            find_leader(clients).await
        })
        .await?;
        let mut channels = Vec::new();
        for _ in 0..connections {
            channels.push(connect(&leader).await?);
        }
        Ok(Self {
            members,
            channels,
            version,
        })
    }

    /// Clients of its key-value service, spread over the connections.
    pub fn clients(&self, count: usize) -> Vec<KvClient<Channel>> {
        (0..count)
            .map(|n| KvClient::new(self.channels[n % self.channels.len()].clone()))
            .collect()
    }

    pub fn callers(&self, count: usize) -> Vec<Caller> {
        self.clients(count)
            .into_iter()
            .map(|client| Caller::Etcd { client })
            .collect()
    }

    pub fn cpu(&self) -> Duration {
        self.members.iter().map(Server::cpu).sum()
    }
}

/// Address of the member that leads, and its version.
async fn find_leader(ports: &[u16]) -> Result<(String, String)> {
    let mut led = None;
    for port in ports {
        let address = format!("127.0.0.1:{port}");
        let mut client = MaintenanceClient::new(connect(&address).await?);
        let status = client.status(StatusRequest::default()).await?.into_inner();
        let header = status.header.context("a status without header")?;
        ensure!(status.leader != 0, "no leader yet");
        if status.leader == header.member_id {
            led = Some((address, status.version));
        }
    }
    led.context("the leader is not among the members")
}
