//! Answers: headers for browsers and caches, conditional requests, errors as text.

use std::time::Duration;

use ::bytes::Bytes;
use base::WallTime;
use http::response::Builder;
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode, header};
use http_body_util::Full;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};

use super::{Body, Cached};
use crate::cache::Entry;
use crate::config::Config;
use crate::error::Error;
use crate::format::Format;
use crate::header::Info;
use crate::url::options::Options;

const CACHE_STATUS: HeaderName = HeaderName::from_static("cache-status");
/// What clients are told to wait for when we are busy.
const RETRY_AFTER_SECS: &str = "1";

/// What every answer has.
pub struct Answers {
    allow_origin: Option<HeaderValue>,
    ttl: Duration,
    passthrough: bool,
    fallback_status: u16,
    fallback_ttl: Duration,
}

/// What one answer depends on.
pub struct Context<'a> {
    pub options: &'a Options,
    pub headers: &'a HeaderMap,
    pub is_head: bool,
    /// Whether another `Accept` could have brought another result.
    pub is_negotiated: bool,
    pub cached: Cached,
}

impl Answers {
    /// As configured.
    pub fn new(config: &Config) -> Answers {
        let origin = &config.server.allow_origin;
        Answers {
            allow_origin: HeaderValue::from_str(origin).ok().filter(|_| !origin.is_empty()),
            ttl: config.output.ttl.0,
            passthrough: config.output.cache_control_passthrough,
            fallback_status: config.fallback.status,
            fallback_ttl: config.fallback.ttl.0,
        }
    }

    /// A result, or 304 if the client has it.
    pub fn picture(&self, entry: &Entry, context: &Context<'_>) -> Response<Body> {
        let mut builder = self
            .start(StatusCode::OK, context)
            .header(header::ETAG, value(&entry.head.etag));
        if let Some(at) = &entry.head.source.last_modified {
            builder = builder.header(header::LAST_MODIFIED, value(at));
        }
        builder = self.lifetime(builder, entry, context.options);
        if let Cached::Hit(_) = context.cached {
            let age = WallTime::now().0.saturating_sub(entry.head.checked_ms) / 1000;
            builder = builder.header(header::AGE, age);
        }
        if is_known(entry, context.headers) {
            return finish(builder.status(StatusCode::NOT_MODIFIED), Bytes::new());
        }
        body(builder, entry, context)
    }

    /// Another picture in its place; caches are told to ask again soon.
    pub fn fallback(&self, entry: &Entry, context: &Context<'_>, error: StatusCode) -> Response<Body> {
        let status = StatusCode::from_u16(self.fallback_status).unwrap_or(error);
        let control = format!("public, max-age={}", self.fallback_ttl.as_secs());
        let builder = self.start(status, context).header(header::CACHE_CONTROL, control);
        body(builder, entry, context)
    }

    /// Why there is none, as text.
    pub fn error(&self, error: &Error) -> Response<Body> {
        let status = error.status();
        let mut builder = self.bare(status).header(header::CACHE_CONTROL, "no-store");
        if let Error::TooOften { wait } = error {
            // Whole seconds, rounded up: who comes a moment early is refused again.
            builder = builder.header(header::RETRY_AFTER, wait.as_nanos().div_ceil(1_000_000_000) as u64);
        } else if status == StatusCode::SERVICE_UNAVAILABLE {
            builder = builder.header(header::RETRY_AFTER, RETRY_AFTER_SECS);
        }
        let builder = builder.header(header::CONTENT_TYPE, "text/plain; charset=utf-8");
        finish(builder, format!("{error}\n").into())
    }

    /// A line of text.
    pub fn text(&self, status: StatusCode, text: &'static str) -> Response<Body> {
        let builder = self.bare(status).header(header::CONTENT_TYPE, "text/plain; charset=utf-8");
        finish(builder, format!("{text}\n").into())
    }

    /// What other origins may do.
    pub fn preflight(&self) -> Response<Body> {
        let builder = self
            .bare(StatusCode::NO_CONTENT)
            .header(header::ACCESS_CONTROL_ALLOW_METHODS, "GET, HEAD, OPTIONS");
        finish(builder, Bytes::new())
    }

