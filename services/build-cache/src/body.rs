//! Bodies of answers: nothing, bytes, a blob piece by piece, or what gRPC makes.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use blob_store::{Cursor, Step};
use bytes::Bytes;
use http_body::{Frame, SizeHint};
use tokio::task::JoinHandle;

use crate::metrics::Meter;
use crate::wire::Loans;

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// The body of an answer.
pub enum Body {
    Full(Option<Bytes>),
    Blob(BlobBody),
    Grpc(tonic::body::Body),
}

/// A blob, or a range of it, in a known number of bytes.
pub struct BlobBody {
    source: Source,
    /// `u64::MAX` where the length is not known before.
    left: u64,
    meter: Arc<Meter>,
    /// Where parts may be lent to, rather than read.
    loans: Option<Loans>,
}

enum Source {
    Idle(Box<Cursor>),
    /// A blocking thread waits for the disk.
    Waiting(JoinHandle<(Box<Cursor>, Result<Step, blob_store::Error>)>),
    Gone,
}

impl Body {
    pub fn empty() -> Body {
        Body::Full(None)
    }

    pub fn text(text: impl Into<Bytes>) -> Body {
        Body::Full(Some(text.into()))
    }

    /// What `cursor` gives, which is `len` bytes; by way of `loans` as far as that can be.
    pub fn blob(cursor: Cursor, len: u64, meter: Arc<Meter>, loans: Option<Loans>) -> Body {
        Body::Blob(BlobBody {
            source: Source::Idle(Box::new(cursor)),
            left: len,
            meter,
            loans,
        })
    }
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        match self.get_mut() {
            Body::Full(bytes) => Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
            Body::Blob(blob) => blob.poll(cx).map(|step| step.map(|step| step.map(Frame::data))),
            Body::Grpc(body) => Pin::new(body).poll_frame(cx).map_err(Into::into),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Body::Full(bytes) => bytes.as_ref().is_none_or(Bytes::is_empty),
            Body::Blob(blob) => blob.left == 0,
            Body::Grpc(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Body::Full(bytes) => SizeHint::with_exact(bytes.as_ref().map_or(0, |bytes| bytes.len() as u64)),
            Body::Blob(blob) => SizeHint::with_exact(blob.left),
            Body::Grpc(body) => body.size_hint(),
        }
    }
}

impl BlobBody {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, BoxError>>> {
        loop {
            let step = match std::mem::replace(&mut self.source, Source::Gone) {
                Source::Gone => return Poll::Ready(None),
                Source::Idle(mut cursor) => {
                    let step = self.step(&mut cursor);
                    if let Ok(Step::Wait) = step {
                        self.source = Source::Waiting(tokio::task::spawn_blocking(move || {
                            let step = cursor.next(true);
                            (cursor, step)
                        }));
                        continue;
                    }
                    self.source = Source::Idle(cursor);
                    step
                }
                Source::Waiting(mut handle) => {
                    let Poll::Ready(done) = Pin::new(&mut handle).poll(cx) else {
                        self.source = Source::Waiting(handle);
                        return Poll::Pending;
                    };
                    let (cursor, step) = done?;
                    self.source = Source::Idle(cursor);
                    step
                }
            };
            return Poll::Ready(self.take(step));
        }
    }

    /// The next part, without waiting for the disk.
    fn step(&self, cursor: &mut Cursor) -> Result<Step, blob_store::Error> {
        if let Some(loans) = &self.loans
            && let Some(loan) = cursor.lend()?
        {
            let is_last = loan.left() as u64 >= self.left;
            return Ok(Step::Data(loans.lend(loan, is_last)));
        }
        cursor.next(false)
    }

    fn take(&mut self, step: Result<Step, blob_store::Error>) -> Option<Result<Bytes, BoxError>> {
        match step {
            Ok(Step::Data(piece)) if piece.len() as u64 <= self.left => {
                if self.left != u64::MAX {
                    self.left -= piece.len() as u64;
                }
                self.meter.bytes_out.inc_by(piece.len() as u64);
                Some(Ok(piece))
            }
            Ok(Step::End) if self.left == 0 || self.left == u64::MAX => {
                self.source = Source::Gone;
                None
            }
            // The connection breaks, so that the client knows: never a short or a wrong answer.
            Ok(_) => Some(Err("the blob has another length than it said".into())),
            Err(error) => {
                tracing::error!(error = %base::log::chain(&error), "send a blob");
                self.source = Source::Gone;
                Some(Err(error.into()))
            }
        }
    }
}

/// Gives the pieces of a blob as a stream, for gRPC; `len` in all, where it is known.
pub fn stream(
    cursor: Cursor,
    len: Option<u64>,
    meter: Arc<Meter>,
) -> impl futures::Stream<Item = Result<Bytes, BoxError>> + Send {
    let mut body = BlobBody {
        source: Source::Idle(Box::new(cursor)),
        left: len.unwrap_or(u64::MAX),
        meter,
        loans: None,
    };
    futures::stream::poll_fn(move |cx| Poll::Ready(ready!(body.poll(cx))))
}
