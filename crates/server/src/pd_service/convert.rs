//! Regions, heartbeats and operators between their form on the wire and that of `pd`.

use pd::{DownPeer, Flow, Operator, RegionInfo};
use proto::eraftpb::ConfChangeType;
use proto::metapb::Region;
use proto::pdpb::{self, PeerStats, RegionHeartbeatRequest, RegionHeartbeatResponse, TimeInterval};

use super::Answer;

/// The wire tells sizes in MiB.
const MIB: u64 = 1 << 20;

/// A leader's word on its region. Errors are found later: whatever is missing is empty here.
pub fn heartbeat_of_wire(request: RegionHeartbeatRequest) -> RegionInfo {
    let down = |stats: PeerStats| DownPeer {
        peer: stats.peer.unwrap_or_default(),
        down_seconds: stats.down_seconds,
    };
    RegionInfo {
        region: request.region.unwrap_or_default(),
        leader: request.leader.unwrap_or_default(),
        term: request.term,
        down_peers: request.down_peers.into_iter().map(down).collect(),
        pending_peers: request.pending_peers,
        approximate_bytes: request.approximate_size.saturating_mul(MIB),
        approximate_keys: request.approximate_keys,
        flow: Flow {
            written_bytes: request.bytes_written,
            written_keys: request.keys_written,
            read_bytes: request.bytes_read,
            read_keys: request.keys_read,
            millis: request.interval.map_or(0, millis),
        },
    }
}

/// The wire tells times in seconds.
fn millis(interval: TimeInterval) -> u32 {
    let seconds = interval.end_timestamp.saturating_sub(interval.start_timestamp);
    u32::try_from(seconds.saturating_mul(1000)).unwrap_or(u32::MAX)
}

/// The heartbeat of a region, without header.
pub fn heartbeat_to_wire(info: RegionInfo) -> RegionHeartbeatRequest {
    RegionHeartbeatRequest {
        down_peers: down_peers(&info),
        region: Some(info.region),
        leader: Some(info.leader),
        term: info.term,
        pending_peers: info.pending_peers,
        approximate_size: info.approximate_bytes.div_ceil(MIB),
        approximate_keys: info.approximate_keys,
        bytes_written: info.flow.written_bytes,
        keys_written: info.flow.written_keys,
        bytes_read: info.flow.read_bytes,
        keys_read: info.flow.read_keys,
        // Only how long it is counts.
        interval: Some(TimeInterval {
            start_timestamp: 0,
            end_timestamp: u64::from(info.flow.millis).div_ceil(1000),
        }),
        ..RegionHeartbeatRequest::default()
    }
}

/// What the leader of `region` should do, without header.
pub fn operator_to_wire(info: &RegionInfo, operator: Operator) -> RegionHeartbeatResponse {
    let order = RegionHeartbeatResponse {
        region_id: info.region.id,
        region_epoch: info.region.region_epoch,
        target_peer: Some(info.leader),
        ..RegionHeartbeatResponse::default()
    };
    let (kind, peer) = match operator {
        Operator::AddLearner(peer) => (ConfChangeType::AddLearnerNode, peer),
        Operator::Promote(peer) => (ConfChangeType::AddNode, peer),
        Operator::Remove(peer) => (ConfChangeType::RemoveNode, peer),
        Operator::Split(keys) => {
            let policy = pdpb::CheckPolicy::Usekey as i32;
            return RegionHeartbeatResponse {
                split_region: Some(pdpb::SplitRegion { policy, keys }),
                ..order
            };
        }
        Operator::Merge(target) => {
            return RegionHeartbeatResponse {
                merge: Some(pdpb::Merge { target: Some(target) }),
                ..order
            };
        }
        Operator::TransferLeader(peer) => {
            let transfer_leader = Some(pdpb::TransferLeader {
                peer: Some(peer),
                ..pdpb::TransferLeader::default()
            });
            return RegionHeartbeatResponse {
                transfer_leader,
                ..order
            };
        }
    };
    RegionHeartbeatResponse {
        change_peer: Some(pdpb::ChangePeer {
            peer: Some(peer),
            change_type: kind as i32,
        }),
        ..order
    }
}

/// The operator in an answer to a heartbeat, if there is one that stores of this version carry out.
pub fn operator_of_wire(response: &RegionHeartbeatResponse) -> Option<Operator> {
    if let Some(split) = response.split_region.as_ref().filter(|split| !split.keys.is_empty()) {
        return Some(Operator::Split(split.keys.clone()));
    }
    if let Some(target) = response.merge.as_ref().and_then(|merge| merge.target.clone()) {
        return Some(Operator::Merge(target));
    }
    if let Some(peer) = response.transfer_leader.as_ref().and_then(|transfer| transfer.peer) {
        return Some(Operator::TransferLeader(peer));
    }
    let change = response.change_peer.as_ref()?;
    let peer = change.peer?;
    Some(match change.change_type() {
        ConfChangeType::AddLearnerNode => Operator::AddLearner(peer),
        ConfChangeType::AddNode => Operator::Promote(peer),
        ConfChangeType::RemoveNode => Operator::Remove(peer),
    })
}

/// One region found, in each of the forms in which answers have it. All have these fields; buckets are never kept.
macro_rules! found {
    ($info:expr => $answer:ident) => {
        $answer {
            region: Some($info.region.clone()),
            leader: Some($info.leader.clone()),
            down_peers: $crate::pd_service::convert::down_peers($info),
            pending_peers: $info.pending_peers.clone(),
            ..$answer::default()
        }
    };
}
pub(super) use found;

pub(super) fn down_peers(info: &RegionInfo) -> Vec<PeerStats> {
    let stats = |down: &DownPeer| PeerStats {
        peer: Some(down.peer),
        down_seconds: down.down_seconds,
    };
    info.down_peers.iter().map(stats).collect()
}

/// Region and leader in two lists, as the oldest form of a scan has them.
pub(super) fn in_lists(regions: &[pdpb::Region]) -> (Vec<Region>, Vec<proto::metapb::Peer>) {
    regions
        .iter()
        .map(|found| (found.region.clone().unwrap_or_default(), found.leader.unwrap_or_default()))
        .unzip()
}

macro_rules! answers {
    ($($answer:ident),* $(,)?) => {
        $(impl Answer for pdpb::$answer {
            fn set_header(&mut self, header: pdpb::ResponseHeader) {
                self.header = Some(header);
            }
        })*
    };
}

answers! {
    AdvanceGcSafePointResponse, AdvanceTxnSafePointResponse, AllocIdResponse, BatchScanRegionsResponse, BootstrapResponse,
    DeleteGcBarrierResponse, GetAllKeyspacesGcStatesResponse, GetAllStoresResponse, GetClusterConfigResponse,
    GetClusterInfoResponse, GetGcSafePointResponse, GetGcStateResponse, GetMembersResponse, GetMinTsResponse, GetRegionResponse,
    GetStoreResponse, IsBootstrappedResponse, IsSnapshotRecoveringResponse, PutClusterConfigResponse, PutStoreResponse,
    AskBatchSplitResponse, GetOperatorResponse, ReportBatchSplitResponse, ReportSplitResponse, ScatterRegionResponse,
    SplitAndScatterRegionsResponse, QueryRegionResponse, RegionHeartbeatResponse, ScanRegionsResponse, SetGcBarrierResponse,
    SplitRegionsResponse, StoreHeartbeatResponse,
    TsoResponse, UpdateGcSafePointResponse, UpdateServiceGcSafePointResponse,
    GetAllGcSafePointV2Response, GetGcSafePointV2Response, UpdateGcSafePointV2Response, UpdateServiceSafePointV2Response,
}
