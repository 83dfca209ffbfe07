//! Paths of requests in imgproxy's grammar: `/SIGNATURE/OPTION:ARG:ARG/…/plain/SOURCE@EXTENSION`, or the source in URL-safe base64 with
//! `.EXTENSION` behind it, in as many parts as the sender likes.

pub mod options;
pub mod sign;

use std::collections::{BTreeMap, BTreeSet};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use percent_encoding::percent_decode_str;

use options::{Options, canonical, output};
use sign::Signer;

use crate::format::Format;

/// Longest path that is looked at.
const PATH_MAX: usize = 8 << 10;
/// Presets within presets.
const DEPTH_MAX: usize = 8;

/// Why a path is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UrlError {
    #[error("the path is longer than {PATH_MAX} bytes")]
    TooLong,
    #[error("the path has no source: wanted /SIGNATURE/OPTIONS/plain/SOURCE or /SIGNATURE/OPTIONS/BASE64")]
    NoSource,
    #[error("the signature is missing or wrong")]
    Signature,
    #[error("unknown option {0:?}")]
    UnknownOption(String),
    #[error("option {0:?} is not allowed here")]
    NotAllowed(String),
    #[error("unknown preset {0:?}")]
    UnknownPreset(String),
    #[error("presets name each other in a circle")]
    Circle,
    #[error("wrong arguments of {name}: {args:?}")]
    Arguments { name: String, args: String },
    #[error("unknown format {0:?}")]
    UnknownFormat(String),
    #[error("results cannot be {0}")]
    NoOutput(&'static str),
    #[error("the source is not URL-safe base64 of text")]
    Base64,
    #[error("the source is not text in percent encoding")]
    Percent,
    #[error("the URL has expired")]
    Expired,
}

/// What may be said in URLs.
#[derive(Clone, Debug)]
pub struct Grammar {
    pub signer: Signer,
    /// Each as a URL would have it: `rs:fill:100:100/q:70`.
    pub presets: BTreeMap<String, String>,
    /// URLs name presets and nothing else.
    pub only_presets: bool,
    /// Long names; empty: all.
    pub allowed: BTreeSet<String>,
    /// Whether URLs may lift or lower the limits on sources.
    pub allows_limits: bool,
    /// What sources without a scheme are behind.
    pub base_url: String,
}

/// A path that was read.
#[derive(Clone, Debug, PartialEq)]
pub struct Asked {
    pub options: Options,
    pub source: String,
}

impl Grammar {
    /// Reads `path`, which begins with `/` and is as the client sent it. `now` is in seconds since 1970.
    pub fn read(&self, path: &str, now: u64) -> Result<Asked, UrlError> {
        if path.len() > PATH_MAX {
            return Err(UrlError::TooLong);
        }
        let (signature, signed) = path
            .strip_prefix('/')
            .and_then(|path| path.split_once('/'))
            .ok_or(UrlError::NoSource)?;
        let rest = &path[path.len() - signed.len() - 1..];
        if !self.signer.verify(signature, rest) {
            return Err(UrlError::Signature);
        }
        let mut options = Options::default();
        if self.presets.contains_key("default") {
            self.preset(&mut options, "default", 0)?;
        }
        let mut parts = signed.split('/');
        let (source, extension) = self.parts(&mut parts, &mut options)?;
        if let Some(extension) = extension {
            let format = Format::from_name(&extension).ok_or(UrlError::UnknownFormat(extension))?;
            options.format = Some(output(format)?);
        }
        if options.expires > 0 && options.expires < now {
            return Err(UrlError::Expired);
        }
        Ok(Asked {
            options,
            source: self.absolute(source),
        })
    }

    /// Options, then the source and its extension.
    fn parts<'a>(
        &self,
        parts: &mut (impl Iterator<Item = &'a str> + Clone),
        options: &mut Options,
    ) -> Result<(String, Option<String>), UrlError> {
        if self.only_presets {
            let names = parts.next().ok_or(UrlError::NoSource)?;
            for name in decoded(names)?.split(':').filter(|name| !name.is_empty()) {
                self.preset(options, name, 0)?;
            }
            return source(parts);
        }
        loop {
            let mut ahead = parts.clone();
            let part = ahead.next().ok_or(UrlError::NoSource)?;
            let text = decoded(part)?;
            if part == "plain" || !text.contains(':') {
                return source(parts);
            }
            *parts = ahead;
            self.option(options, &text, 0, true)?;
        }
    }

    fn option(&self, options: &mut Options, text: &str, depth: usize, is_url: bool) -> Result<(), UrlError> {
        let mut args = text.split(':');
        let name = args.next().unwrap_or_default();
        let known = canonical(name).ok_or_else(|| UrlError::UnknownOption(name.to_owned()))?;
        let is_limit = known.starts_with("max_") && known != "max_bytes";
        if is_url && ((!self.allowed.is_empty() && !self.allowed.contains(known)) || (is_limit && !self.allows_limits)) {
            return Err(UrlError::NotAllowed(known.to_owned()));
        }
        if known == "preset" {
            return args
                .filter(|name| !name.is_empty())
                .try_for_each(|name| self.preset(options, name, depth));
        }
        options.apply(known, &args.collect::<Vec<_>>())
    }

