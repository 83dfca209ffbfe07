//! Three placement drivers as real processes: killed, wiped, added and removed under load.

#[path = "../common/mod.rs"]
mod common;
mod load;
mod placement;
mod rescue;

use std::time::Duration;

use base::MonoTime;
use client::{ClientOptions, RawClient};
use common::{Cluster, PATIENCE};
use load::Load;
use proto::pdpb::pd_client::PdClient;
use proto::pdpb::{GetMembersRequest, GetMembersResponse, GetRegionRequest, RequestHeader};

/// How often the leader is killed.
const KILLS: usize = 10;

async fn members_by(address: &str) -> Option<GetMembersResponse> {
    let mut client = PdClient::connect(format!("http://{address}")).await.ok()?;
    Some(client.get_members(GetMembersRequest::default()).await.ok()?.into_inner())
}

/// The process that leads, as all that run agree; `None` while they do not.
async fn leader(cluster: &Cluster, running: &[usize]) -> Option<usize> {
    let mut named = Vec::new();
    for &node in running {
        let members = members_by(&cluster.nodes[node].pd_addr.to_string()).await?;
        named.push(members.leader?.client_urls.into_iter().next()?);
    }
    let leads = |node: &usize| {
        named
            .iter()
            .all(|url| *url == format!("http://{}", cluster.nodes[*node].pd_addr))
    };
    running.iter().copied().find(leads)
}

async fn must_lead(cluster: &Cluster, running: &[usize]) -> usize {
    let deadline = MonoTime::now() + PATIENCE;
    loop {
        if let Some(leader) = leader(cluster, running).await {
            return leader;
        }
        assert!(MonoTime::now() < deadline, "nobody leads:\n{}", cluster.logs());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn connect(cluster: &Cluster) -> RawClient {
    let options = ClientOptions {
        deadline: PATIENCE,
        ..ClientOptions::default()
    };
    RawClient::connect(&cluster.endpoints(), options).await.expect("connect")
}

/// Names of the members, as `ferrite ctl member` tells them.
fn names(cluster: &Cluster) -> Vec<String> {
    let told = String::from_utf8(cluster.ctl(&["member", "list", "--json"]).stdout).expect("text");
    let name = |line: &str| {
        Some(
            serde_json::from_str::<serde_json::Value>(line).ok()?["name"]
                .as_str()?
                .to_owned(),
        )
    };
    let mut names: Vec<String> = told.lines().filter_map(name).collect();
    names.sort();
    names
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killing_the_leader_costs_no_request_and_no_timestamp_goes_back() {
    let mut cluster = Cluster::six(&[]);
    cluster.must_be_replicated();
    let load = Load::start(&connect(&cluster).await);
    for kill in 0..KILLS {
        let leads = must_lead(&cluster, &[0, 1, 2]).await;
        load.must_go_on(50).await;
        cluster.nodes[leads].kill();
        let left: Vec<usize> = (0..3).filter(|&node| node != leads).collect();
        let next = must_lead(&cluster, &left).await;
        assert_ne!(next, leads, "kill {kill}");
        load.must_go_on(50).await;
        cluster.nodes[leads].start();
        cluster.nodes[leads].must_be_ready();
    }
    let (timestamps, writes) = load.stop().await;
    println!(
        "{KILLS} leaders killed: {} timestamps, longest gap {:?}; {} writes, longest gap {:?}; none failed",
        timestamps.count, timestamps.longest, writes.count, writes.longest
    );
    // 3 s on a machine of its own; here other tests run beside it.
    assert!(timestamps.longest < Duration::from_secs(10), "{:?}", timestamps.longest);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_follower_tells_who_leads_refuses_and_forwards() {
    let cluster = Cluster::six(&[]);
    let leads = must_lead(&cluster, &[0, 1, 2]).await;
    let follower = cluster.nodes[(leads + 1) % 3].pd_addr;
    let members = members_by(&follower.to_string()).await.expect("a follower answers");
    assert_eq!(members.members.len(), 3);
    let cluster_id = members.header.expect("a header").cluster_id;
    assert_ne!(cluster_id, 0);
    let mut client = PdClient::connect(format!("http://{follower}")).await.expect("connect");
    let request = || GetRegionRequest {
        header: Some(RequestHeader {
            cluster_id,
            ..RequestHeader::default()
        }),
        ..GetRegionRequest::default()
    };
    let refused = client.get_region(request()).await.expect_err("a follower refuses");
    assert_eq!(refused.code(), tonic::Code::Unavailable);
    assert!(refused.message().contains("not leader"), "{refused}");
    let mut forwarded = tonic::Request::new(request());
    let host = members.leader.expect("a leader").client_urls[0].parse().expect("ascii");
    forwarded.metadata_mut().insert("pd-forwarded-host", host);
    let answer = client.get_region(forwarded).await.expect("the leader answers").into_inner();
    assert!(answer.region.is_some() && answer.leader.is_some());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_becomes_three_one_loses_its_disk_and_one_goes() {
    let mut cluster = Cluster::one(&[]);
    let load = Load::start(&connect(&cluster).await);
    for _ in 0..2 {
        cluster.add_pd().must_be_ready();
    }
    assert_eq!(names(&cluster).len(), 3);
    let [joined, other] = [1, 2].map(|node| format!("pd-{}", cluster.nodes[node].pd_addr));
    let deadline = MonoTime::now() + PATIENCE;
    // Learners vote once they have caught up; only then can they lead, and only with two that vote one may lose its disk.
    // In the end one leads whose address the first that joined was never given.
    for next in [&joined, &other] {
        while !cluster.ctl(&["member", "transfer-leader", next]).status.success() {
            assert!(MonoTime::now() < deadline, "{next} never led:\n{}", cluster.logs());
        }
    }
    load.must_go_on(50).await;

    // The disk of one is lost: it comes back under its name and takes its own place.
    let before = names(&cluster);
    cluster.nodes[1].kill();
    cluster.nodes[1].wipe();
    cluster.nodes[1].start();
    cluster.nodes[1].must_be_ready();
    assert_eq!(names(&cluster), before);
    load.must_go_on(50).await;

    let removed = cluster.ctl(&["member", "remove", &joined, "--yes", "--timeout", "20s"]);
    assert!(removed.status.success(), "{}", String::from_utf8_lossy(&removed.stderr));
    assert_eq!(names(&cluster).len(), 2);
    load.must_go_on(50).await;
    load.stop().await;
}
