//! Members of the placement driver among themselves: `ferrite_pd.PdPeers` on the port that clients use, and the links to other members.
//!
//! [`Peers`] is served before its member takes part, so that members which begin together find each other ([`begin`]).

use std::sync::Arc;
use std::time::Duration;

use base::RegionId;
use futures::StreamExt;
use parking_lot::Mutex;
use pd::log::Identity;
use pd::{Handle, MemberId, Operator, Reply, Request};
use proto::ferrite_pd::pd_peers_server::{PdPeers, PdPeersServer};
use proto::ferrite_pd::*;
use tonic::{Request as Call, Response, Status, Streaming};

pub mod begin;
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

fn told((region, operator, age): (RegionId, Operator, Duration)) -> StandingOperator {
    let (kind, peer) = match operator {
        Operator::AddLearner(peer) => ("add-learner", Some(peer)),
        Operator::Promote(peer) => ("promote", Some(peer)),
        Operator::Remove(peer) => ("remove", Some(peer)),
        Operator::TransferLeader(peer) => ("transfer-leader", Some(peer)),
        Operator::Split(_) => ("split", None),
        Operator::Merge(_) => ("merge", None),
    };
    StandingOperator {
        region_id: region.0,
        kind: kind.to_owned(),
        peer,
        age_seconds: age.as_secs(),
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
        match ask(&self.handle, Request::Operators).await {
            Ok(Reply::Operators(standing)) => {
                let operators = standing.into_iter().map(told).collect();
                Ok(Response::new(OperatorsAnswer { operators }))
            }
            Ok(other) => unreachable!("a reply to another request: {other:?}"),
            Err(refused) => Err(error::to_status(refused)),
        }
    }
}