    fn preset(&self, options: &mut Options, name: &str, depth: usize) -> Result<(), UrlError> {
        if depth == DEPTH_MAX {
            return Err(UrlError::Circle);
        }
        let preset = self
            .presets
            .get(name)
            .ok_or_else(|| UrlError::UnknownPreset(name.to_owned()))?;
        preset
            .split('/')
            .filter(|part| !part.is_empty())
            .try_for_each(|part| self.option(options, part, depth + 1, false))
    }

    /// Faults of the presets, for the check of the configuration.
    pub fn check(&self) -> Vec<String> {
        let mut faults: Vec<String> = self
            .presets
            .keys()
            .filter_map(|name| {
                let fault = self.preset(&mut Options::default(), name, 0).err()?;
                Some(format!("url.presets.{name}: {fault}"))
            })
            .collect();
        faults.extend(
            self.allowed
                .iter()
                .filter(|name| canonical(name) != Some(name))
                .map(|name| format!("url.allowed-options: {name:?} is the long name of no option")),
        );
        faults
    }

    fn absolute(&self, source: String) -> String {
        match self.base_url.is_empty() || has_scheme(&source) {
            true => source,
            false => format!("{}{source}", self.base_url),
        }
    }
}

fn has_scheme(source: &str) -> bool {
    source.split_once("://").is_some_and(|(scheme, _)| {
        !scheme.is_empty()
            && scheme
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'-' | b'.'))
    })
}

fn decoded(text: &str) -> Result<String, UrlError> {
    let text = percent_decode_str(text).decode_utf8().map_err(|_| UrlError::Percent)?;
    Ok(text.into_owned())
}

/// Source and extension from what is left of the path.
fn source<'a>(parts: &mut (impl Iterator<Item = &'a str> + Clone)) -> Result<(String, Option<String>), UrlError> {
    let mut rest = parts.clone();
    let (source, extension) = if rest.next() == Some("plain") {
        let text = rest.collect::<Vec<_>>().join("/");
        let (source, extension) = match text.rsplit_once('@') {
            Some((source, extension)) => (source, Some(extension)),
            None => (text.as_str(), None),
        };
        (with_slashes(decoded(source)?), extension.map(str::to_owned))
    } else {
        let text = parts.collect::<String>();
        let (source, extension) = match text.split_once('.') {
            Some((source, extension)) => (source, Some(extension)),
            None => (text.as_str(), None),
        };
        let bytes = URL_SAFE_NO_PAD
            .decode(source.trim_end_matches('='))
            .map_err(|_| UrlError::Base64)?;
        (
            String::from_utf8(bytes).map_err(|_| UrlError::Base64)?,
            extension.map(str::to_owned),
        )
    };
    if source.is_empty() {
        return Err(UrlError::NoSource);
    }
    Ok((source, extension.filter(|extension| !extension.is_empty())))
}

/// Some proxies make one slash of two: `http:/example.com`.
fn with_slashes(source: String) -> String {
    for scheme in ["http", "https", "local", "s3", "gs", "abs", "ferrite"] {
        if let Some(rest) = source.strip_prefix(scheme).and_then(|rest| rest.strip_prefix(":/"))
            && !rest.starts_with('/')
        {
            let slashes = if scheme == "local" { ":///" } else { "://" };
            return format!("{scheme}{slashes}{rest}");
        }
    }
    source
}

#[cfg(test)]
mod tests {
    use super::options::{Anchor, Resizing};
    use super::*;

    fn grammar() -> Grammar {
        Grammar {
            signer: Signer::new(&[], &[], 32, &[]).expect("valid"),
            presets: BTreeMap::new(),
            only_presets: false,
            allowed: BTreeSet::new(),
            allows_limits: false,
            base_url: String::new(),
        }
    }

    fn must_read(path: &str) -> Asked {
        grammar().read(path, 100).unwrap_or_else(|error| panic!("{path}: {error}"))
    }

    #[test]
    fn plain_and_base64_sources_are_one() {
        let plain = must_read("/_/rs:fill:300:400/g:sm/plain/http://example.com/images/curiosity.jpg@png");
        assert_eq!(plain.source, "http://example.com/images/curiosity.jpg");
        assert_eq!(plain.options.format, Some(Format::Png));
        assert_eq!(
            (plain.options.resizing, plain.options.gravity.anchor),
            (Resizing::Fill, Anchor::Smart)
        );
        let base64 = "/_/rs:fill:300:400/g:sm/aHR0cDovL2V4YW1w/bGUuY29tL2ltYWdl/cy9jdXJpb3NpdHku/anBn.png";
        assert_eq!(must_read(base64), plain);
    }

