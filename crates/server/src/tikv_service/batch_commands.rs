//! `BatchCommands`: one stream of messages with many commands each, answered by id in any order. Nearly all traffic of Go
//! clients comes this way.
//!
//! A command is polled once where it was read; most reads are answered by that, at the price of a function call. Gets of one region
//! that follow each other share a snapshot. What has to wait goes to a task of its own, so that its progress never hangs on a client
//! that does not read its answers. Answers that are ready together leave together. At most [`STREAM_COMMANDS_MAX`] commands of a stream are unanswered: beyond, the stream
//! is not read, and HTTP/2 makes the client wait. When the client has sent all, the stream ends with the last answer.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures::Stream;
use futures::future::BoxFuture;
use prost::Message;
use proto::kvrpcpb::{RawGetRequest, RawGetResponse};
use proto::tikvpb::batch_commands_request::request::Cmd as Request;
use proto::tikvpb::batch_commands_response::Response as Answer;
use proto::tikvpb::batch_commands_response::response::Cmd as Response;
use proto::tikvpb::{BatchCommandsEmptyRequest, BatchCommandsEmptyResponse, BatchCommandsRequest, BatchCommandsResponse};
use tokio::sync::mpsc;
use tonic::{Status, Streaming};

use super::Arrival;
use super::handlers::Handlers;
use super::metrics::{BATCH_COMMANDS, BATCH_MESSAGES, BATCH_WAITING};
use crate::limits::STREAM_COMMANDS_MAX;

/// Answers in one message at most, in number and bytes; the last one may go over.
const ANSWERS_MAX: usize = 256;
const ANSWER_BYTES_MAX: usize = 1 << 20;
/// Longest delay that an empty command may ask for.
const DELAY_MAX: Duration = Duration::from_secs(1);

/// The id a command came with, and how it ended. `Err` ends the stream.
type Outcome = (u64, Result<Answer, Status>);

/// The answers of one stream.
pub struct BatchCommands<S = Streaming<BatchCommandsRequest>> {
    handlers: Arc<Handlers>,
    /// Gone once the client has sent all.
    commands: Option<S>,
    /// Commands read and not started, with the time at which they came.
    read: VecDeque<(u64, Option<Request>)>,
    arrival: Arrival,
    /// Commands that wait in tasks; each has room in the channel.
    waiting: usize,
    answered: mpsc::Receiver<Outcome>,
    answer: mpsc::Sender<Outcome>,
    ready: BatchCommandsResponse,
    ready_bytes: usize,
}

