//! The listener: HTTP/1.1, HTTP/2 and gRPC on one port, with TLS where it is configured.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use ::http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Version, header};
use anyhow::Context as _;
use base::MonoTime;
use blob_store::{Key, Store};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use tls::{Acceptor, Clients, ServerOptions};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;
use tower::Service as _;

use crate::access::{Access, Caller};
use crate::body::Body;
use crate::cache::Cache;
use crate::config::{Config, TlsConfig};
use crate::error::Error;
use crate::http::{Service, refuse, status};
use crate::metrics::{self, Meters};
use crate::reapi::Reapi;
use crate::status::Pages;
use crate::tier::Tiers;
use crate::wire::{Loans, Wire};

/// Headers of one request, all together; clients send a few hundred bytes.
const HEADERS_MAX: usize = 16 << 10;
/// What one HTTP/1 connection buffers at most, of what it reads: it holds so much from its first body on.
const BUFFER_MAX: usize = 16 << 10;
/// Requests at once on one HTTP/2 connection; Bazel asks for a hundred.
const STREAMS_MAX: u32 = 256;
/// Bytes in flight on one stream, and on one connection.
const STREAM_WINDOW: u32 = 1 << 20;
const CONNECTION_WINDOW: u32 = 8 << 20;
/// A silent HTTP/2 peer is asked for a sign of life.
const KEEPALIVE: Duration = Duration::from_secs(20);
/// Wait after the system refused a connection for want of something.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// The page shows minutes.
const SAMPLE: Duration = Duration::from_secs(60);

/// Everything that a request may need.
struct App {
    access: Access,
    http: Service,
    grpc: Routes,
    pages: Pages,
    logs_access: bool,
}

/// A server that runs.
pub struct Server {
    pub address: SocketAddr,
    store: Store,
    tiers: Arc<Tiers>,
    stop: CancellationToken,
    /// Ends the senders to the tiers.
    tiers_stop: CancellationToken,
    places: Arc<Semaphore>,
    places_max: usize,
    drain: Duration,
}

impl Server {
    /// Opens the store and listens. Call it on the runtime.
    pub async fn start(config: &Config) -> anyhow::Result<Server> {
        let tls = tls(&config.tls).context("use the certificates of [tls]")?;
        // What fails often comes before the store: one that is left open is checked all over at the next start.
        let listener = TcpListener::bind(&config.server.addr)
            .await
            .with_context(|| format!("listen on {}", config.server.addr))?;
        let store = Store::open(config.store.to_store(config.server.memory_max)).context("open the store")?;
        let address = listener.local_addr().context("read the address")?;
        let meters = Arc::new(Meters::default());
        let stop = CancellationToken::new();
        let tiers_stop = CancellationToken::new();
        let tiers = Tiers::start(config, &store, &tiers_stop).inspect_err(|_| {
            let _tells_less = store.close();
        })?;
        let cache = Cache::new(store.clone(), tiers.clone(), config);
        let app = Arc::new(App {
            access: Access::new(config),
            grpc: Reapi::routes(cache.clone(), meters.clone()),
            pages: Pages::new(cache.clone(), meters.clone()),
            http: Service {
                cache,
                meters: meters.clone(),
            },
            logs_access: config.log.access,
        });
        let places = Arc::new(Semaphore::new(config.server.connections_max));
        let accept = Accept {
            listener,
            tls,
            places: places.clone(),
            app,
            idle: config.server.idle.0,
            stop: stop.clone(),
        };
        tokio::spawn(accept.run());
        tokio::spawn(sample(store.clone(), meters, stop.clone()));
        tracing::info!(%address, tls = !config.tls.certificate.as_os_str().is_empty(), "listening");
        Ok(Server {
            address,
            store,
            tiers,
            stop,
            tiers_stop,
            places,
            places_max: config.server.connections_max,
            drain: config.server.drain.0,
        })
    }

