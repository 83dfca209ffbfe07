//! Requests that a member which does not lead passes on to the one that does.
//!
//! Clients that reach a follower alone name the leader in `pd-forwarded-host`. It is a hint that they want that, no more: the request
//! goes to the member that this one knows to lead, never to an address of the client's. People with `curl` and tools read the HTTP
//! API on any member. A request is passed on once.

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use parking_lot::Mutex;
use pd::Handle;
use tls::Dialer;
use tonic::transport::Channel;
use tower::{Service, ServiceExt};

/// By this clients ask for it.
pub const WANTED: &str = "pd-forwarded-host";
/// The request was passed on already.
const DONE: HeaderName = HeaderName::from_static("ferrite-forwarded");
/// Pages that every member answers for itself.
const OWN_PAGES: [&str; 4] = [
    "/pd/api/v1/version",
    "/pd/api/v1/status",
    "/pd/api/v1/members",
    "/pd/api/v1/health",
];

#[derive(Clone)]
struct Forwarder {
    handle: Handle,
    dialer: Dialer,
    /// The link to the last leader.
    link: Arc<Mutex<Option<(String, Channel)>>>,
}

/// `routes`, of which some are served by the leader.
pub fn layer(routes: Router, handle: Handle, dialer: Dialer) -> Router {
    let forwarder = Forwarder {
        handle,
        dialer,
        link: Arc::default(),
    };
    routes.layer(from_fn_with_state(forwarder, maybe_forward))
}

async fn maybe_forward(State(forwarder): State<Forwarder>, request: Request, next: Next) -> Response {
    let path = request.uri().path();
    let is_page = path.starts_with("/pd/") && !OWN_PAGES.contains(&path);
    let wanted = is_page || request.headers().contains_key(WANTED);
    if !wanted || request.headers().contains_key(&DONE) {
        return next.run(request).await;
    }
    let Some(channel) = forwarder.leader() else {
        return next.run(request).await;
    };
    forward(channel, request).await
}

impl Forwarder {
    /// A link to another member that leads.
    fn leader(&self) -> Option<Channel> {
        let status = self.handle.status();
        let leader = status.leader.filter(|&leader| leader != status.me)?;
        let url = status.member(leader)?.client_urls.first()?.clone();
        let mut link = self.link.lock();
        if let Some((of, channel)) = &*link
            && *of == url
        {
            return Some(channel.clone());
        }
        let channel = self.dialer.connect_lazy(self.dialer.endpoint(&url).ok()?.tcp_nodelay(true));
        *link = Some((url, channel.clone()));
        Some(channel)
    }
}

async fn forward(mut channel: Channel, request: Request) -> Response {
    let is_grpc = is_grpc(request.headers());
    let mut request = request.map(tonic::body::Body::new);
    *request.version_mut() = axum::http::Version::HTTP_2;
    request.headers_mut().remove(WANTED);
    // Of HTTP/1.1 alone; HTTP/2 does not allow them.
    for header in ["host", "connection", "keep-alive", "transfer-encoding", "upgrade"] {
        request.headers_mut().remove(header);
    }
    request.headers_mut().insert(DONE, HeaderValue::from_static("1"));
    let answer = match channel.ready().await {
        Ok(channel) => channel.call(request).await,
        Err(error) => Err(error),
    };
    match answer {
        Ok(answer) => answer.map(Body::new),
        Err(error) => {
            tracing::debug!(error = %base::log::chain(&error), "pass a request on to the leader");
            match is_grpc {
                true => tonic::Status::unavailable("not leader, and the leader cannot be reached").into_http::<Body>(),
                false => axum::http::StatusCode::SERVICE_UNAVAILABLE.into_response(),
            }
        }
    }
}

fn is_grpc(headers: &HeaderMap) -> bool {
    let kind = headers.get("content-type").map(|value| value.as_bytes());
    kind.is_some_and(|kind| kind.starts_with(b"application/grpc"))
}
