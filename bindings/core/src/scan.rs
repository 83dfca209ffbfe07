//! Scans, page by page.

use std::sync::Arc;

use client::{Error, KeyRange, Pair, ScanOptions};
use futures::future::BoxFuture;
use futures::stream::BoxStream;
use futures::{FutureExt, StreamExt};
use tokio::sync::Mutex;

use crate::{Failure, Outcome, Reply, options};

type Pairs = BoxStream<'static, Result<Pair, Error>>;

/// Bytes of a page, about.
const PAGE_BYTES: usize = 1 << 20;

/// What a scan shall give.
#[derive(Clone, Debug)]
pub struct Ask {
    pub range: KeyRange,
    pub options: ScanOptions,
}

impl Ask {
    /// The half-open range from `start` to `end` (empty: no bound), at most `limit` pairs (0: all).
    pub fn new(start: crate::Bytes, end: crate::Bytes, limit: u64, reverse: bool, keys_only: bool) -> Ask {
        Ask {
            range: KeyRange { start, end },
            options: options::scan(limit, reverse, keys_only),
        }
    }
}

/// A scan under way. One page is given at a time; further callers wait for theirs.
#[derive(Clone)]
pub struct Scan(Arc<Mutex<State>>);

struct State {
    source: Source,
    /// Read, but not given: pairs of a page whose call was cancelled.
    kept: Vec<Pair>,
    failed: Option<Failure>,
}

enum Source {
    /// Opens the stream when the first page is asked for: a transaction may be busy now.
    Unopened(BoxFuture<'static, Result<Pairs, Failure>>),
    Open(Pairs),
    Ended,
}

impl Scan {
    pub(crate) fn ready(pairs: Pairs) -> Scan {
        Scan::of(Source::Open(pairs))
    }

    pub(crate) fn unopened(open: BoxFuture<'static, Result<Pairs, Failure>>) -> Scan {
        Scan::of(Source::Unopened(open))
    }

    fn of(source: Source) -> Scan {
        Scan(Arc::new(Mutex::new(State {
            source,
            kept: Vec::new(),
            failed: None,
        })))
    }

    /// Up to `pairs_max` pairs (0: as many as fit a page of about 1 MiB). Answers [`Reply::Page`], an empty one at the end. Cancelled, nothing is lost.
    pub fn next(&self, pairs_max: usize) -> impl Future<Output = Outcome> + Send + use<> {
        let state = self.0.clone();
        async move {
            state
                .lock()
                .await
                .next(if pairs_max == 0 { usize::MAX } else { pairs_max })
                .await
        }
    }
}

impl State {
    async fn next(&mut self, pairs_max: usize) -> Outcome {
        if let Source::Unopened(open) = &mut self.source {
            match open.await {
                Ok(pairs) => self.source = Source::Open(pairs),
                Err(failure) => {
                    self.source = Source::Ended;
                    return Err(failure);
                }
            }
        }
        if self.kept.is_empty() {
            self.fill(pairs_max).await;
        }
        match self.failed.take() {
            Some(failure) if self.kept.is_empty() => Err(failure),
            later => {
                self.failed = later;
                let rest = self.kept.split_off(pairs_max.min(self.kept.len()));
                Ok(Reply::Page(std::mem::replace(&mut self.kept, rest)))
            }
        }
    }

    /// Waits for a first pair and takes those that are there as well.
    async fn fill(&mut self, pairs_max: usize) {
        let Source::Open(pairs) = &mut self.source else { return };
        let mut bytes = 0;
        let mut next = pairs.next().await;
        loop {
            match next {
                Some(Ok(pair)) => {
                    bytes += pair.0.len() + pair.1.len();
                    self.kept.push(pair);
                }
                Some(Err(error)) => {
                    self.failed = Some(error.into());
                    self.source = Source::Ended;
                    return;
                }
                None => {
                    self.source = Source::Ended;
                    return;
                }
            }
            if self.kept.len() >= pairs_max || bytes >= PAGE_BYTES {
                return;
            }
            next = match pairs.next().now_or_never() {
                Some(next) => next,
                None => return,
            };
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::stream;

    use super::*;

    fn pair(key: &'static str) -> Result<Pair, Error> {
        Ok((key.into(), "v".into()))
    }

    fn page(scan: &Scan, pairs_max: usize) -> Result<Vec<String>, Failure> {
        match crate::wait(scan.next(pairs_max))? {
            Reply::Page(pairs) => Ok(pairs
                .into_iter()
                .map(|(key, _)| String::from_utf8_lossy(&key).into_owned())
                .collect()),
            _ => panic!("not a page"),
        }
    }

    #[test]
    fn pages_are_bounded_and_end_with_an_empty_one() {
        let scan = Scan::ready(stream::iter(["a", "b", "c"].map(pair)).boxed());
        assert_eq!(page(&scan, 2).expect("read"), ["a", "b"]);
        assert_eq!(page(&scan, 0).expect("read"), ["c"]);
        assert!(page(&scan, 2).expect("read").is_empty());
        assert!(page(&scan, 2).expect("read").is_empty());
    }

    #[test]
    fn pairs_before_a_failure_are_given_first() {
        let failed = Err(Error::Refused { message: "no".into() });
        let scan = Scan::ready(stream::iter([pair("a"), failed]).boxed());
        assert_eq!(page(&scan, 0).expect("read"), ["a"]);
        assert!(page(&scan, 0).is_err());
        assert!(page(&scan, 0).expect("ended").is_empty());
    }
}
