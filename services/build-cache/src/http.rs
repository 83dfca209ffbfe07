//! The protocols over plain HTTP. They differ in their paths ([`crate::name`]) and in how they want to be answered.

mod dav;
pub(crate) mod headers;
mod turbo;

use std::sync::Arc;

use ::http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, header};
use base::MonoTime;
use blob_store::{Blob, Content, Encoding, Form, Key};
use bytes::Bytes;
use http_body_util::BodyExt as _;

use crate::access::Caller;
use crate::action;
use crate::body::Body;
use crate::cache::{self, Cache, Coding};
use crate::error::Error;
use crate::metrics::{Meter, Meters, Op};
use crate::name::{self, Protocol, Target, What};
use crate::tier::Id;

/// A body that nobody wants is read up to this far, so that the client hears why before the connection closes.
const DRAIN_MAX: u64 = 64 << 20;

/// What requests are answered with.
pub struct Service {
    pub cache: Cache,
    pub meters: Arc<Meters>,
}

/// A request that is known to be for a cache.
struct Call<'a, B> {
    caller: &'a Caller,
    target: &'a Target,
    meter: Arc<Meter>,
    request: Request<B>,
    start: MonoTime,
}

impl Service {
    /// Answers a request on a path of [`crate::name`].
    pub async fn answer<B>(&self, caller: &Caller, request: Request<B>) -> Response<Body>
    where
        B: http_body::Body<Data = Bytes> + Unpin + Send,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let start = MonoTime::now();
        let target = match name::parse(request.uri().path(), request.uri().query().unwrap_or_default()) {
            Ok(target) => target,
            Err(error) => return refuse(&error),
        };
        let call = Call {
            caller,
            target: &target,
            meter: self.meters.of(target.protocol, &target.instance),
            request,
            start,
        };
        let (meter, method) = (call.meter.clone(), call.request.method().clone());
        let answer = self.dispatch(call).await;
        let failure = answer.as_ref().err().and_then(Error::failure);
        match method {
            Method::GET => meter.end(Op::Get, start, failure),
            Method::PUT => meter.end(Op::Put, start, failure),
            _ => meter.fail(failure),
        }
        answer.unwrap_or_else(|error| {
            error.log();
            refuse_as(target.protocol, &method, &error)
        })
    }

    async fn dispatch<B>(&self, call: Call<'_, B>) -> Result<Response<Body>, Error>
    where
        B: http_body::Body<Data = Bytes> + Unpin + Send,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let method = call.request.method().clone();
        let is_tree = matches!(call.target.protocol, Protocol::Dav | Protocol::Ccache | Protocol::Maven);
        match (&call.target.what, method) {
            (What::Blob { key, content, .. }, Method::GET | Method::HEAD) => {
                self.get(&call, call.target.id(*key, *content)).await
            }
            (What::Action(key), Method::GET | Method::HEAD) => self.get_action(&call, call.target.id(*key, Content::Named)).await,
            (What::Blob { key, content, .. }, Method::PUT) => self.put(call, *key, *content).await,
            (What::Action(key), Method::PUT) => self.put(call, *key, Content::Named).await,
            (What::Blob { key, content, .. }, Method::DELETE) if is_tree => {
                self.delete(&call, call.target.id(*key, *content)).await
            }
            (What::TurboStatus | What::TurboEvents | What::TurboQuery, _) => self.turbo(call).await,
            (_, method) if is_tree => self.dav(&call, &method).await,
            _ => Ok(status(StatusCode::METHOD_NOT_ALLOWED)),
        }
    }

    async fn get<B>(&self, call: &Call<'_, B>, id: Id<'_>) -> Result<Response<Body>, Error> {
        call.caller.check_read()?;
        let headers = match call.target.protocol {
            Protocol::Turbo => self.turbo_headers(call.target, id.key).await?,
            _ => Some(HeaderMap::new()),
        };
        let blob = self.cache.open(id).await?;
        let Some((blob, headers)) = blob.zip(headers) else {
            call.meter.misses.inc();
            return Err(Error::NotFound);
        };
        call.meter.hits.inc();
        let mut response = send(blob, call);
        response.headers_mut().extend(headers);
        Ok(response)
    }

    /// A result is held back while blobs that it names are missing; what is no result is a value like others.
    async fn get_action<B>(&self, call: &Call<'_, B>, id: Id<'_>) -> Result<Response<Body>, Error> {
        call.caller.check_read()?;
        let Some(blob) = self.cache.open(id).await? else {
            call.meter.misses.inc();
            return Err(Error::NotFound);
        };
        if blob.len() > action::RESULT_MAX {
            call.meter.hits.inc();
            return Ok(send(blob, call));
        }
        let value = cache::read_whole(blob).await?;
        let is_complete = match action::decode(&value) {
            Some(result) => {
                let scope = action::Scope {
                    instance: id.instance,
                    content: Content::Sha256,
                };
                action::is_complete(&self.cache, scope, &result).await?
            }
            None => true,
        };
        if !is_complete {
            call.meter.misses.inc();
            return Err(Error::NotFound);
        }
        call.meter.hits.inc();
        call.meter.bytes_out.inc_by(value.len() as u64);
        let mut response = Response::new(Body::empty());
        response.headers_mut().insert(header::CONTENT_LENGTH, value.len().into());
        if call.request.method() == Method::GET {
            *response.body_mut() = Body::text(value);
        }
        Ok(response)
    }

    async fn put<B>(&self, call: Call<'_, B>, key: Key, content: Content) -> Result<Response<Body>, Error>
    where
        B: http_body::Body<Data = Bytes> + Unpin + Send,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let Call {
            caller,
            target,
            meter,
            request,
            start,
        } = call;
        let (parts, mut body) = request.into_parts();
        let stored = match self.begin(caller, target, &parts.headers, key, content).await {
            Ok(mut incoming) => {
                let received = receive(start, &mut body, &mut incoming).await;
                meter.bytes_in.inc_by(incoming.received());
                match received {
                    Ok(()) => incoming.finish().await,
                    Err(error) => Err(error),
                }
            }
            Err(error) => Err(error),
        };
        if let Err(error) = stored {
            drain(&self.cache, start, body).await;
            return Err(error);
        }
        if target.protocol == Protocol::Turbo {
            self.keep_turbo_headers(key, target, &parts.headers).await?;
        }
        meter.stored.inc();
        Ok(match target.protocol {
            Protocol::Bazel | Protocol::Gradle | Protocol::Nx | Protocol::Reapi => status(StatusCode::OK),
            Protocol::Dav | Protocol::Ccache | Protocol::Maven => status(StatusCode::CREATED),
            Protocol::Turbo => json(StatusCode::ACCEPTED, &serde_json::json!({ "urls": [] })),
        })
    }

    async fn begin(
        &self,
        caller: &Caller,
        target: &Target,
        headers: &HeaderMap,
        key: Key,
        content: Content,
    ) -> Result<cache::Incoming, Error> {
        caller.check_write(&target.instance)?;
        let coding = match headers.get(header::CONTENT_ENCODING).map(HeaderValue::as_bytes) {
            None | Some(b"identity") => Coding::Identity,
            Some(b"zstd") => Coding::Zstd,
            // Of other codings the bytes are kept as they are where the tool gets them back as they are.
            Some(_) if content == Content::Named => Coding::Identity,
            Some(_) => return Err(Error::Malformed("wanted a Content-Encoding of zstd, or none")),
        };
        let declared = headers
            .get(header::CONTENT_LENGTH)
            .and_then(|value| value.to_str().ok()?.parse().ok());
        let len = declared.filter(|_| coding == Coding::Identity);
        self.cache.upload(target.id(key, content), len, coding).await
    }

    async fn delete<B>(&self, call: &Call<'_, B>, id: Id<'_>) -> Result<Response<Body>, Error> {
        call.caller.check_write(&call.target.instance)?;
        match self.cache.remove(id).await? {
            true => Ok(status(StatusCode::NO_CONTENT)),
            false => Err(Error::NotFound),
        }
    }
}

