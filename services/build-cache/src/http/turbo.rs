//! What Turborepo asks beside its artifacts: whether the cache is on, which artifacts are there, and headers that come back.

use ::http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode};
use blob_store::{Content, Key};
use bytes::Bytes;
use http_body_util::BodyExt as _;
use serde_json::{Map, Value, json};

use super::{Call, Service, json as answer, status};
use crate::body::Body;
use crate::cache::Coding;
use crate::error::Error;
use crate::name::{Target, What, team, turbo_key};

/// Headers of an artifact that its reader gets back: the signature and the time that the task took.
const KEPT: [HeaderName; 2] = [
    HeaderName::from_static("x-artifact-tag"),
    HeaderName::from_static("x-artifact-duration"),
];
/// Largest body of a query or of events.
const BODY_MAX: usize = 1 << 20;
/// Largest set of kept headers.
const KEPT_MAX: u64 = 16 << 10;

impl Service {
    pub(super) async fn turbo<B>(&self, call: Call<'_, B>) -> Result<Response<Body>, Error>
    where
        B: http_body::Body<Data = Bytes> + Unpin + Send,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        call.caller.check_read()?;
        match (&call.target.what, call.request.method()) {
            (What::TurboStatus, &Method::GET) => Ok(answer(StatusCode::OK, &json!({ "status": "enabled" }))),
            (What::TurboEvents, &Method::POST) => {
                small_body(call.request).await?;
                Ok(answer(StatusCode::OK, &json!({})))
            }
            (What::TurboQuery, &Method::POST) => {
                let team = team(call.request.uri().query().unwrap_or_default());
                let body = small_body(call.request).await?;
                self.turbo_query(call.target, &team, &body).await
            }
            _ => Ok(status(StatusCode::METHOD_NOT_ALLOWED)),
        }
    }

    /// `{"hashes": [..]}` is answered with what is known of each.
    async fn turbo_query(&self, target: &Target, team: &str, body: &[u8]) -> Result<Response<Body>, Error> {
        const WANTED: Error = Error::Malformed("wanted {\"hashes\": [..]}");
        let query: Value = serde_json::from_slice(body).map_err(|_| WANTED)?;
        let hashes = query["hashes"].as_array().ok_or(WANTED)?;
        let mut found = Map::new();
        for hash in hashes {
            let hash = hash.as_str().ok_or(WANTED)?;
            let key = turbo_key(&target.instance, team, hash);
            let id = target.id(key, Content::Named);
            let len = self.cache.renew(&[id]).await?.into_iter().next().flatten();
            let info = match (len, self.turbo_headers(target, key).await?) {
                (Some(len), Some(headers)) => info(len, &headers),
                _ => Value::Null,
            };
            found.insert(hash.to_owned(), info);
        }
        Ok(answer(StatusCode::OK, &Value::Object(found)))
    }

    /// Keeps the headers of an artifact beside it.
    pub(super) async fn keep_turbo_headers(&self, artifact: Key, target: &Target, headers: &HeaderMap) -> Result<(), Error> {
        let mut kept = Map::new();
        for name in &KEPT {
            if let Some(value) = headers.get(name).and_then(|value| value.to_str().ok()) {
                kept.insert(name.to_string(), value.into());
            }
        }
        let bytes = Bytes::from(Value::Object(kept).to_string());
        let id = target.id(headers_key(&artifact), Content::Named);
        self.cache.put(id, bytes, Coding::Identity).await.map(drop)
    }

    /// The headers kept for an artifact. `None`: they are gone, so it is no use any more (its signature was among them).
    pub(super) async fn turbo_headers(&self, target: &Target, artifact: Key) -> Result<Option<HeaderMap>, Error> {
        let id = target.id(headers_key(&artifact), Content::Named);
        let Some(bytes) = self.cache.read(id, KEPT_MAX).await? else {
            return Ok(None);
        };
        let kept: Map<String, Value> = serde_json::from_slice(&bytes).unwrap_or_default();
        let mut headers = HeaderMap::new();
        for name in &KEPT {
            let value = kept.get(name.as_str()).and_then(Value::as_str);
            if let Some(value) = value.and_then(|value| HeaderValue::from_str(value).ok()) {
                headers.insert(name.clone(), value);
            }
        }
        Ok(Some(headers))
    }
}

fn headers_key(artifact: &Key) -> Key {
    Key::named(&["turbo-headers", &artifact.to_string()])
}

fn info(len: u64, headers: &HeaderMap) -> Value {
    let text = |name: &HeaderName| headers.get(name).and_then(|value| value.to_str().ok());
    let duration = text(&KEPT[1]).and_then(|value| value.parse::<u64>().ok()).unwrap_or(0);
    json!({ "size": len, "taskDurationMs": duration, "tag": text(&KEPT[0]) })
}

async fn small_body<B>(request: Request<B>) -> Result<Bytes, Error>
where
    B: http_body::Body<Data = Bytes> + Unpin + Send,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let body = http_body_util::Limited::new(request.into_body(), BODY_MAX);
    Ok(body.collect().await.map_err(Error::Body)?.to_bytes())
}