impl<S> BatchCommands<S>
where
    S: Stream<Item = Result<BatchCommandsRequest, Status>> + Unpin,
{
    pub fn new(handlers: Arc<Handlers>, commands: S) -> BatchCommands<S> {
        let (answer, answered) = mpsc::channel(STREAM_COMMANDS_MAX);
        BatchCommands {
            handlers,
            commands: Some(commands),
            read: VecDeque::new(),
            arrival: Arrival::read(None),
            waiting: 0,
            answered,
            answer,
            ready: BatchCommandsResponse::default(),
            ready_bytes: 0,
        }
    }

    /// Takes answers of tasks, starts commands, reads on, until a message of answers is full or nothing more can be done now.
    /// Pending: the stream's end, another message or an answer will wake us.
    fn progress(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Status>> {
        while !self.is_full() {
            if self.waiting > 0
                && let Poll::Ready(Some(outcome)) = self.answered.poll_recv(cx)
            {
                self.waiting -= 1;
                self.collect(outcome)?;
            } else if self.waiting < STREAM_COMMANDS_MAX
                && let Some((id, command)) = self.read.pop_front()
            {
                self.start(cx, id, command)?;
            } else if self.read.is_empty()
                && let Some(commands) = &mut self.commands
            {
                match ready!(Pin::new(commands).poll_next(cx)) {
                    Some(message) => self.take(message?)?,
                    None => self.commands = None,
                }
            } else if self.waiting == 0 {
                break;
            } else {
                return Poll::Pending;
            }
        }
        Poll::Ready(Ok(()))
    }

    /// A message came in.
    fn take(&mut self, message: BatchCommandsRequest) -> Result<(), Status> {
        let BatchCommandsRequest {
            requests, request_ids, ..
        } = message;
        if requests.len() != request_ids.len() {
            let text = format!("{} commands with {} ids", requests.len(), request_ids.len());
            return Err(Status::invalid_argument(text));
        }
        BATCH_MESSAGES.inc();
        BATCH_COMMANDS.inc_by(requests.len() as u64);
        self.arrival = Arrival::read(None);
        self.read
            .extend(request_ids.into_iter().zip(requests.into_iter().map(|request| request.cmd)));
        Ok(())
    }

    /// Runs a command as far as it goes now, and with a get those that follow it.
    fn start(&mut self, cx: &mut Context<'_>, id: u64, command: Option<Request>) -> Result<(), Status> {
        let (handlers, arrival) = (self.handlers.clone(), self.arrival);
        if let Some(Request::RawGet(request)) = command {
            let (ids, requests) = self.gets_from(id, request);
            let work = Box::pin(async move { handlers.raw_gets(requests, arrival).await });
            return self.begin(cx, ids.len(), work, |outcome| each(ids, outcome));
        }
        self.begin(cx, 1, run(handlers, command, arrival), move |outcome| [(id, outcome)])
    }

    /// A get and those read behind it that mean the same region in the same way, as many as there is room for.
    fn gets_from(&mut self, id: u64, first: RawGetRequest) -> (Vec<u64>, Vec<RawGetRequest>) {
        let room = (ANSWERS_MAX - self.ready.responses.len()).min(STREAM_COMMANDS_MAX - self.waiting);
        let (mut ids, mut gets) = (vec![id], vec![first]);
        while gets.len() < room
            && let Some((_, Some(Request::RawGet(next)))) = self.read.front()
            && next.context == gets[0].context
            && let Some((id, Some(Request::RawGet(next)))) = self.read.pop_front()
        {
            ids.push(id);
            gets.push(next);
        }
        (ids, gets)
    }

    /// Polls the work of `count` commands once; what is not done then goes on in a task.
    fn begin<T, O>(
        &mut self,
        cx: &mut Context<'_>,
        count: usize,
        mut work: BoxFuture<'static, T>,
        outcomes: impl FnOnce(T) -> O + Send + 'static,
    ) -> Result<(), Status>
    where
        T: Send + 'static,
        O: IntoIterator<Item = Outcome, IntoIter: Send>,
    {
        match work.as_mut().poll(cx) {
            Poll::Ready(done) => outcomes(done).into_iter().try_for_each(|outcome| self.collect(outcome)),
            Poll::Pending => {
                BATCH_WAITING.inc_by(count as u64);
                self.waiting += count;
                let answer = self.answer.clone();
                tokio::spawn(async move {
                    for outcome in outcomes(work.await) {
                        // The channel has room for every command. It is closed when the client has gone.
                        drop(answer.send(outcome).await);
                    }
                });
                Ok(())
            }
        }
    }

    fn collect(&mut self, (id, outcome): Outcome) -> Result<(), Status> {
        let answer = outcome?;
        self.ready_bytes += answer.encoded_len();
        self.ready.request_ids.push(id);
        self.ready.responses.push(answer);
        Ok(())
    }

    fn is_full(&self) -> bool {
        self.ready.responses.len() >= ANSWERS_MAX || self.ready_bytes >= ANSWER_BYTES_MAX
    }
}

impl<S> Stream for BatchCommands<S>
where
    S: Stream<Item = Result<BatchCommandsRequest, Status>> + Unpin,
{
    type Item = Result<BatchCommandsResponse, Status>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let ended = match self.progress(cx) {
            Poll::Ready(Err(status)) => return Poll::Ready(Some(Err(status))),
            Poll::Ready(Ok(())) => true,
            Poll::Pending => false,
        };
        match (self.ready.responses.is_empty(), ended) {
            (false, _) => {
                self.ready_bytes = 0;
                Poll::Ready(Some(Ok(std::mem::take(&mut self.ready))))
            }
            (true, true) => Poll::Ready(None),
            (true, false) => Poll::Pending,
        }
    }
}