/// Hands a body to an upload, part by part.
async fn receive<B>(start: MonoTime, body: &mut B, incoming: &mut cache::Incoming) -> Result<(), Error>
where
    B: http_body::Body<Data = Bytes> + Unpin,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    while let Some(frame) = incoming.next(start, incoming.received(), body.frame()).await? {
        let frame = frame.map_err(|error| Error::Body(error.into()))?;
        if let Ok(bytes) = frame.into_data() {
            incoming.write(bytes).await?;
        }
    }
    Ok(())
}

/// Reads what is left of a refused body, within bounds.
async fn drain<B>(cache: &Cache, start: MonoTime, mut body: B)
where
    B: http_body::Body<Data = Bytes> + Unpin,
{
    let mut got = 0;
    while let Ok(Some(Ok(frame))) = cache.pace.next(start, got, body.frame()).await {
        got += frame.data_ref().map_or(0, |bytes| bytes.len() as u64);
        if got > DRAIN_MAX {
            return;
        }
    }
}

/// A blob as the client wants it: as zstd if it says so and it lies so, or a range.
fn send<B>(blob: Arc<Blob>, call: &Call<'_, B>) -> Response<Body> {
    let headers = call.request.headers();
    let range = headers
        .get(header::RANGE)
        .and_then(|value| headers::range(value.as_bytes(), blob.len()));
    let takes_zstd = headers.get_all(header::ACCEPT_ENCODING).iter().any(headers::accepts_zstd);
    let mut response = Response::new(Body::empty());
    let fields = response.headers_mut();
    fields.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
    fields.insert(header::ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    fields.insert(header::VARY, HeaderValue::from_static("accept-encoding"));
    let (cursor, len) = match range {
        Some(Err(())) => {
            fields.insert(header::CONTENT_RANGE, text_value(format!("bytes */{}", blob.len())));
            *response.status_mut() = StatusCode::RANGE_NOT_SATISFIABLE;
            return response;
        }
        Some(Ok((start, end))) => {
            fields.insert(
                header::CONTENT_RANGE,
                text_value(format!("bytes {start}-{}/{}", end - 1, blob.len())),
            );
            *response.status_mut() = StatusCode::PARTIAL_CONTENT;
            (blob.range(start, end), end - start)
        }
        None if takes_zstd && blob.form() == Form::Zstd => {
            fields.insert(header::CONTENT_ENCODING, HeaderValue::from_static("zstd"));
            call.meter.bytes_saved.inc_by(blob.len().saturating_sub(blob.zstd_len()));
            (blob.from(0, Encoding::Zstd), blob.zstd_len())
        }
        None => (blob.range(0, u64::MAX), blob.len()),
    };
    response.headers_mut().insert(header::CONTENT_LENGTH, len.into());
    if call.request.method() == Method::GET {
        *response.body_mut() = Body::blob(cursor, len, call.meter.clone(), call.request.extensions().get().cloned());
    }
    response
}

fn text_value(text: String) -> HeaderValue {
    HeaderValue::try_from(text).expect("digits and ASCII make a header")
}

/// An answer without a body.
pub fn status(status: StatusCode) -> Response<Body> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = status;
    response
}