    /// What a header tells, as JSON.
    pub fn info(&self, info: &Info, bytes: Option<u64>) -> Response<Body> {
        let mut json = serde_json::to_value(info).expect("plain values");
        json["bytes"] = bytes.into();
        json["mime"] = info.format.mime().into();
        let is_lying = info.orientation >= 5;
        (json["upright-width"], json["upright-height"]) = match is_lying {
            true => (info.height.into(), info.width.into()),
            false => (info.width.into(), info.height.into()),
        };
        let builder = self.bare(StatusCode::OK).header(header::CONTENT_TYPE, "application/json");
        finish(builder, json.to_string().into())
    }

    fn bare(&self, status: StatusCode) -> Builder {
        let builder = Response::builder()
            .status(status)
            .header(header::X_CONTENT_TYPE_OPTIONS, "nosniff");
        match &self.allow_origin {
            Some(origin) => builder.header(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin),
            None => builder,
        }
    }

    fn start(&self, status: StatusCode, context: &Context<'_>) -> Builder {
        let mut builder = self.bare(status).header(CACHE_STATUS, cache_status(context.cached));
        if context.is_negotiated {
            builder = builder.header(header::VARY, "Accept");
        }
        builder
    }

    fn lifetime(&self, builder: Builder, entry: &Entry, options: &Options) -> Builder {
        let source = &entry.head.source;
        if options.expires > 0 {
            // A URL that ends must not live on in caches.
            let left = options
                .expires
                .saturating_sub(WallTime::now().seconds())
                .min(self.ttl.as_secs());
            return builder.header(header::CACHE_CONTROL, format!("public, max-age={left}"));
        }
        match (&source.cache_control, &source.expires) {
            (Some(control), _) if self.passthrough => builder.header(header::CACHE_CONTROL, value(control)),
            (None, Some(expires)) if self.passthrough => builder.header(header::EXPIRES, value(expires)),
            _ => builder.header(header::CACHE_CONTROL, format!("public, max-age={}", self.ttl.as_secs())),
        }
    }
}

fn body(builder: Builder, entry: &Entry, context: &Context<'_>) -> Response<Body> {
    let mut builder = builder
        .header(header::CONTENT_TYPE, entry.head.format.mime())
        .header(header::CONTENT_DISPOSITION, disposition(entry.head.format, context.options))
        .header(header::CONTENT_LENGTH, entry.bytes.len());
    if entry.head.format == Format::Svg {
        // Passed through untouched, it could run scripts of another's origin.
        builder = builder.header(
            header::CONTENT_SECURITY_POLICY,
            "default-src 'none'; style-src 'unsafe-inline'; sandbox",
        );
    }
    let bytes = if context.is_head { Bytes::new() } else { entry.bytes.clone() };
    finish(builder, bytes)
}

fn finish(builder: Builder, bytes: Bytes) -> Response<Body> {
    builder
        .body(Full::new(bytes))
        .expect("headers are constants, or were checked")
}

/// Text of others that may be no header: left empty then.
fn value(text: &str) -> HeaderValue {
    HeaderValue::from_str(text).unwrap_or(HeaderValue::from_static(""))
}

fn disposition(format: Format, options: &Options) -> HeaderValue {
    let kind = if options.attachment == Some(true) {
        "attachment"
    } else {
        "inline"
    };
    let Some(name) = &options.filename else {
        return HeaderValue::from_static(if kind == "inline" { "inline" } else { "attachment" });
    };
    // Old clients take the first, others the second, which may have any letter (RFC 6266).
    let plain: String = name.chars().map(|c| if c.is_ascii() { c } else { '_' }).collect();
    let any = utf8_percent_encode(name, NON_ALPHANUMERIC);
    let extension = format.name();
    value(&format!(
        "{kind}; filename=\"{plain}.{extension}\"; filename*=UTF-8''{any}.{extension}"
    ))
}

