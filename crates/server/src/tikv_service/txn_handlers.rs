//! What each RPC of transactions does, unary or batched: its request's fields in, its answer's fields out.

use base::Ts;
use bytes::Bytes;
use proto::ferrite_read::{SafeTsRequest, SafeTsResponse};
use proto::kvrpcpb::*;
use tonic::Status;
use txn::{Command, Error as TxnError, Output};

use super::Arrival;
use super::answer::Answer;
use super::handlers::Handlers;
use super::metrics::Rpc;
use crate::call::Call;
use crate::txn::keys::Keys;
use crate::txn::read::Scan;
use crate::txn::wire::{self, Wanted};
use crate::txn::{Error, Result as TxnResult};

impl Handlers {
    pub async fn kv_get(&self, request: GetRequest, arrival: Arrival) -> Result<GetResponse, Status> {
        let GetRequest {
            mut context,
            key,
            version,
            need_commit_ts,
        } = request;
        let options = wire::read_options(context.as_mut(), version);
        let work = |call| async move {
            let mut answer = GetResponse::default();
            match self.txn.get(&call, key, &options).await? {
                Some(found) => {
                    answer.value = found.value;
                    answer.commit_ts = if need_commit_ts { found.commit_ts.0 } else { 0 };
                }
                None => answer.not_found = true,
            }
            Ok(answer)
        };
        self.read(Rpc::KvGet, context, arrival, work).await
    }

    pub async fn kv_batch_get(&self, request: BatchGetRequest, arrival: Arrival) -> Result<BatchGetResponse, Status> {
        let BatchGetRequest {
            mut context,
            keys,
            version,
            need_commit_ts,
        } = request;
        let options = wire::read_options(context.as_mut(), version);
        let work = |call| async move {
            let pairs = self.txn.batch_get(&call, keys, &options, need_commit_ts).await?;
            Ok(BatchGetResponse {
                pairs,
                ..Default::default()
            })
        };
        self.read(Rpc::KvBatchGet, context, arrival, work).await
    }

    pub async fn kv_scan(&self, request: ScanRequest, arrival: Arrival) -> Result<ScanResponse, Status> {
        let ScanRequest {
            mut context,
            start_key,
            limit,
            version,
            key_only,
            reverse,
            end_key,
            sample_step,
        } = request;
        let options = wire::read_options(context.as_mut(), version);
        let scan = Scan {
            start: start_key,
            end: end_key,
            limit: limit as usize,
            key_only,
            reverse,
            sample_step: sample_step as usize,
        };
        let work = |call| async move {
            let pairs = self.txn.scan(&call, scan, options).await?;
            Ok(ScanResponse {
                pairs,
                ..Default::default()
            })
        };
        self.read(Rpc::KvScan, context, arrival, work).await
    }

    pub async fn kv_prewrite(&self, mut request: PrewriteRequest, arrival: Arrival) -> Result<PrewriteResponse, Status> {
        let context = request.context.take();
        let is_retry = context.as_ref().is_some_and(|context| context.is_retry_request);
        let command = |keys| wire::prewrite(request, keys, is_retry);
        self.command(Rpc::KvPrewrite, context, arrival, command, wire::prewritten)
            .await
    }

    pub async fn kv_commit(&self, mut request: CommitRequest, arrival: Arrival) -> Result<CommitResponse, Status> {
        let context = request.context.take();
        let command = |keys| wire::commit(&request, keys);
        self.command(Rpc::KvCommit, context, arrival, command, wire::committed).await
    }

    pub async fn kv_cleanup(&self, request: CleanupRequest, arrival: Arrival) -> Result<CleanupResponse, Status> {
        let CleanupRequest {
            context,
            key,
            start_version,
            current_ts,
        } = request;
        let work = |call: Call| async move {
            let command = Command::Cleanup {
                key: self.txn.keys(&call)?.key(&key)?,
                start_ts: Ts(start_version),
                current_ts: Ts(current_ts),
            };
            match self.txn.run(&call, command).await {
                // What the client asked to undo, and must now do.
                Err(Error::Txn(TxnError::Committed { commit_ts, .. })) => Ok(CleanupResponse {
                    commit_version: commit_ts.0,
                    ..Default::default()
                }),
                outcome => outcome.map(|_| CleanupResponse::default()),
            }
        };
        self.transact(Rpc::KvCleanup, context, arrival, work).await
    }

    pub async fn kv_batch_rollback(
        &self,
        mut request: BatchRollbackRequest,
        arrival: Arrival,
    ) -> Result<BatchRollbackResponse, Status> {
        let context = request.context.take();
        let command = |keys: Keys| {
            Ok(Command::Rollback {
                keys: keys.keys(&request.keys)?,
                start_ts: Ts(request.start_version),
            })
        };
        self.command(Rpc::KvBatchRollback, context, arrival, command, done).await
    }