/// An answer in JSON.
pub fn json(status: StatusCode, value: &serde_json::Value) -> Response<Body> {
    let mut response = Response::new(Body::text(value.to_string()));
    *response.status_mut() = status;
    let kind = HeaderValue::from_static("application/json");
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    response
}

/// Says no, with the reason in a line.
pub fn refuse(error: &Error) -> Response<Body> {
    let mut response = Response::new(Body::text(format!("{}\n", error.message())));
    *response.status_mut() = error.status();
    if error.status() == StatusCode::UNAUTHORIZED {
        let ask = HeaderValue::from_static("Basic realm=\"ferrite-build-cache\"");
        response.headers_mut().insert(header::WWW_AUTHENTICATE, ask);
    }
    response
}

/// As [`refuse`], in the statuses that the tool bears.
fn refuse_as(protocol: Protocol, method: &Method, error: &Error) -> Response<Body> {
    let mut response = refuse(error);
    if protocol == Protocol::Gradle && error.status() != StatusCode::UNAUTHORIZED {
        // Any other status makes Gradle leave the cache alone for the rest of the build. A miss and "too large" do not.
        *response.status_mut() = match *method {
            Method::PUT => StatusCode::PAYLOAD_TOO_LARGE,
            _ => StatusCode::NOT_FOUND,
        };
    }
    response
}
