//! The placement driver on the wire: `pdpb.PD`, `keyspacepb.Keyspace` and `grpc.health.v1` over a [`pd::Handle`].
//!
//! Every answer begins with a header that names the cluster, and errors that clients must tell apart travel in it under an OK
//! status. A member that does not lead answers who does, and all else with UNAVAILABLE, "not leader". A request for another cluster is
//! refused, except the two with which clients begin. RPCs that are not here answer UNIMPLEMENTED, on which clients fall back: global
//! configuration, keyspaces other than the default one.

use std::sync::Arc;

use axum::Router;
use base::ClusterId;
use pd::{Handle, Reply, Request};
use proto::keyspacepb::keyspace_server::KeyspaceServer;
use proto::pdpb::pd_server::PdServer;
use proto::pdpb::{self, RequestHeader, ResponseHeader};
use tokio::sync::{oneshot, watch};
use tonic::{Response, Status};

mod convert;
pub(crate) mod error;
pub mod forward;
mod keyspace;
mod orders;
mod rpc;

#[cfg(test)]
pub(crate) mod tests;

pub use convert::{heartbeat_of_wire, heartbeat_to_wire, operator_of_wire, operator_to_wire};

/// Version that the cluster announces: clients choose their behavior by it.
pub const CLUSTER_VERSION: &str = "8.5.0";
/// Largest request: a heartbeat or a batch of look-ups is far smaller.
const REQUEST_BYTES_MAX: usize = 16 << 20;

/// Everything that a placement driver serves to clients over gRPC, for the listener to serve.
pub fn routes(handle: Handle) -> Router {
    services(handle).into_axum_router()
}

/// The services of [`routes`], for further ones to be added.
pub fn services(handle: Handle) -> tonic::service::Routes {
    let reports_wanted = Arc::new(watch::Sender::new(()));
    let listener = Arc::downgrade(&reports_wanted);
    handle.on_want_reports(Box::new(move || {
        listener.upgrade().is_some_and(|wanted| {
            wanted.send_replace(());
            true
        })
    }));
    let role_changed = Arc::new(watch::Sender::new(()));
    let listener = Arc::downgrade(&role_changed);
    handle.on_status(Box::new(move || {
        listener.upgrade().is_some_and(|changed| {
            changed.send_replace(());
            true
        })
    }));
    let service = PdService {
        handle,
        reports_wanted,
        role_changed,
    };
    let (_, health) = tonic_health::server::health_reporter();
    let pd = PdServer::new(service.clone()).max_decoding_message_size(REQUEST_BYTES_MAX);
    tonic::service::Routes::new(pd)
        .add_service(KeyspaceServer::new(service))
        .add_service(health)
}

/// Asks and waits for the answer.
pub async fn ask(handle: &Handle, request: Request) -> Result<Reply, pd::Error> {
    let (sender, receiver) = oneshot::channel();
    // Whoever asked may be gone when the answer comes.
    handle.submit(request, Box::new(move |outcome| drop(sender.send(outcome))));
    receiver.await.unwrap_or(Err(pd::Error::Stopped))
}

/// See the module.
#[derive(Clone)]
struct PdService {
    handle: Handle,
    /// Changes whenever leaders should report their regions at once.
    reports_wanted: Arc<watch::Sender<()>>,
    /// Changes whenever another member may lead.
    role_changed: Arc<watch::Sender<()>>,
}

/// An answer of PD, which begins with a header.
trait Answer: Default {
    fn set_header(&mut self, header: ResponseHeader);
}

impl PdService {
    /// Asks, and makes the answer of the reply by `fill`, which leaves the header out. An error of PD becomes its header.
    async fn answer<A: Answer>(
        &self,
        header: Option<RequestHeader>,
        request: Request,
        fill: impl FnOnce(Reply) -> A,
    ) -> Result<Response<A>, Status> {
        self.check_cluster(header)?;
        self.answer_anyone(request, fill).await
    }

    /// Like [`PdService::answer`], whatever cluster the asker takes this for.
    async fn answer_anyone<A: Answer>(&self, request: Request, fill: impl FnOnce(Reply) -> A) -> Result<Response<A>, Status> {
        let (mut answer, error) = match ask(&self.handle, request).await {
            Ok(reply) => (fill(reply), None),
            Err(error) => (A::default(), Some(error::to_wire(error)?)),
        };
        answer.set_header(self.header(error));
        Ok(Response::new(answer))
    }

    fn header(&self, error: Option<pdpb::Error>) -> ResponseHeader {
        ResponseHeader {
            cluster_id: self.handle.cluster().0,
            error,
        }
    }

    /// Errors as clients expect unless this member leads, as far as it knows.
    fn check_leads(&self) -> Result<(), Status> {
        match self.handle.status().leads() {
            true => Ok(()),
            false => Err(error::to_status(pd::Error::NotLeader)),
        }
    }

    /// Resolves once this member does not lead.
    async fn led_no_more(&self) {
        let mut changes = self.role_changed.subscribe();
        while self.check_leads().is_ok() && changes.changed().await.is_ok() {}
    }

    fn check_cluster(&self, header: Option<RequestHeader>) -> Result<(), Status> {
        let found = ClusterId(header.map_or(0, |header| header.cluster_id));
        let wanted = self.handle.cluster();
        self.check_leads()?;
        match found == wanted {
            true => Ok(()),
            false => Err(Status::failed_precondition(format!(
                "mismatch cluster id, need {wanted} but got {found}"
            ))),
        }
    }
}