    #[test]
    fn sources_keep_what_is_encoded_within() {
        for (path, source) in [
            ("/_/w:1/plain/http%3A%2F%2Fa.b%2Fc%3Fd%3De%40f", "http://a.b/c?d=e@f"),
            ("/_/plain/local:///a/b.jpg", "local:///a/b.jpg"),
            ("/_/plain/local:/a/b.jpg", "local:///a/b.jpg"),
            ("/_/plain/http:/a.b/c", "http://a.b/c"),
            ("/_/plain/s3://bucket/a%20b", "s3://bucket/a b"),
            ("/_/w%3A5/plain/x", "x"),
            ("/_/w:1/plain/http://a.b/c@", "http://a.b/c"),
        ] {
            assert_eq!(must_read(path).source, source, "{path}");
        }
    }

    #[test]
    fn what_is_no_path_is_refused() {
        for path in [
            "",
            "/",
            "/_",
            "/_/",
            "/_/w:1",
            "/_/w:1/",
            "/_/plain",
            "/_/plain/",
            "/_/w:1/@@@",
            "/_/plain/%ff",
            "/_/plain/a@exe",
            "/_/plain/a@svg",
            "/_/YQ.exe",
            "/_/nope:1/plain/a",
            "/_/msr:1/plain/a",
            "/_/exp:99/plain/a",
            "/_/pr:none/plain/a",
            "/_/_w8.png",
        ] {
            assert!(grammar().read(path, 100).is_err(), "{path}");
        }
        assert_eq!(
            grammar().read(&format!("/_/plain/{}", "a".repeat(9000)), 0),
            Err(UrlError::TooLong)
        );
    }

    #[test]
    fn presets_apply_in_order_and_the_default_first() {
        let mut grammar = grammar();
        grammar.presets = BTreeMap::from([
            ("default".to_owned(), "q:50/w:10".to_owned()),
            ("sharp".to_owned(), "sh:1/w:20".to_owned()),
            ("both".to_owned(), "pr:sharp/h:7/msr:5".to_owned()),
            ("loop".to_owned(), "pr:loop".to_owned()),
            ("wrong".to_owned(), "w:x".to_owned()),
        ]);
        let asked = grammar.read("/_/pr:both/plain/a", 0).expect("valid");
        assert_eq!(
            (asked.options.quality, asked.options.width, asked.options.height),
            (50, 20, 7)
        );
        assert_eq!(asked.options.max_src_resolution, Some(5.0), "presets may move limits");
        assert_eq!(grammar.read("/_/pr:loop/plain/a", 0), Err(UrlError::Circle));
        assert_eq!(grammar.check().len(), 2, "{:?}", grammar.check());
        grammar.only_presets = true;
        assert_eq!(grammar.read("/_/sharp:both/plain/a", 0).expect("valid").options.height, 7);
        assert_eq!(grammar.read("/_/w:5/plain/a", 0), Err(UrlError::UnknownPreset("w".into())));
    }

    #[test]
    fn options_that_are_not_allowed_are_refused_in_urls_alone() {
        let mut grammar = grammar();
        grammar.allowed = BTreeSet::from(["width".to_owned(), "preset".to_owned()]);
        grammar.presets.insert("p".into(), "q:1".into());
        assert!(grammar.read("/_/w:5/pr:p/plain/a", 0).is_ok());
        assert_eq!(grammar.read("/_/q:5/plain/a", 0), Err(UrlError::NotAllowed("quality".into())));
        grammar.allowed.insert("w".into());
        assert_eq!(grammar.check().len(), 1);
    }

    #[test]
    fn sources_without_scheme_stand_behind_the_base() {
        let mut grammar = grammar();
        grammar.base_url = "http://origin/images/".into();
        assert_eq!(
            grammar.read("/_/plain/a/b.jpg", 0).expect("valid").source,
            "http://origin/images/a/b.jpg"
        );
        assert_eq!(grammar.read("/_/plain/s3://b/c", 0).expect("valid").source, "s3://b/c");
    }

    /// Every cut, and every byte in the place of every other, of a path that has all of the grammar: an answer, never a panic.
    #[test]
    fn no_path_makes_it_panic() {
        let path = "/sig/rs:fill:300:400:1:1:no:1:2/g:fp:0.5:0.5/c:0.5:20:soea/wm:0.5:re:1:2:0.3/fq:jpeg:50/bg:ff0/plain/http://a%20b/c@png";
        let grammar = grammar();
        let mut sound = 0;
        for cut in 0..path.len() {
            sound += usize::from(grammar.read(&path[..cut], 0).is_ok());
            for byte in 0..128u8 {
                let mut bytes = path.as_bytes().to_vec();
                bytes[cut] = byte;
                let text = String::from_utf8(bytes).expect("ASCII");
                sound += usize::from(grammar.read(&text, 0).is_ok());
            }
        }
        assert!(sound > 1000, "{sound}");
    }
}
