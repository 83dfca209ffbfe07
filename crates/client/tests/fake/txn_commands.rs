//! Transactional requests at a store of the fake cluster: regions first, then the model.

use bytes::Bytes;
use proto::kvrpcpb;
use proto::tikvpb::{batch_commands_request::request::Cmd, batch_commands_response::response::Cmd as Answer};

use super::{FakeStore, State};

/// An answer with either the error of the region or what `$do` makes of the state.
macro_rules! within {
    ($store:ident, $request:ident, $keys:expr, $answer:ident, |$state:ident| $do:expr) => {
        match $store.enter(&$request.context, &$keys) {
            Err(error) => kvrpcpb::$answer {
                region_error: Some(error),
                ..Default::default()
            },
            Ok(mut entered) => {
                let $state = &mut *entered;
                $do
            }
        }
    };
}

impl FakeStore {
    pub(super) fn txn_command(&self, command: &Cmd) -> Option<Answer> {
        Some(match command {
            Cmd::Get(request) => Answer::Get(self.txn_get(request)),
            Cmd::BatchGet(request) => Answer::BatchGet(self.txn_batch_get(request)),
            Cmd::Scan(request) => Answer::Scan(self.txn_scan(request)),
            Cmd::Prewrite(request) => {
                let keys: Vec<&Bytes> = request.mutations.iter().map(|mutation| &mutation.key).collect();
                Answer::Prewrite(within!(self, request, keys, PrewriteResponse, |state| state
                    .mvcc
                    .prewrite(request)))
            }
            Cmd::Commit(request) => Answer::Commit(within!(self, request, refs(&request.keys), CommitResponse, |state| {
                let (commit_version, error) = state
                    .mvcc
                    .commit(request)
                    .map_or_else(|fault| (0, Some(fault)), |at| (at, None));
                kvrpcpb::CommitResponse {
                    error,
                    commit_version,
                    ..Default::default()
                }
            })),
            Cmd::BatchRollback(request) => {
                Answer::BatchRollback(within!(self, request, refs(&request.keys), BatchRollbackResponse, |state| {
                    kvrpcpb::BatchRollbackResponse {
                        error: state.mvcc.roll_back(&request.keys, request.start_version).err(),
                        ..Default::default()
                    }
                }))
            }
            Cmd::PessimisticLock(request) => {
                let keys: Vec<&Bytes> = request.mutations.iter().map(|mutation| &mutation.key).collect();
                Answer::PessimisticLock(within!(self, request, keys, PessimisticLockResponse, |state| state
                    .mvcc
                    .lock(request)))
            }
            Cmd::PessimisticRollback(request) => {
                let keys = refs(&request.keys);
                Answer::PessimisticRollback(within!(self, request, keys, PessimisticRollbackResponse, |state| {
                    state.mvcc.roll_back_pessimistic(request);
                    kvrpcpb::PessimisticRollbackResponse::default()
                }))
            }
            Cmd::TxnHeartBeat(request) => Answer::TxnHeartBeat(within!(
                self,
                request,
                [&request.primary_lock],
                TxnHeartBeatResponse,
                |state| {
                    let beaten = state.mvcc.beat(request);
                    kvrpcpb::TxnHeartBeatResponse {
                        lock_ttl: *beaten.as_ref().unwrap_or(&0),
                        error: beaten.err(),
                        ..Default::default()
                    }
                }
            )),
            Cmd::CheckTxnStatus(request) => Answer::CheckTxnStatus(within!(
                self,
                request,
                [&request.primary_key],
                CheckTxnStatusResponse,
                |state| {
                    let error = |error| kvrpcpb::CheckTxnStatusResponse {
                        error: Some(error),
                        ..Default::default()
                    };
                    state.mvcc.check_status(request).unwrap_or_else(error)
                }
            )),
            Cmd::CheckSecondaryLocks(request) => {
                let keys = refs(&request.keys);
                Answer::CheckSecondaryLocks(within!(self, request, keys, CheckSecondaryLocksResponse, |state| {
                    state.mvcc.check_secondaries(&request.keys, request.start_version)
                }))
            }
            Cmd::ScanLock(request) => Answer::ScanLock(self.txn_scan_lock(request)),
            Cmd::ResolveLock(request) => {
                let bounds = self.bounds(&request.context);
                Answer::ResolveLock(within!(self, request, refs(&request.keys), ResolveLockResponse, |state| {
                    kvrpcpb::ResolveLockResponse {
                        error: state.mvcc.resolve(request, (&bounds.0, &bounds.1)).err(),
                        ..Default::default()
                    }
                }))
            }
            _ => return None,
        })
    }