    /// Accepts no more, waits for running requests and for what is to be sent to the tiers, each within bounds, and closes the store.
    pub async fn stop(self) -> anyhow::Result<()> {
        self.stop.cancel();
        // All places are free once no connection is left.
        let all = self.places.acquire_many(self.places_max as u32);
        if tokio::time::timeout(self.drain, all).await.is_err() {
            tracing::warn!("requests still ran when the time to stop was up; cut off");
        }
        let left = self.tiers.drain(self.drain).await;
        if left > 0 {
            tracing::warn!(left, "blobs were not sent to the tiers when the time to stop was up");
        }
        self.tiers_stop.cancel();
        let store = self.store;
        tokio::task::spawn_blocking(move || store.close())
            .await
            .context("close the store")?
            .context("close the store")
    }
}

async fn sample(store: Store, meters: Arc<Meters>, stop: CancellationToken) {
    let mut every = tokio::time::interval(SAMPLE);
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = every.tick() => meters.sample(base::WallTime::now().seconds(), store.stats().used),
        }
    }
}

struct Accept {
    listener: TcpListener,
    tls: Option<Acceptor>,
    /// Bounds the connections; more wait in the system's queue.
    places: Arc<Semaphore>,
    app: Arc<App>,
    idle: Duration,
    stop: CancellationToken,
}

impl Accept {
    async fn run(self) {
        loop {
            let next = async {
                let place = self.places.clone().acquire_owned().await;
                (place.expect("the semaphore is never closed"), self.listener.accept().await)
            };
            let (place, accepted) = tokio::select! {
                () = self.stop.cancelled() => return,
                next = next => next,
            };
            let (io, peer) = match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    tracing::warn!(%error, "accept a connection");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            // Without it small answers wait for the peer's delayed acknowledgement.
            let _best_effort = io.set_nodelay(true);
            let connection = Connection {
                app: self.app.clone(),
                peer,
                idle: self.idle,
                stop: self.stop.clone(),
            };
            let tls = self.tls.clone();
            tokio::spawn(async move {
                metrics::CONNECTIONS.inc();
                connection.secure(io, tls).await;
                metrics::CONNECTIONS.dec();
                drop(place);
            });
        }
    }
}

struct Connection {
    app: Arc<App>,
    peer: SocketAddr,
    idle: Duration,
    stop: CancellationToken,
}

impl Connection {
    async fn secure(self, io: TcpStream, tls: Option<Acceptor>) {
        let Some(tls) = tls else {
            let io = Wire::new(io);
            let loans = io.loans();
            return self.serve(io, None, Some(loans)).await;
        };
        match tokio::time::timeout(self.idle, tls.accept(io)).await {
            Ok(Ok(io)) => {
                let certificates = io.get_ref().1.peer_certificates();
                let certificate = certificates.and_then(<[_]>::first).map(|first| Key::sha256(first));
                self.serve(io, certificate, None).await;
            }
            Ok(Err(error)) => tracing::debug!(peer = %self.peer, %error, "handshake"),
            Err(_) => tracing::debug!(peer = %self.peer, "handshake too slow"),
        }
    }

    async fn serve<I>(self, io: I, certificate: Option<Key>, loans: Option<Loans>)
    where
        I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let mut builder = Builder::new(TokioExecutor::new());
        builder
            .http1()
            .timer(TokioTimer::new())
            .header_read_timeout(self.idle)
            .max_buf_size(BUFFER_MAX);
        builder
            .http2()
            .timer(TokioTimer::new())
            .max_concurrent_streams(STREAMS_MAX)
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .max_header_list_size(HEADERS_MAX as u32)
            .keep_alive_interval(KEEPALIVE)
            .keep_alive_timeout(KEEPALIVE);
        let (app, peer) = (self.app, self.peer);
        let service = service_fn(move |mut request: Request<Incoming>| {
            let app = app.clone();
            // HTTP/2 has frames of its own around every part of a body.
            if let Some(loans) = loans.clone().filter(|_| request.version() <= Version::HTTP_11) {
                request.extensions_mut().insert(loans);
            }
            async move { Ok::<_, Infallible>(app.answer(request, peer, certificate).await) }
        });
        let connection = builder.serve_connection(TokioIo::new(io), service);
        tokio::pin!(connection);
        let served = tokio::select! {
            served = connection.as_mut() => served,
            () = self.stop.cancelled() => {
                connection.as_mut().graceful_shutdown();
                connection.await
            }
        };
        if let Err(error) = served {
            tracing::debug!(%peer, error = %error, "connection ended");
        }
    }
}

