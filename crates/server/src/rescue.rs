//! Tells an operator's command what this store has of its regions, and lets a replica go on whose fellow voters are lost for good.
//!
//! The command decides ([`raftstore::rescue::plan`]), as it alone hears of all stores. This store holds it to two things: the placement
//! driver has removed the stores that are named as lost, so that they can never come back; and without them the region has no majority.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use base::{MonoTime, PeerId, RegionId, StoreId};
use proto::ferrite_raft::{ApplyState, RaftState, RegionState, region_state};
use proto::ferrite_rescue::rescue_server::{Rescue, RescueServer};
use proto::ferrite_rescue::{GoOnAnswer, GoOnRequest, RegionFacts, ReportAnswer, ReportRequest};
use proto::metapb::StoreState;
use raftstore::merge::Merging;
use raftstore::offline::{self, Facts, LogFacts, State};
use raftstore::rescue::{Order, lost_voters};
use raftstore::shell::RaftStore;
use raftstore::storage::LogPosition;
use tokio::sync::oneshot;
use tonic::{Request, Response, Status, async_trait};
use tracing::warn;

use crate::pd_client::{self, PdLink};

/// Regions in one answer: about 300 bytes each.
const PAGE: usize = 1000;
/// How long the placement driver and the region may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// The service of one store.
pub struct RescueService {
    raft: RaftStore,
    link: Arc<dyn PdLink>,
}

impl RescueService {
    pub fn new(raft: RaftStore, link: Arc<dyn PdLink>) -> RescueService {
        RescueService { raft, link }
    }

    /// The service for a tonic router.
    pub fn into_server(self) -> RescueServer<RescueService> {
        RescueServer::new(self)
    }

    fn check_cluster(&self, cluster: u64) -> Result<(), Status> {
        match cluster == self.raft.cluster_id().0 {
            true => Ok(()),
            false => Err(Status::failed_precondition("the store belongs to another cluster")),
        }
    }

    async fn facts(&self) -> Result<Vec<Facts>, Status> {
        let raft = self.raft.clone();
        let read = move || offline::read(raft.store_id(), &**raft.engine(), &**raft.raft_log());
        let facts = tokio::task::spawn_blocking(read).await;
        let facts = facts.map_err(|_| Status::unavailable("the store stops"))?;
        facts.map_err(|error| Status::internal(base::log::chain(&error).to_string()))
    }

    /// Why the order must not be carried out, if it must not.
    async fn check(&self, request: &GoOnRequest) -> Result<(), String> {
        let lost: BTreeSet<StoreId> = request.lost_stores.iter().copied().map(StoreId).collect();
        for &store in &lost {
            self.link.forget_store(store);
            match self.link.store(store, MonoTime::now() + PATIENCE).await {
                Ok(known) if known.state() == StoreState::Tombstone => {}
                Err(pd_client::Error::StoreTombstone) => {}
                Ok(_) => return Err(format!("the placement driver has not removed store {store}")),
                Err(error) => return Err(base::log::chain(&error).to_string()),
            }
        }
        let facts = self.facts().await.map_err(|status| status.message().to_owned())?;
        let id = RegionId(request.region_id);
        let facts = facts.iter().find(|facts| facts.id() == id && facts.state.holds_range());
        let facts = facts.ok_or_else(|| "this store has no data of it".to_owned())?;
        match lost_voters(&facts.region, &lost) {
            Some(_) => Ok(()),
            None => Err("it keeps a majority of its voters".to_owned()),
        }
    }

    async fn carry_out(&self, request: &GoOnRequest) -> Result<(), String> {
        self.check(request).await?;
        let order = match request.above {
            None => Order::ApplyLog,
            Some(above) => Order::OnlyVoter {
                above,
                rolls_back: request.rolls_back,
            },
        };
        warn!(region_id = request.region_id, ?order, lost_stores = ?request.lost_stores, "region goes on without its lost voters");
        let (answer, answered) = oneshot::channel();
        self.raft.rescue(
            RegionId(request.region_id),
            order,
            Box::new(move |done| drop(answer.send(done))),
        );
        match tokio::time::timeout(PATIENCE, answered).await {
            Ok(Ok(Ok(()))) => Ok(()),
            Ok(Ok(Err(refused))) => Err(refused.to_string()),
            Ok(Err(_)) | Err(_) => Err("no answer in time: look again".to_owned()),
        }
    }
}