/// The answers of gets that ran together, each with its id.
fn each(ids: Vec<u64>, outcome: Result<Vec<RawGetResponse>, Status>) -> Vec<Outcome> {
    let answer = |response| Answer {
        cmd: Some(Response::RawGet(response)),
    };
    match outcome {
        Ok(answers) => ids
            .into_iter()
            .zip(answers.into_iter().map(|found| Ok(answer(found))))
            .collect(),
        Err(status) => ids.into_iter().map(|id| (id, Err(status.clone()))).collect(),
    }
}

/// Runs one command. What is not served is answered without a body, which clients report as unknown, so that it does not end
/// the other commands of the stream. A future for each kind: one for all would be as large as the largest, and copied as such.
fn run(handlers: Arc<Handlers>, command: Option<Request>, arrival: Arrival) -> BoxFuture<'static, Result<Answer, Status>> {
    macro_rules! handle {
        ($command:ident, $handler:ident, $request:ident) => {
            Box::pin(async move {
                let response = handlers.$handler($request, arrival).await?;
                Ok(Answer {
                    cmd: Some(Response::$command(response)),
                })
            })
        };
    }
    match command {
        Some(Request::RawBatchGet(request)) => handle!(RawBatchGet, raw_batch_get, request),
        Some(Request::RawPut(request)) => handle!(RawPut, raw_put, request),
        Some(Request::RawBatchPut(request)) => handle!(RawBatchPut, raw_batch_put, request),
        Some(Request::RawDelete(request)) => handle!(RawDelete, raw_delete, request),
        Some(Request::RawBatchDelete(request)) => handle!(RawBatchDelete, raw_batch_delete, request),
        Some(Request::RawScan(request)) => handle!(RawScan, raw_scan, request),
        Some(Request::RawBatchScan(request)) => handle!(RawBatchScan, raw_batch_scan, request),
        Some(Request::RawDeleteRange(request)) => handle!(RawDeleteRange, raw_delete_range, request),
        Some(Request::Get(request)) => handle!(Get, kv_get, request),
        Some(Request::Scan(request)) => handle!(Scan, kv_scan, request),
        Some(Request::Prewrite(request)) => handle!(Prewrite, kv_prewrite, request),
        Some(Request::Commit(request)) => handle!(Commit, kv_commit, request),
        Some(Request::Cleanup(request)) => handle!(Cleanup, kv_cleanup, request),
        Some(Request::BatchGet(request)) => handle!(BatchGet, kv_batch_get, request),
        Some(Request::BatchRollback(request)) => handle!(BatchRollback, kv_batch_rollback, request),
        Some(Request::ScanLock(request)) => handle!(ScanLock, kv_scan_lock, request),
        Some(Request::ResolveLock(request)) => handle!(ResolveLock, kv_resolve_lock, request),
        Some(Request::DeleteRange(request)) => handle!(DeleteRange, kv_delete_range, request),
        Some(Request::PessimisticLock(request)) => handle!(PessimisticLock, kv_pessimistic_lock, request),
        Some(Request::PessimisticRollback(request)) => handle!(PessimisticRollback, kv_pessimistic_rollback, request),
        Some(Request::CheckTxnStatus(request)) => handle!(CheckTxnStatus, kv_check_txn_status, request),
        Some(Request::TxnHeartBeat(request)) => handle!(TxnHeartBeat, kv_txn_heart_beat, request),
        Some(Request::CheckSecondaryLocks(request)) => handle!(CheckSecondaryLocks, kv_check_secondary_locks, request),
        Some(Request::Empty(request)) => Box::pin(empty(request)),
        Some(_) | None => Box::pin(std::future::ready(Ok(Answer { cmd: None }))),
    }
}

async fn empty(request: BatchCommandsEmptyRequest) -> Result<Answer, Status> {
    if request.delay_time != 0 {
        tokio::time::sleep(Duration::from_millis(request.delay_time).min(DELAY_MAX)).await;
    }
    let test_id = request.test_id;
    Ok(Answer {
        cmd: Some(Response::Empty(BatchCommandsEmptyResponse { test_id })),
    })
}
