//! Listening sockets, and how connections on them are served: HTTP/2 for gRPC, HTTP/1.1 beside it on the same port, all by TLS where it
//! is configured.
//!
//! A listener serves a bounded number of connections; more wait in the system's queue. Its stop has three steps: it accepts
//! no more, running requests end (endless streams are told that the client has said all), and after a bound the rest is cut off.

mod connection;
mod metrics;

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::Router;
use axum::http::{Request, header};
use axum::response::IntoResponse;
use bytes::Bytes;
use futures::{Future, Stream};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};
use tower::util::MapRequestLayer;
use tracing::{debug, warn};

use self::connection::Connection;
use crate::failure::Failure;

/// Largest gRPC message in either direction: twice the largest raft entry of a default configuration. Services set it themselves.
pub const MESSAGE_MAX: usize = 16 << 20;

/// Requests at once on one connection, as other servers of this wire allow; clients open several connections.
const STREAMS_MAX: u32 = 1024;
/// Bytes in flight on one stream: a batch of requests fits, and a stream that is not read holds no more than this.
const STREAM_WINDOW: u32 = 2 << 20;
/// Bytes in flight on one connection over all its streams.
const CONNECTION_WINDOW: u32 = 16 << 20;
/// Headers of one request; clients send a few hundred bytes.
const HEADERS_MAX: u32 = 64 << 10;
/// A silent peer is asked for a sign of life after this long, and dropped if none comes for twice that.
const KEEPALIVE: Duration = Duration::from_secs(10);
/// Wait after the system refused a connection for want of something (file descriptors), so as not to spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// RPCs whose client may keep its half of the stream open for ever: a stop ends that half for it.
const ENDLESS: [&str; 8] = [
    "/ferrite_pd.PdPeers/Raft",
    "/tikvpb.Tikv/BatchCommands",
    "/ferrite_raft.StoreTransport/Raft",
    "/pdpb.PD/Tso",
    "/pdpb.PD/RegionHeartbeat",
    "/pdpb.PD/QueryRegion",
    "/pdpb.PD/WatchGlobalConfig",
    "/tsopb.TSO/Tso",
];

/// Binds `addr`; `flag` names the option to change if it is taken. Nothing is accepted before [`serve`].
pub fn bind(addr: SocketAddr, flag: &'static str) -> Result<std::net::TcpListener, Failure> {
    let listener = std::net::TcpListener::bind(addr).map_err(|source| match source.kind() {
        io::ErrorKind::AddrInUse => Failure::PortTaken { addr, flag },
        _ => Failure::Listen { addr, flag, source },
    })?;
    listener
        .set_nonblocking(true)
        .map_err(|source| Failure::Listen { addr, flag, source })?;
    Ok(listener)
}

/// Serves `routes` on `listener`, at most `connections_max` connections at once, by `tls` if it is given. Call it on the runtime.
pub fn serve(
    listener: std::net::TcpListener,
    routes: Router,
    connections_max: usize,
    tls: Option<tls::Acceptor>,
) -> io::Result<Listener> {
    let address = listener.local_addr()?;
    let accepted = connections(TcpListener::from_std(listener)?, connections_max, tls);
    let stop = CancellationToken::new();
    let stopped = stop.clone();
    let end_endless = stop.clone();
    let routes = routes.layer(MapRequestLayer::new(move |request: Request<axum::body::Body>| {
        end_on_stop(request, &end_endless)
    }));
    let server = tonic::transport::Server::builder()
        .accept_http1(true)
        .max_concurrent_streams(STREAMS_MAX)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .http2_max_header_list_size(HEADERS_MAX)
        .http2_keepalive_interval(Some(KEEPALIVE))
        .http2_keepalive_timeout(Some(KEEPALIVE * 2))
        .add_routes(tonic::service::Routes::from(routes).prepare())
        .serve_with_incoming_shutdown(accepted, stopped.cancelled_owned());
    let task = tokio::spawn(async move {
        if let Err(error) = server.await {
            warn!(%address, error = %base::log::chain(&error), "listener ended");
        }
    });
    Ok(Listener { address, stop, task })
}

/// A socket that is being served.
pub struct Listener {
    pub address: SocketAddr,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl Listener {
    /// Stops accepting, then waits for running requests, no longer than `drain`. Returns whether all of them ended.
    pub async fn stop(self, drain: Duration) -> bool {
        self.stop.cancel();
        let drained = tokio::time::timeout(drain, self.task).await.is_ok();
        if !drained {
            warn!(address = %self.address, "requests still ran when the time to stop was up; cut off");
        }
        drained
    }
}

/// Answers what no route matches: gRPC clients take UNIMPLEMENTED as a hint to fall back, browsers want a 404.
pub async fn unknown_route(request: Request<axum::body::Body>) -> axum::response::Response {
    let content_type = request.headers().get(header::CONTENT_TYPE).map(|value| value.as_bytes());
    if content_type.is_some_and(|kind| kind.starts_with(b"application/grpc")) {
        return tonic::Status::unimplemented("").into_http::<axum::body::Body>();
    }
    (axum::http::StatusCode::NOT_FOUND, "no such page\n").into_response()
}

/// Connections as they come, each holding one of `max` places until it closes.
fn connections(listener: TcpListener, max: usize, tls: Option<tls::Acceptor>) -> impl Stream<Item = io::Result<Connection>> {
    let places = Arc::new(Semaphore::new(max));
    futures::stream::unfold((listener, places, tls), |(listener, places, tls)| async move {
        let place = places.clone().acquire_owned().await.expect("the semaphore is never closed");
        let io = accept(&listener).await;
        Some((Ok(Connection::new(io, place, tls.as_ref())), (listener, places, tls)))
    })
}

async fn accept(listener: &TcpListener) -> TcpStream {
    loop {
        match listener.accept().await {
            Ok((io, peer)) => {
                // Without it small answers wait for the peer's delayed acknowledgement: 40 ms instead of 0.1.
                if let Err(error) = io.set_nodelay(true) {
                    debug!(%peer, %error, "set TCP_NODELAY");
                }
                return io;
            }
            Err(error) if is_of_one_connection(&error) => debug!(%error, "connection ended before it was accepted"),
            Err(error) => {
                warn!(%error, "accept a connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

fn is_of_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted};
    matches!(
        error.kind(),
        ConnectionAborted | ConnectionRefused | ConnectionReset | Interrupted
    )
}

fn end_on_stop(request: Request<axum::body::Body>, stop: &CancellationToken) -> Request<axum::body::Body> {
    if !ENDLESS.contains(&request.uri().path()) {
        return request;
    }
    let stop = Box::pin(stop.clone().cancelled_owned());
    request.map(|body| axum::body::Body::new(EndOnStop { body, stop }))
}

/// A request body that ends when the listener stops: to the service it looks as if the client had said all it wanted to.
struct EndOnStop {
    body: axum::body::Body,
    stop: Pin<Box<WaitForCancellationFutureOwned>>,
}

impl hyper::body::Body for EndOnStop {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<hyper::body::Frame<Bytes>, axum::Error>>> {
        // What has arrived is served; the end comes only in its place.
        if let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(cx) {
            return Poll::Ready(frame);
        }
        ready!(self.stop.as_mut().poll(cx));
        Poll::Ready(None)
    }
}