impl App {
    async fn answer(&self, request: Request<Incoming>, peer: SocketAddr, certificate: Option<Key>) -> Response<Body> {
        if !self.logs_access {
            return self.route(request, certificate).await.0;
        }
        let start = MonoTime::now();
        let (method, path) = (request.method().clone(), request.uri().path().to_owned());
        let (response, caller) = self.route(request, certificate).await;
        let micros = MonoTime::now().since(start).as_micros() as u64;
        let bytes = http_body::Body::size_hint(response.body()).exact();
        let caller = caller.as_ref().map_or("", Caller::name);
        let status = response.status().as_u16();
        tracing::info!(target: "access", %peer, caller, %method, path, status, bytes, micros);
        response
    }

    async fn route(&self, mut request: Request<Incoming>, certificate: Option<Key>) -> (Response<Body>, Option<Caller>) {
        let is_grpc = is_grpc(request.headers());
        if headers_len(request.headers()) > HEADERS_MAX {
            return (status(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE), None);
        }
        let caller = match self.access.identify(request.headers(), certificate) {
            Ok(caller) => caller,
            Err(error) if is_grpc => return (grpc_error(error), None),
            Err(error) => return (refuse(&error), None),
        };
        if is_grpc {
            request.extensions_mut().insert(caller.clone());
            let request = request.map(tonic::body::Body::new);
            let response = match self.grpc.clone().call(request).await {
                Ok(response) => response.map(Body::Grpc),
                Err(never) => match never {},
            };
            return (response, Some(caller));
        }
        let response = match self.page(&caller, &request).await {
            Some(response) => response,
            None => self.http.answer(&caller, request).await,
        };
        (response, Some(caller))
    }

    /// Pages for people, Prometheus and operators.
    async fn page(&self, caller: &Caller, request: &Request<Incoming>) -> Option<Response<Body>> {
        let path = request.uri().path();
        let answer = match (request.method(), path) {
            (&Method::GET, "/") => self.pages.html(),
            (&Method::GET, "/status") => self.pages.status(),
            (&Method::GET, "/metrics") => self.pages.metrics(),
            (&Method::DELETE, path) if path.starts_with("/admin/") => {
                let done = match caller.check_admin() {
                    Ok(()) => self.pages.purge(&path["/admin/".len()..]).await,
                    Err(error) => Err(error),
                };
                return Some(done.unwrap_or_else(|error| refuse(&error)));
            }
            _ => return None,
        };
        Some(caller.check_read().map_or_else(|error| refuse(&error), |()| answer))
    }
}

fn is_grpc(headers: &HeaderMap) -> bool {
    let kind = headers.get(header::CONTENT_TYPE).map(HeaderValue::as_bytes);
    kind.is_some_and(|kind| kind.starts_with(b"application/grpc"))
}

fn headers_len(headers: &HeaderMap) -> usize {
    headers.iter().map(|(name, value)| name.as_str().len() + value.len()).sum()
}

fn grpc_error(error: Error) -> Response<Body> {
    tonic::Status::from(error).into_http::<tonic::body::Body>().map(Body::Grpc)
}

/// TLS as configured; `None` where it is off.
fn tls(config: &TlsConfig) -> Result<Option<Acceptor>, tls::Error> {
    if config.certificate.as_os_str().is_empty() {
        return Ok(None);
    }
    let authority = config.client_ca.clone().into();
    let options = ServerOptions {
        certificate: config.certificate.clone().into(),
        key: config.key.clone().into(),
        clients: match (config.client_ca.as_os_str().is_empty(), config.client_required) {
            (true, _) => Clients::Anonymous,
            (false, true) => Clients::Required(authority),
            (false, false) => Clients::Optional(authority),
        },
        allowed_cn: Vec::new(),
        protocols: vec!["h2", "http/1.1"],
    };
    Acceptor::new(&options).map(Some)
}
