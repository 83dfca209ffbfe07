//! The part of PD's HTTP API that clients' test suites and people with `curl` ask for. Reads only.

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use base::MonoTime;
use pd::{Handle, KeyRange, Liveness, RegionInfo, Reply, Request, StoreView};
use proto::ferrite_pd::Member;
use proto::metapb::{Peer, PeerRole, StoreState};
use serde_json::{Value, json};

use crate::pd_service::{self, CLUSTER_VERSION};

/// The pages, for the listener of the placement driver.
pub fn routes(handle: Handle) -> Router {
    let started = MonoTime::now();
    Router::new()
        .route("/pd/api/v1/regions", get(regions))
        .route("/pd/api/v1/stores", get(stores))
        .route("/pd/api/v1/members", get(members))
        .route("/pd/api/v1/health", get(health))
        .route(
            "/pd/api/v1/version",
            get(|| async { Json(json!({ "version": format!("v{CLUSTER_VERSION}") })) }),
        )
        .route("/pd/api/v1/status", get(move || async move { Json(status(started)) }))
        .with_state(handle)
}

fn status(started: MonoTime) -> Value {
    json!({
        "version": format!("v{CLUSTER_VERSION}"),
        "git_hash": crate::COMMIT,
        "uptime_seconds": MonoTime::now().since(started).as_secs(),
    })
}

async fn ask(handle: &Handle, request: Request) -> Result<Reply, Response> {
    pd_service::ask(handle, request)
        .await
        .map_err(|error| (StatusCode::SERVICE_UNAVAILABLE, Json(error.to_string())).into_response())
}

async fn regions(State(handle): State<Handle>) -> Result<Json<Value>, Response> {
    let all = Request::Scan {
        ranges: vec![KeyRange::default()],
        limit: None,
        no_gaps: false,
    };
    let Reply::Scanned(regions) = ask(&handle, all).await? else {
        unreachable!("a scan is answered by regions")
    };
    let regions: Vec<Value> = regions.iter().map(|info| region(info)).collect();
    Ok(Json(json!({ "count": regions.len(), "regions": regions })))
}

fn region(info: &RegionInfo) -> Value {
    let epoch = info.region.region_epoch.unwrap_or_default();
    json!({
        "id": info.region.id,
        "start_key": hex(&info.region.start_key),
        "end_key": hex(&info.region.end_key),
        "epoch": { "conf_ver": epoch.conf_ver, "version": epoch.version },
        "peers": info.region.peers.iter().map(peer).collect::<Vec<_>>(),
        "leader": peer(&info.leader),
        "pending_peers": info.pending_peers.iter().map(peer).collect::<Vec<_>>(),
        "approximate_size": info.approximate_bytes >> 20,
        "approximate_keys": info.approximate_keys,
    })
}

fn peer(peer: &Peer) -> Value {
    let role = match peer.role() {
        PeerRole::Voter => "Voter",
        PeerRole::Learner => "Learner",
        PeerRole::IncomingVoter => "IncomingVoter",
        PeerRole::DemotingVoter => "DemotingVoter",
    };
    json!({ "id": peer.id, "store_id": peer.store_id, "role": peer.role, "role_name": role, "is_learner": peer.role() == PeerRole::Learner })
}

/// Borders as PD prints them: upper case, without prefix.
fn hex(key: &[u8]) -> String {
    key.iter().map(|byte| format!("{byte:02X}")).collect()
}

async fn stores(State(handle): State<Handle>) -> Result<Json<Value>, Response> {
    let Reply::Stores(stores) = ask(&handle, Request::AllStores).await? else {
        unreachable!("it is answered by stores")
    };
    let stores: Vec<Value> = stores.iter().map(store).collect();
    Ok(Json(json!({ "count": stores.len(), "stores": stores })))
}

fn store(view: &StoreView) -> Value {
    let state = match (view.store.state(), view.liveness) {
        (StoreState::Tombstone, _) => "Tombstone",
        (StoreState::Offline, _) => "Offline",
        (StoreState::Up, Liveness::Up) => "Up",
        (StoreState::Up, Liveness::Disconnected) => "Disconnected",
        (StoreState::Up, Liveness::Down) => "Down",
    };
    let stats = view.stats.clone().unwrap_or_default();
    json!({
        "store": {
            "id": view.store.id,
            "address": view.store.address,
            "status_address": view.store.status_address,
            "version": view.store.version,
            "git_hash": view.store.git_hash,
            "start_timestamp": view.store.start_timestamp,
            "last_heartbeat": view.store.last_heartbeat,
            "state_name": state,
        },
        "status": {
            "capacity": base::ByteSize(stats.capacity).to_string(),
            "available": base::ByteSize(stats.available).to_string(),
            "used_size": base::ByteSize(stats.used_size).to_string(),
            "region_count": view.load.regions,
            "leader_count": view.load.leaders,
        },
    })
}

async fn all_members(handle: &Handle) -> Result<(Vec<Member>, u64), Response> {
    match ask(handle, Request::Members).await? {
        Reply::Members { all, leader } => Ok((all, leader.map_or(0, |leader| leader.0))),
        other => unreachable!("a reply to another request: {other:?}"),
    }
}

async fn members(State(handle): State<Handle>) -> Result<Json<Value>, Response> {
    let (all, leader) = all_members(&handle).await?;
    let leads = all.iter().find(|one| one.id == leader).map(member);
    Ok(Json(json!({
        "header": { "cluster_id": handle.cluster().0 },
        "members": all.iter().map(member).collect::<Vec<_>>(),
        "leader": leads,
        "etcd_leader": leads,
    })))
}

fn member(member: &Member) -> Value {
    json!({ "name": member.name, "member_id": member.id, "peer_urls": member.peer_urls, "client_urls": member.client_urls })
}

async fn health(State(handle): State<Handle>) -> Result<Json<Value>, Response> {
    let (all, _) = all_members(&handle).await?;
    let healthy = |one: &Member| json!({ "name": one.name, "member_id": one.id, "client_urls": one.client_urls, "health": true });
    Ok(Json(all.iter().map(healthy).collect()))
}
