//! Where each kind of answer tells of failure.

use proto::kvrpcpb::*;

use crate::error::WireError;

/// An answer that can tell why there is none.
pub trait Answer: Default {
    /// Fills one of the error fields, never two. Called at most once, on an empty answer.
    fn fail(&mut self, error: WireError);
}

/// Answers with a text field `error`.
macro_rules! with_text {
    ($($answer:ty),*) => {$(
        impl Answer for $answer {
            fn fail(&mut self, error: WireError) {
                match error {
                    WireError::Region(error) => self.region_error = Some(error),
                    WireError::Text(text) => self.error = text,
                }
            }
        }
    )*};
}

with_text!(
    RawGetResponse,
    RawPutResponse,
    RawBatchPutResponse,
    RawDeleteResponse,
    RawBatchDeleteResponse,
    RawDeleteRangeResponse,
    RawGetKeyTtlResponse,
    RawCasResponse,
    RawChecksumResponse
);

/// Answers of pairs, which have no text: one pair without a key carries it.
macro_rules! with_pairs {
    ($($answer:ty: $pairs:ident),*) => {$(
        impl Answer for $answer {
            fn fail(&mut self, error: WireError) {
                match error {
                    WireError::Region(error) => self.region_error = Some(error),
                    WireError::Text(text) => {
                        let error = Some(Box::new(KeyError { abort: text, ..Default::default() }));
                        self.$pairs = vec![KvPair { error, ..Default::default() }];
                    }
                }
            }
        }
    )*};
}

with_pairs!(RawBatchGetResponse: pairs, RawScanResponse: kvs, RawBatchScanResponse: kvs);
