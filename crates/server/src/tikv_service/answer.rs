//! Where each kind of answer tells of failure.

use proto::errorpb;
use proto::ferrite_read::SafeTsResponse;
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
                    WireError::Key(error) => self.error = text_of(*error),
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
    RawChecksumResponse,
    DeleteRangeResponse,
    UnsafeDestroyRangeResponse,
    MvccGetByKeyResponse,
    MvccGetByStartTsResponse,
    GetLockWaitInfoResponse
);

impl Answer for SplitRegionResponse {
    fn fail(&mut self, error: WireError) {
        match key_error(error) {
            Err(error) => self.region_error = Some(error),
            Ok(error) => self.errors.push(*error),
        }
    }
}

/// Where an answer has text only.
fn text_of(error: KeyError) -> String {
    if error.abort.is_empty() {
        format!("{error:?}")
    } else {
        error.abort
    }
}

fn key_error(error: WireError) -> Result<Box<KeyError>, Box<errorpb::Error>> {
    match error {
        WireError::Region(error) => Err(error),
        WireError::Key(error) => Ok(error),
        WireError::Text(abort) => Ok(Box::new(KeyError {
            abort,
            ..Default::default()
        })),
    }
}

/// Answers of pairs: one pair without a key carries the error. Of the newer field `error` for the whole not all clients know.
macro_rules! with_pairs {
    ($($answer:ty: $pairs:ident $(, $error:ident)?;)*) => {$(
        impl Answer for $answer {
            fn fail(&mut self, error: WireError) {
                match key_error(error) {
                    Err(error) => self.region_error = Some(error),
                    Ok(error) => {
                        $(self.$error = Some(error.clone());)?
                        self.$pairs = vec![KvPair { error: Some(error), ..Default::default() }];
                    }
                }
            }
        }
    )*};
}

with_pairs! {
    RawBatchGetResponse: pairs;
    RawScanResponse: kvs;
    RawBatchScanResponse: kvs;
    BatchGetResponse: pairs, error;
    ScanResponse: pairs, error;
}

/// Answers about one transaction, with one error.
macro_rules! with_error {
    ($($answer:ty),*) => {$(
        impl Answer for $answer {
            fn fail(&mut self, error: WireError) {
                match key_error(error) {
                    Err(error) => self.region_error = Some(error),
                    Ok(error) => self.error = Some(error),
                }
            }
        }
    )*};
}

with_error!(
    GetResponse,
    CommitResponse,
    CleanupResponse,
    BatchRollbackResponse,
    TxnHeartBeatResponse,
    CheckTxnStatusResponse,
    CheckSecondaryLocksResponse,
    ScanLockResponse,
    ResolveLockResponse
);

/// Answers to other stores, which come again whatever the error is.
macro_rules! with_region_error {
    ($($answer:ty),*) => {$(
        impl Answer for $answer {
            fn fail(&mut self, error: WireError) {
                self.region_error = Some(key_error(error).map_or_else(
                    |error| error,
                    |error| {
                        Box::new(errorpb::Error {
                            message: text_of(*error),
                            ..Default::default()
                        })
                    },
                ));
            }
        }
    )*};
}

with_region_error!(ReadIndexResponse, SafeTsResponse);

/// Answers with an error for each key.
macro_rules! with_errors {
    ($($answer:ty),*) => {$(
        impl Answer for $answer {
            fn fail(&mut self, error: WireError) {
                match key_error(error) {
                    Err(error) => self.region_error = Some(error),
                    Ok(error) => self.errors = vec![*error],
                }
            }
        }
    )*};
}

with_errors!(PrewriteResponse, PessimisticLockResponse, PessimisticRollbackResponse);

impl Answer for PhysicalScanLockResponse {
    fn fail(&mut self, error: WireError) {
        self.error = match key_error(error) {
            // It is not asked of a region.
            Err(error) => error.message,
            Ok(error) => text_of(*error),
        };
    }
}
