//! Members of the placement driver among themselves: `ferrite_pd.PdPeers` on the port that clients use, and the links to other members.
//!
//! [`Peers`] is served before its member takes part, so that members which begin together find each other ([`begin`]).

use std::sync::Arc;

use base::{RegionId, StoreId};
use futures::StreamExt;
use parking_lot::Mutex;
use pd::log::Identity;
use pd::{Handle, MemberId, Reply, Request, Want};
use proto::ferrite_pd::pd_peers_server::{PdPeers, PdPeersServer};
use proto::ferrite_pd::*;
use tonic::{Request as Call, Response, Status, Streaming};

pub mod begin;
mod told;
mod transport;

pub use transport::Links;
pub(crate) use transport::connect;

use crate::pd_service::{ask, error};

/// Largest message: a snapshot of the state, with every store and first region, is far smaller.
const MESSAGE_BYTES_MAX: usize = 64 << 20;

/// The service of one member.
#[derive(Clone)]
pub struct Peers {
    handle: Handle,
    me: Member,
    identity: Arc<Mutex<Identity>>,
}

impl Peers {
    /// Of the member `me`, which takes part if `identity` names its group.
    pub fn new(handle: Handle, me: Member, identity: Identity) -> Peers {
        Peers {
            handle,
            me,
            identity: Arc::new(Mutex::new(identity)),
        }
    }

    /// The member takes part from here on.
    pub fn take_part(&self, identity: Identity) {
        *self.identity.lock() = identity;
    }

    /// The service, for the listener of the placement driver.
    pub fn into_server(self) -> PdPeersServer<Peers> {
        PdPeersServer::new(self)
            .max_decoding_message_size(MESSAGE_BYTES_MAX)
            .max_encoding_message_size(MESSAGE_BYTES_MAX)
    }

    async fn done(&self, request: Request) -> Result<Response<Done>, Status> {
        match ask(&self.handle, request).await {
            Ok(_) => Ok(Response::new(Done {})),
            Err(refused) => Err(error::to_status(refused)),
        }
    }

    /// Asks, and makes the answer of the reply.
    async fn told<A>(&self, request: Request, tell: impl FnOnce(Reply) -> A) -> Result<Response<A>, Status> {
        match ask(&self.handle, request).await {
            Ok(reply) => Ok(Response::new(tell(reply))),
            Err(refused) => Err(error::to_status(refused)),
        }
    }

    fn check_cluster(&self, cluster_id: u64) -> Result<(), Status> {
        let known = self.handle.cluster();
        match known.0 == cluster_id {
            true => Ok(()),
            false => Err(Status::failed_precondition(format!(
                "this is a member of cluster {known}, not of {cluster_id}"
            ))),
        }
    }
}

#[tonic::async_trait]
impl PdPeers for Peers {
    async fn raft(&self, call: Call<Streaming<GroupBatch>>) -> Result<Response<Done>, Status> {
        let mut batches = call.into_inner();
        while let Some(batch) = batches.next().await {
            if !self.handle.deliver(batch?) {
                return Err(Status::failed_precondition("this is a member of another group"));
            }
        }
        Ok(Response::new(Done {}))
    }

    async fn hello(&self, _: Call<HelloRequest>) -> Result<Response<HelloAnswer>, Status> {
        let Identity { group, founders, .. } = self.identity.lock().clone();
        Ok(Response::new(HelloAnswer {
            me: Some(self.me.clone()),
            group,
            founders,
            cluster_id: self.handle.cluster().0,
        }))
    }

    async fn enlist(&self, call: Call<EnlistRequest>) -> Result<Response<Done>, Status> {
        let EnlistRequest { group, member } = call.into_inner();
        if group != self.identity.lock().group {
            return Err(Status::failed_precondition("this is a member of another group"));
        }
        self.done(Request::Enlist(member.unwrap_or_default())).await
    }

    async fn remove_member(&self, call: Call<RemoveMemberRequest>) -> Result<Response<Done>, Status> {
        let RemoveMemberRequest { cluster_id, member_id } = call.into_inner();
        self.check_cluster(cluster_id)?;
        self.done(Request::RemoveMember(MemberId(member_id))).await
    }

    async fn transfer_leader(&self, call: Call<TransferLeaderRequest>) -> Result<Response<Done>, Status> {
        let TransferLeaderRequest { cluster_id, member_id } = call.into_inner();
        self.check_cluster(cluster_id)?;
        self.done(Request::TransferLeader(MemberId(member_id))).await
    }

    async fn change_schedule(&self, call: Call<ScheduleRequest>) -> Result<Response<Done>, Status> {
        let ScheduleRequest { cluster_id, change } = call.into_inner();
        self.check_cluster(cluster_id)?;
        self.done(Request::Schedule(change.unwrap_or_default())).await
    }

    async fn get_operators(&self, call: Call<OperatorsRequest>) -> Result<Response<OperatorsAnswer>, Status> {
        self.check_cluster(call.into_inner().cluster_id)?;
        self.told(Request::Operators, told::operators).await
    }

    async fn add_operator(&self, call: Call<AddOperatorRequest>) -> Result<Response<Done>, Status> {
        let request = call.into_inner();
        self.check_cluster(request.cluster_id)?;
        let region = RegionId(request.region_id);
        let wanted = match request
            .kind
            .ok_or_else(|| Status::invalid_argument("this version does not know that order"))?
        {
            add_operator_request::Kind::TransferLeader(store) => Request::Want(region, Want::Leader(StoreId(store))),
            add_operator_request::Kind::MovePeer(MovePeer { from_store, to_store }) => {
                Request::Want(region, Want::Move(StoreId(from_store), StoreId(to_store)))
            }
            add_operator_request::Kind::Scatter(group) => {
                let regions = vec![region];
                return self.told(Request::Scatter { regions, group }, |_| Done {}).await;
            }
        };
        self.done(wanted).await
    }

    async fn remove_operator(&self, call: Call<RemoveOperatorRequest>) -> Result<Response<Done>, Status> {
        let RemoveOperatorRequest { cluster_id, region_id } = call.into_inner();
        self.check_cluster(cluster_id)?;
        self.done(Request::GiveUp(RegionId(region_id))).await
    }

    async fn get_scheduling(&self, call: Call<SchedulingRequest>) -> Result<Response<SchedulingAnswer>, Status> {
        self.check_cluster(call.into_inner().cluster_id)?;
        self.told(Request::Scheduling, told::scheduling).await
    }

    async fn check_rules(&self, call: Call<CheckRulesRequest>) -> Result<Response<CheckRulesAnswer>, Status> {
        let request = call.into_inner();
        self.check_cluster(request.cluster_id)?;
        let look = Request::CheckRules {
            start: request.start_key,
            limit: request.limit as usize,
        };
        self.told(look, told::rules_checked).await
    }

    async fn get_hot(&self, call: Call<HotRequest>) -> Result<Response<HotAnswer>, Status> {
        let HotRequest { cluster_id, limit } = call.into_inner();
        self.check_cluster(cluster_id)?;
        self.told(Request::Hot { limit: limit as usize }, told::hot).await
    }

    async fn list_members(&self, call: Call<MembersRequest>) -> Result<Response<MembersAnswer>, Status> {
        self.check_cluster(call.into_inner().cluster_id)?;
        self.told(Request::Members, told::members).await
    }
}