    pub async fn kv_pessimistic_lock(
        &self,
        mut request: PessimisticLockRequest,
        arrival: Arrival,
    ) -> Result<PessimisticLockResponse, Status> {
        let mut context = request.context.take();
        let wanted = Wanted::of(&request);
        let tag = context
            .as_mut()
            .map(|context| std::mem::take(&mut context.resource_group_tag));
        let command = |keys| wire::pessimistic_lock(request, keys, tag.unwrap_or_default());
        let answer = |output| wire::pessimistic_locked(output, wanted);
        let mut answer = self
            .command(Rpc::KvPessimisticLock, context, arrival, command, answer)
            .await?;
        wire::refused_results(&mut answer, wanted);
        Ok(answer)
    }

    pub async fn kv_pessimistic_rollback(
        &self,
        mut request: PessimisticRollbackRequest,
        arrival: Arrival,
    ) -> Result<PessimisticRollbackResponse, Status> {
        let context = request.context.take();
        let command = |keys: Keys| {
            Ok(Command::PessimisticRollback {
                scan: request.keys.is_empty().then(Bytes::new),
                keys: keys.keys(&request.keys)?,
                start_ts: Ts(request.start_version),
                for_update_ts: Ts(request.for_update_ts),
            })
        };
        self.command(Rpc::KvPessimisticRollback, context, arrival, command, done)
            .await
    }

    pub async fn kv_txn_heart_beat(
        &self,
        mut request: TxnHeartBeatRequest,
        arrival: Arrival,
    ) -> Result<TxnHeartBeatResponse, Status> {
        let context = request.context.take();
        let command = |keys: Keys| {
            Ok(Command::HeartBeat {
                primary: keys.key(&request.primary_lock)?,
                start_ts: Ts(request.start_version),
                advise_ttl_ms: request.advise_lock_ttl,
                min_commit_ts: Ts(request.min_commit_ts),
            })
        };
        self.command(Rpc::KvTxnHeartBeat, context, arrival, command, wire::heart_beat)
            .await
    }

    pub async fn kv_check_txn_status(
        &self,
        mut request: CheckTxnStatusRequest,
        arrival: Arrival,
    ) -> Result<CheckTxnStatusResponse, Status> {
        let context = request.context.take();
        let command = |keys| wire::check_txn_status(&request, keys);
        self.command(Rpc::KvCheckTxnStatus, context, arrival, command, wire::txn_status)
            .await
    }

    pub async fn kv_check_secondary_locks(
        &self,
        mut request: CheckSecondaryLocksRequest,
        arrival: Arrival,
    ) -> Result<CheckSecondaryLocksResponse, Status> {
        let context = request.context.take();
        let command = |keys: Keys| {
            Ok(Command::CheckSecondaryLocks {
                keys: keys.keys(&request.keys)?,
                start_ts: Ts(request.start_version),
            })
        };
        self.command(Rpc::KvCheckSecondaryLocks, context, arrival, command, wire::secondaries)
            .await
    }

    pub async fn kv_scan_lock(&self, request: ScanLockRequest, arrival: Arrival) -> Result<ScanLockResponse, Status> {
        let ScanLockRequest {
            context,
            max_version,
            start_key,
            limit,
            end_key,
        } = request;
        let work = |call| async move {
            let (max_ts, limit) = (Ts(max_version), limit as usize);
            let locks = self.txn.scan_locks(&call, &start_key, &end_key, max_ts, limit).await?;
            Ok(ScanLockResponse {
                locks,
                ..Default::default()
            })
        };
        self.transact(Rpc::KvScanLock, context, arrival, work).await
    }

    pub async fn kv_resolve_lock(
        &self,
        mut request: ResolveLockRequest,
        arrival: Arrival,
    ) -> Result<ResolveLockResponse, Status> {
        let context = request.context.take();
        let command = |keys| wire::resolve_lock(&request, keys);
        self.command(Rpc::KvResolveLock, context, arrival, command, done).await
    }

    pub async fn kv_delete_range(
        &self,
        mut request: DeleteRangeRequest,
        arrival: Arrival,
    ) -> Result<DeleteRangeResponse, Status> {
        let context = request.context.take();
        let command = |keys: Keys| {
            let (start, end) = keys.range(&request.start_key, &request.end_key)?;
            Ok(Command::DeleteRange {
                start,
                end,
                notify_only: request.notify_only,
            })
        };
        self.command(Rpc::KvDeleteRange, context, arrival, command, done).await
    }

    pub async fn unsafe_destroy_range(
        &self,
        request: UnsafeDestroyRangeRequest,
        arrival: Arrival,
    ) -> Result<UnsafeDestroyRangeResponse, Status> {
        let UnsafeDestroyRangeRequest {
            context,
            start_key,
            end_key,
        } = request;
        let work = |_| async move {
            self.txn
                .destroy_range(&start_key, &end_key)
                .await
                .map(|()| Default::default())
        };
        self.transact(Rpc::UnsafeDestroyRange, context, arrival, work).await
    }

    pub async fn physical_scan_lock(
        &self,
        request: PhysicalScanLockRequest,
        arrival: Arrival,
    ) -> Result<PhysicalScanLockResponse, Status> {
        let PhysicalScanLockRequest {
            context,
            max_ts,
            start_key,
            limit,
        } = request;
        let work = |_| async move {
            let locks = self.txn.physical_scan_locks(&start_key, Ts(max_ts), limit as usize).await?;
            Ok(PhysicalScanLockResponse {
                locks,
                ..Default::default()
            })
        };
        self.transact(Rpc::PhysicalScanLock, context, arrival, work).await
    }