#[async_trait]
impl Rescue for RescueService {
    async fn report(&self, request: Request<ReportRequest>) -> Result<Response<ReportAnswer>, Status> {
        let request = request.into_inner();
        self.check_cluster(request.cluster_id)?;
        let facts = self.facts().await?;
        let wanted = facts
            .iter()
            .filter(|facts| facts.state.holds_range() && facts.region.id > request.after_region);
        Ok(Response::new(ReportAnswer {
            store_id: self.raft.store_id().0,
            regions: wanted.take(PAGE).map(to_wire).collect(),
        }))
    }

    async fn go_on(&self, request: Request<GoOnRequest>) -> Result<Response<GoOnAnswer>, Status> {
        let request = request.into_inner();
        self.check_cluster(request.cluster_id)?;
        let refused = self.carry_out(&request).await.err().unwrap_or_default();
        Ok(Response::new(GoOnAnswer { refused }))
    }
}

fn to_wire(facts: &Facts) -> RegionFacts {
    let (merging, log) = (facts.merging.clone().unwrap_or_default(), &facts.log);
    let state = match facts.merging {
        Some(_) => region_state::State::Merging,
        None => region_state::State::Normal,
    };
    RegionFacts {
        state: Some(RegionState {
            state: state as i32,
            region: Some(facts.region.clone()),
            peer_id: facts.peer.0,
            since: Some(facts.since),
            target: facts.merging.is_some().then_some(merging.target),
            merge_index: merging.at.index,
            merge_term: merging.at.term,
            merged_into: 0,
        }),
        applied: Some(ApplyState {
            applied_index: facts.applied.index,
            applied_term: facts.applied.term,
        }),
        log: Some(RaftState {
            term: log.term,
            vote: log.vote,
            commit: log.commit,
            truncated_index: log.truncated.index,
            truncated_term: log.truncated.term,
        }),
        last_index: log.last.index,
        last_term: log.last.term,
    }
}

/// What a store told of a region.
pub fn from_wire(store: StoreId, wire: RegionFacts) -> Facts {
    let (state, applied, log) = (
        wire.state.unwrap_or_default(),
        wire.applied.unwrap_or_default(),
        wire.log.unwrap_or_default(),
    );
    let position = |index, term| LogPosition { index, term };
    let merging = state.target.clone().map(|target| Merging {
        target,
        at: position(state.merge_index, state.merge_term),
    });
    let truncated = position(log.truncated_index, log.truncated_term);
    let applied = position(applied.applied_index, applied.applied_term);
    Facts {
        store,
        peer: PeerId(state.peer_id),
        state: match &merging {
            _ if applied.index < truncated.index => State::Applying,
            Some(_) => State::Merging,
            None => State::Normal,
        },
        since: state.since.unwrap_or_default(),
        region: state.region.unwrap_or_default(),
        merging,
        merged_into: RegionId(0),
        applied,
        log: LogFacts {
            term: log.term,
            vote: log.vote,
            commit: log.commit,
            truncated,
            last: position(wire.last_index, wire.last_term),
        },
    }
}

#[cfg(test)]
mod tests {
    use proto::metapb::Region;

    use super::*;

    #[test]
    fn facts_survive_the_way() {
        let position = |index| LogPosition { index, term: 6 };
        let mut facts = Facts {
            store: StoreId(3),
            region: Region {
                id: 7,
                start_key: "a".into(),
                ..Region::default()
            },
            peer: PeerId(70),
            state: State::Normal,
            merging: None,
            merged_into: RegionId(0),
            since: Default::default(),
            applied: position(8),
            log: LogFacts {
                term: 9,
                vote: 2,
                commit: 8,
                truncated: position(5),
                last: position(12),
            },
        };
        assert_eq!(from_wire(StoreId(3), to_wire(&facts)), facts);
        facts.state = State::Merging;
        facts.merging = Some(Merging {
            target: Region::default(),
            at: position(8),
        });
        assert_eq!(from_wire(StoreId(3), to_wire(&facts)), facts);
        (facts.state, facts.log.truncated.index) = (State::Applying, 10);
        assert_eq!(from_wire(StoreId(3), to_wire(&facts)), facts);
    }
}
