//! The listeners: pictures on one address, health, figures and purges on another.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use base::MonoTime;
use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use percent_encoding::percent_decode_str;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use crate::config::Config;
use crate::metrics;
use crate::service::{Body, Service};

/// What one HTTP/1 connection buffers at most, of what it reads: paths and headers.
const BUFFER_MAX: usize = 16 << 10;
/// Requests at once on one HTTP/2 connection.
const STREAMS_MAX: u32 = 100;
/// Wait after the system refused a connection for want of something.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Connections to the address for operators.
const STATUS_CONNECTIONS_MAX: usize = 64;

/// A server that runs.
pub struct Server {
    pub address: SocketAddr,
    pub status_address: Option<SocketAddr>,
    service: Arc<Service>,
    stop: CancellationToken,
    places: Arc<Semaphore>,
    places_max: usize,
    drain: Duration,
}

/// What a listener is for.
#[derive(Clone, Copy)]
enum Role {
    Pictures,
    Status,
}

impl Server {
    /// Opens the cache and listens. Call it on the runtime.
    pub async fn start(config: &Config) -> anyhow::Result<Server> {
        let service = Arc::new(Service::new(config)?);
        let stop = CancellationToken::new();
        let places = Arc::new(Semaphore::new(config.server.connections_max));
        let accept = |listener, role, places: &Arc<Semaphore>| Accept {
            listener,
            role,
            places: places.clone(),
            service: service.clone(),
            idle: config.server.idle.0,
            logs: config.log.access,
            stop: stop.clone(),
        };
        let (listener, address) = bind(&config.server.addr).await?;
        tokio::spawn(accept(listener, Role::Pictures, &places).run());
        let status_address = match config.server.status_addr.is_empty() {
            true => None,
            false => {
                let (listener, address) = bind(&config.server.status_addr).await?;
                let places = Arc::new(Semaphore::new(STATUS_CONNECTIONS_MAX));
                tokio::spawn(accept(listener, Role::Status, &places).run());
                Some(address)
            }
        };
        tracing::info!(%address, workers = config.server.workers(), "listening");
        Ok(Server {
            address,
            status_address,
            service,
            stop,
            places,
            places_max: config.server.connections_max,
            drain: config.server.drain.0,
        })
    }

    /// Accepts no more, waits for running requests within bounds, and closes the cache.
    pub async fn stop(self) -> anyhow::Result<()> {
        self.stop.cancel();
        let all = self.places.acquire_many(self.places_max as u32);
        if tokio::time::timeout(self.drain, all).await.is_err() {
            tracing::warn!("requests still ran when the time to stop was up; cut off");
        }
        self.service.close().await
    }
}

async fn bind(address: &str) -> anyhow::Result<(TcpListener, SocketAddr)> {
    let listener = TcpListener::bind(address)
        .await
        .with_context(|| format!("listen on {address}"))?;
    let address = listener.local_addr().context("read the address")?;
    Ok((listener, address))
}

struct Accept {
    listener: TcpListener,
    role: Role,
    /// Bounds the connections; more wait in the system's queue.
    places: Arc<Semaphore>,
    service: Arc<Service>,
    idle: Duration,
    logs: bool,
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
                service: self.service.clone(),
                role: self.role,
                peer,
                idle: self.idle,
                logs: self.logs,
                stop: self.stop.clone(),
            };
            tokio::spawn(async move {
                metrics::CONNECTIONS.inc();
                connection.serve(io).await;
                metrics::CONNECTIONS.dec();
                drop(place);
            });
        }
    }
}

struct Connection {
    service: Arc<Service>,
    role: Role,
    peer: SocketAddr,
    idle: Duration,
    logs: bool,
    stop: CancellationToken,
}

impl Connection {
    async fn serve(self, io: TcpStream) {
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
            .max_header_list_size(BUFFER_MAX as u32)
            .keep_alive_interval(self.idle)
            .keep_alive_timeout(self.idle);
        let (service, role, peer, logs) = (self.service, self.role, self.peer, self.logs);
        let answer = service_fn(move |request| {
            let service = service.clone();
            async move { Ok::<_, Infallible>(answer(service, role, peer, logs, request).await) }
        });
        let connection = builder.serve_connection(TokioIo::new(io), answer);
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

async fn answer(service: Arc<Service>, role: Role, peer: SocketAddr, logs: bool, request: Request<Incoming>) -> Response<Body> {
    match role {
        Role::Status => status(&service, &request).await,
        Role::Pictures if !logs => service.answer(request, peer.ip()).await,
        Role::Pictures => {
            let start = MonoTime::now();
            let (method, path) = (request.method().clone(), request.uri().path().to_owned());
            let response = service.answer(request, peer.ip()).await;
            let micros = MonoTime::now().since(start).as_micros() as u64;
            let status = response.status().as_u16();
            tracing::info!(target: "access", %peer, %method, path, status, micros);
            response
        }
    }
}

/// For operators; nothing here waits for work on pictures.
async fn status(service: &Service, request: &Request<Incoming>) -> Response<Body> {
    let path = request.uri().path();
    match (request.method(), path) {
        (&Method::GET | &Method::HEAD, "/health") => text(StatusCode::OK, "ok\n".into()),
        (&Method::GET, "/metrics") => text(StatusCode::OK, base::metrics::render()),
        (&Method::DELETE, path) if path.starts_with("/purge/") => {
            let source = percent_decode_str(&path["/purge/".len()..]).decode_utf8();
            match source {
                Err(_) => text(StatusCode::BAD_REQUEST, "the source is not text in percent encoding\n".into()),
                Ok(source) => match service.purge(&source).await {
                    Ok(()) => text(StatusCode::OK, format!("purged {source}\n")),
                    Err(error) => {
                        tracing::error!(error = format!("{error:#}"), "purge");
                        text(
                            StatusCode::INTERNAL_SERVER_ERROR,
                            "the purge failed; the log tells why\n".into(),
                        )
                    }
                },
            }
        }
        _ => text(
            StatusCode::NOT_FOUND,
            "wanted GET /health, GET /metrics or DELETE /purge/SOURCE\n".into(),
        ),
    }
}

fn text(status: StatusCode, text: String) -> Response<Body> {
    let builder = Response::builder()
        .status(status)
        .header(header::CONTENT_TYPE, "text/plain; charset=utf-8");
    builder.body(Full::new(Bytes::from(text))).expect("headers are constants")
}