    /// What a replica asks before it reads.
    pub async fn read_index(&self, request: ReadIndexRequest, arrival: Arrival) -> Result<ReadIndexResponse, Status> {
        let ReadIndexRequest {
            mut context,
            start_ts,
            ranges,
        } = request;
        let options = wire::read_options(context.as_mut(), start_ts);
        let work = |call| async move {
            let read_index = match self.txn.read_index(&call, &options, ranges).await {
                Err(Error::Txn(TxnError::Locked(locked))) => {
                    return Ok(ReadIndexResponse {
                        locked: Some(Box::new(wire::lock_info(&locked)?)),
                        ..Default::default()
                    });
                }
                outcome => outcome?,
            };
            Ok(ReadIndexResponse {
                read_index,
                ..Default::default()
            })
        };
        self.transact(Rpc::ReadIndex, context, arrival, work).await
    }

    /// What a replica asks for stale reads.
    pub async fn safe_ts(&self, request: SafeTsRequest, arrival: Arrival) -> Result<SafeTsResponse, Status> {
        let context = Context {
            region_id: request.region_id,
            region_epoch: request.epoch,
            cluster_id: request.cluster_id,
            ..Context::default()
        };
        let work = |call| async move {
            let time = self.txn.safe_time(&call).await?;
            Ok(SafeTsResponse {
                safe_ts: time.safe_ts.0,
                index: time.index,
                ..Default::default()
            })
        };
        self.transact(Rpc::SafeTs, Some(context), arrival, work).await
    }

    pub async fn get_store_safe_ts(
        &self,
        _request: StoreSafeTsRequest,
        _arrival: Arrival,
    ) -> Result<StoreSafeTsResponse, Status> {
        Ok(StoreSafeTsResponse {
            safe_ts: self.txn.store_safe_ts().0,
        })
    }

    pub async fn get_lock_wait_info(
        &self,
        request: GetLockWaitInfoRequest,
        arrival: Arrival,
    ) -> Result<GetLockWaitInfoResponse, Status> {
        let work = |_| async move {
            Ok(GetLockWaitInfoResponse {
                entries: self.txn.waits(),
                ..Default::default()
            })
        };
        self.transact(Rpc::GetLockWaitInfo, request.context, arrival, work).await
    }

    pub async fn mvcc_get_by_key(&self, request: MvccGetByKeyRequest, arrival: Arrival) -> Result<MvccGetByKeyResponse, Status> {
        let MvccGetByKeyRequest { context, key } = request;
        let work = |call| async move {
            Ok(MvccGetByKeyResponse {
                info: Some(self.txn.history(&call, key).await?),
                ..Default::default()
            })
        };
        self.transact(Rpc::MvccGetByKey, context, arrival, work).await
    }

    pub async fn mvcc_get_by_start_ts(
        &self,
        request: MvccGetByStartTsRequest,
        arrival: Arrival,
    ) -> Result<MvccGetByStartTsResponse, Status> {
        let MvccGetByStartTsRequest { context, start_ts } = request;
        let work = |call| async move {
            let mut answer = MvccGetByStartTsResponse::default();
            if let Some((key, info)) = self.txn.find(&call, Ts(start_ts)).await? {
                (answer.key, answer.info) = (key, Some(info));
            }
            Ok(answer)
        };
        self.transact(Rpc::MvccGetByStartTs, context, arrival, work).await
    }

    /// Runs one command of a transaction.
    async fn command<A: Answer>(
        &self,
        rpc: Rpc,
        context: Option<Context>,
        arrival: Arrival,
        command: impl FnOnce(Keys) -> TxnResult<Command>,
        answer: impl FnOnce(Output) -> TxnResult<A>,
    ) -> Result<A, Status> {
        let work = |call: Call| async move {
            let command = command(self.txn.keys(&call)?)?;
            answer(self.txn.run(&call, command).await?)
        };
        self.transact(rpc, context, arrival, work).await
    }

    /// Runs a read of a transaction, which any replica may serve.
    async fn read<A: Answer>(
        &self,
        rpc: Rpc,
        context: Option<Context>,
        arrival: Arrival,
        work: impl AsyncFnOnce(Call) -> TxnResult<A>,
    ) -> Result<A, Status> {
        self.run(rpc, context, arrival, work, |answer, made| *answer = made).await
    }

    /// Runs `work`, which makes the answer, where the region is led.
    async fn transact<A: Answer>(
        &self,
        rpc: Rpc,
        mut context: Option<Context>,
        arrival: Arrival,
        work: impl AsyncFnOnce(Call) -> TxnResult<A>,
    ) -> Result<A, Status> {
        if let Some(context) = &mut context {
            (context.replica_read, context.stale_read) = (false, false);
        }
        self.run(rpc, context, arrival, work, |answer, made| *answer = made).await
    }
}

/// For answers that tell nothing but success.
fn done<A: Answer>(_: Output) -> TxnResult<A> {
    Ok(A::default())
}