    fn txn_get(&self, request: &kvrpcpb::GetRequest) -> kvrpcpb::GetResponse {
        let passed = passed(&request.context);
        within!(self, request, [&request.key], GetResponse, |state| {
            let read = state.mvcc.get(&request.key, request.version, &passed);
            let mut answer = kvrpcpb::GetResponse::default();
            match read {
                Ok(Some(value)) => answer.value = value,
                Ok(None) => answer.not_found = true,
                Err(error) => answer.error = Some(error),
            }
            answer
        })
    }

    fn txn_batch_get(&self, request: &kvrpcpb::BatchGetRequest) -> kvrpcpb::BatchGetResponse {
        let passed = passed(&request.context);
        within!(self, request, refs(&request.keys), BatchGetResponse, |state| {
            let read = request.keys.iter().filter_map(|key| {
                let read = state.mvcc.get(key, request.version, &passed).transpose()?;
                Some(pair(key.clone(), read))
            });
            kvrpcpb::BatchGetResponse {
                pairs: read.collect(),
                ..Default::default()
            }
        })
    }

    fn txn_scan(&self, request: &kvrpcpb::ScanRequest) -> kvrpcpb::ScanResponse {
        let (start, end) = match request.reverse {
            false => (&request.start_key, &request.end_key),
            true => (&request.end_key, &request.start_key),
        };
        self.check_within(&request.context, start, end);
        let passed = passed(&request.context);
        within!(self, request, [], ScanResponse, |state| {
            let mut read = state.mvcc.scan(start, end, request.version, &passed);
            if request.reverse {
                read.reverse();
            }
            read.truncate(request.limit as usize);
            let mut pairs: Vec<_> = read.into_iter().map(|(key, read)| pair(key, read)).collect();
            if request.key_only {
                pairs.iter_mut().for_each(|pair| pair.value = Bytes::new());
            }
            kvrpcpb::ScanResponse {
                pairs,
                ..Default::default()
            }
        })
    }

    fn txn_scan_lock(&self, request: &kvrpcpb::ScanLockRequest) -> kvrpcpb::ScanLockResponse {
        self.check_within(&request.context, &request.start_key, &request.end_key);
        within!(self, request, [], ScanLockResponse, |state| {
            let within = |key: &Bytes| *key >= request.start_key && (request.end_key.is_empty() || *key < request.end_key);
            let locks = state
                .mvcc
                .locks()
                .into_iter()
                .filter(|(key, lock)| within(key) && lock.lock_version <= request.max_version);
            kvrpcpb::ScanLockResponse {
                locks: locks.map(|(_, lock)| lock).take(request.limit as usize).collect(),
                ..Default::default()
            }
        })
    }

    fn check_within(&self, context: &Option<kvrpcpb::Context>, start: &Bytes, end: &Bytes) {
        let (low, high) = self.bounds(context);
        // A region may have been split since the client looked; then its epoch tells.
        let current = self.fake.state.lock().epoch_of(context);
        if context.as_ref().and_then(|context| context.region_epoch) == current {
            assert!(*start >= low, "{start:?} is left of the region");
            assert!(
                high.is_empty() || (!end.is_empty() && *end <= high),
                "{end:?} is right of the region"
            );
        }
    }
}

impl State {
    fn epoch_of(&self, context: &Option<kvrpcpb::Context>) -> Option<proto::metapb::RegionEpoch> {
        let id = context.as_ref()?.region_id;
        self.regions.iter().find(|region| region.id == id)?.region_epoch
    }
}

fn refs(keys: &[Bytes]) -> Vec<&Bytes> {
    keys.iter().collect()
}

fn passed(context: &Option<kvrpcpb::Context>) -> Vec<u64> {
    context.as_ref().map_or(Vec::new(), |context| context.resolved_locks.clone())
}

fn pair(key: Bytes, read: Result<Bytes, Box<kvrpcpb::KeyError>>) -> kvrpcpb::KvPair {
    match read {
        Ok(value) => kvrpcpb::KvPair {
            key,
            value,
            ..Default::default()
        },
        Err(error) => kvrpcpb::KvPair {
            key,
            error: Some(error),
            ..Default::default()
        },
    }
}