/// RFC 9211.
fn cache_status(cached: Cached) -> HeaderValue {
    HeaderValue::from_static(match cached {
        Cached::Hit(crate::cache::Tier::Memory) => "ferrite-thumbnails; hit; detail=memory",
        Cached::Hit(crate::cache::Tier::Disk) => "ferrite-thumbnails; hit; detail=disk",
        Cached::Hit(crate::cache::Tier::Cluster) => "ferrite-thumbnails; hit; detail=cluster",
        Cached::Miss {
            stale: false,
            shared: false,
        } => "ferrite-thumbnails; fwd=uri-miss",
        Cached::Miss {
            stale: false,
            shared: true,
        } => "ferrite-thumbnails; fwd=uri-miss; collapsed",
        Cached::Miss {
            stale: true,
            shared: false,
        } => "ferrite-thumbnails; fwd=stale",
        Cached::Miss {
            stale: true,
            shared: true,
        } => "ferrite-thumbnails; fwd=stale; collapsed",
        Cached::None => "ferrite-thumbnails; fwd=bypass",
    })
}

/// Whether the client has this result already (RFC 9110, section 13: the tag goes before the time).
fn is_known(entry: &Entry, headers: &HeaderMap) -> bool {
    if let Some(tags) = headers.get(header::IF_NONE_MATCH) {
        let tags = tags.to_str().unwrap_or_default();
        return tags
            .split(',')
            .map(str::trim)
            .any(|tag| tag == "*" || tag.strip_prefix("W/").unwrap_or(tag) == entry.head.etag);
    }
    let since = headers.get(header::IF_MODIFIED_SINCE).and_then(|value| value.to_str().ok());
    let (Some(since), Some(modified)) = (since, entry.head.source.last_modified.as_deref()) else {
        return false;
    };
    match (httpdate::parse_http_date(since), httpdate::parse_http_date(modified)) {
        (Ok(since), Ok(modified)) => modified <= since,
        _ => false,
    }
}

/// Whether a client with this `Accept` names `mime` and does not rule it out. `*/*` names nothing: old clients send it too.
pub fn accepts(accept: &str, mime: &str) -> bool {
    accept.split(',').any(|range| {
        let mut parts = range.split(';').map(str::trim);
        let is_named = parts.next().is_some_and(|name| name.eq_ignore_ascii_case(mime));
        let is_out = parts.any(|part| {
            part.strip_prefix("q=")
                .is_some_and(|weight| weight.trim_matches(['0', '.']).is_empty())
        });
        is_named && !is_out
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::sample;

    #[test]
    fn formats_are_accepted_by_name() {
        let chrome = "image/avif,image/webp,image/apng,image/*,*/*;q=0.8";
        assert!(accepts(chrome, "image/webp") && accepts(chrome, "image/avif"));
        assert!(!accepts("*/*", "image/webp") && !accepts("image/*", "image/webp") && !accepts("", "image/webp"));
        assert!(!accepts("image/webp;q=0", "image/webp") && !accepts("image/webp; q=0.000", "image/webp"));
        assert!(accepts("image/webp;q=0.1", "image/webp"));
    }

    #[test]
    fn what_the_client_has_is_not_sent() {
        let mut entry = sample("x", 1);
        entry.head.source.last_modified = Some("Sun, 06 Nov 1994 08:49:37 GMT".into());
        let known = |name: HeaderName, text: &'static str| {
            is_known(&entry, &HeaderMap::from_iter([(name, HeaderValue::from_static(text))]))
        };
        assert!(
            known(header::IF_NONE_MATCH, "\"x\"")
                && known(header::IF_NONE_MATCH, "\"a\", W/\"x\"")
                && known(header::IF_NONE_MATCH, "*")
        );
        assert!(!known(header::IF_NONE_MATCH, "\"y\""));
        assert!(known(header::IF_MODIFIED_SINCE, "Sun, 06 Nov 1994 08:49:37 GMT"));
        assert!(
            !known(header::IF_MODIFIED_SINCE, "Sun, 06 Nov 1994 08:49:36 GMT") && !known(header::IF_MODIFIED_SINCE, "yesterday")
        );
    }

    #[test]
    fn names_of_files_are_safe_in_headers() {
        let options = Options {
            filename: Some("kätzchen".into()),
            attachment: Some(true),
            ..Options::default()
        };
        let text = disposition(Format::Png, &options);
        assert_eq!(
            text,
            "attachment; filename=\"k_tzchen.png\"; filename*=UTF-8''k%C3%A4tzchen.png"
        );
    }
}
