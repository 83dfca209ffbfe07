//! One client of a system under load: how it asks, and where.
//!
//! All systems are driven through the same generated tonic stubs over the same number of connections, so that the client's
//! share of the processor is the same for each.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use bytes::Bytes;
use proto::errorpb;
use proto::etcdserverpb::kv_client::KvClient;
use proto::etcdserverpb::{PutRequest, RangeRequest};
use proto::kvrpcpb::{Context, RawGetRequest, RawPutRequest};
use proto::tikvpb::batch_commands_request::{Request as Ask, request::Cmd as Asked};
use proto::tikvpb::batch_commands_response::{Response as Answer, response::Cmd as Told};
use proto::tikvpb::tikv_client::TikvClient;
use proto::tikvpb::{BatchCommandsRequest, BatchCommandsResponse};
use tokio::sync::{mpsc, oneshot};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;
use tonic::transport::{Channel, Endpoint};

use super::load::Op;

/// How requests are sent to a store.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Form {
    Unary,
    /// Many requests on one `BatchCommands` stream per connection.
    Batch,
}

impl Form {
    pub fn name(self) -> &'static str {
        match self {
            Form::Unary => "unary",
            Form::Batch => "batch",
        }
    }
}

pub enum Caller {
    Unary { client: TikvClient<Channel>, context: Context },
    Batch { batcher: Arc<Batcher>, context: Context },
    Etcd { client: KvClient<Channel> },
}

impl Caller {
    /// `Ok` once the server has answered the operation; a get must find its key.
    pub async fn call(&mut self, op: Op, key: Bytes, value: &Bytes) -> Result<()> {
        match self {
            Caller::Unary { client, context } => match op {
                Op::Put => {
                    let answer = client.raw_put(put(context, key, value)).await?.into_inner();
                    check(answer.region_error.as_deref(), &answer.error, false)
                }
                Op::Get => {
                    let answer = client.raw_get(get(context, key)).await?.into_inner();
                    check(answer.region_error.as_deref(), &answer.error, answer.not_found)
                }
            },
            Caller::Batch { batcher, context } => {
                let asked = match op {
                    Op::Put => Asked::RawPut(put(context, key, value)),
                    Op::Get => Asked::RawGet(get(context, key)),
                };
                match batcher.call(asked).await?.cmd.context("an answer without a command")? {
                    Told::RawPut(answer) => check(answer.region_error.as_deref(), &answer.error, false),
                    Told::RawGet(answer) => check(answer.region_error.as_deref(), &answer.error, answer.not_found),
                    other => bail!("an answer of another kind: {other:?}"),
                }
            }
            Caller::Etcd { client } => match op {
                Op::Put => {
                    let request = PutRequest {
                        key,
                        value: value.clone(),
                        ..PutRequest::default()
                    };
                    client.put(request).await?;
                    Ok(())
                }
                Op::Get => {
                    let request = RangeRequest {
                        key,
                        ..RangeRequest::default()
                    };
                    let answer = client.range(request).await?.into_inner();
                    ensure!(answer.count == 1, "key not found");
                    Ok(())
                }
            },
        }
    }
}

fn put(context: &Context, key: Bytes, value: &Bytes) -> RawPutRequest {
    RawPutRequest {
        context: Some(context.clone()),
        key,
        value: value.clone(),
        ..RawPutRequest::default()
    }
}

fn get(context: &Context, key: Bytes) -> RawGetRequest {
    RawGetRequest {
        context: Some(context.clone()),
        key,
        ..RawGetRequest::default()
    }
}

fn check(region_error: Option<&errorpb::Error>, error: &str, not_found: bool) -> Result<()> {
    if let Some(error) = region_error {
        return Err(anyhow!(RegionError(Box::new(error.clone()))));
    }
    ensure!(error.is_empty(), "{error}");
    ensure!(!not_found, "key not found");
    Ok(())
}

/// A store's refusal, kept whole so that a caller can follow its hint.
#[derive(Debug)]
pub struct RegionError(pub Box<errorpb::Error>);

impl std::fmt::Display for RegionError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "region error: {}", self.0.message)
    }
}

impl std::error::Error for RegionError {}

/// Connects to `host:port`.
pub async fn connect(address: &str) -> Result<Channel> {
    let endpoint = Endpoint::from_shared(format!("http://{address}"))?;
    let endpoint = endpoint.tcp_nodelay(true).connect_timeout(Duration::from_secs(1));
    endpoint.connect().await.with_context(|| format!("connect to {address}"))
}

/// Several connections to one store, shared evenly by any number of clients.
pub struct Connections {
    channels: Vec<Channel>,
    batchers: Vec<Arc<Batcher>>,
}

impl Connections {
    pub async fn open(address: &str, count: usize) -> Result<Self> {
        let (mut channels, mut batchers) = (Vec::new(), Vec::new());
        for _ in 0..count {
            let channel = connect(address).await?;
            batchers.push(Batcher::open(channel.clone()).await?);
            channels.push(channel);
        }
        Ok(Self { channels, batchers })
    }

    pub fn callers(&self, count: usize, form: Form, context: &Context) -> Vec<Caller> {
        let caller = |n: usize| match form {
            Form::Unary => {
                let client = TikvClient::new(self.channels[n % self.channels.len()].clone());
                Caller::Unary {
                    client,
                    context: context.clone(),
                }
            }
            Form::Batch => Caller::Batch {
                batcher: self.batchers[n % self.batchers.len()].clone(),
                context: context.clone(),
            },
        };
        (0..count).map(caller).collect()
    }
}

/// One `BatchCommands` stream: requests that wait while a message is being sent go out together in the next.
pub struct Batcher {
    requests: mpsc::Sender<(Asked, oneshot::Sender<Answer>)>,
}

type Waiting = Mutex<HashMap<u64, oneshot::Sender<Answer>>>;

/// Requests under way or waiting on one stream; more wait in their callers.
const QUEUE: usize = 1024;
/// What Go clients put into one message at most.
const BATCH: usize = 128;

impl Batcher {
    async fn open(channel: Channel) -> Result<Arc<Self>> {
        let (requests, queue) = mpsc::channel(QUEUE);
        let (batches, outgoing) = mpsc::channel(4);
        let waiting = Arc::new(Waiting::default());
        tokio::spawn(send_batches(queue, batches, waiting.clone()));
        // Some servers send headers only with the first answer, so nobody waits for them here.
        tokio::spawn(async move {
            let mut client = TikvClient::new(channel);
            if let Ok(answers) = client.batch_commands(ReceiverStream::new(outgoing)).await {
                receive_answers(answers.into_inner(), waiting).await;
            }
        });
        Ok(Arc::new(Self { requests }))
    }

    async fn call(&self, asked: Asked) -> Result<Answer> {
        let (answer, told) = oneshot::channel();
        self.requests
            .send((asked, answer))
            .await
            .map_err(|_| anyhow!("the stream is closed"))?;
        told.await.context("the stream ended before the answer")
    }
}

async fn send_batches(
    mut queue: mpsc::Receiver<(Asked, oneshot::Sender<Answer>)>,
    batches: mpsc::Sender<BatchCommandsRequest>,
    waiting: Arc<Waiting>,
) {
    let mut next_id = 0;
    let mut ready = Vec::with_capacity(BATCH);
    while queue.recv_many(&mut ready, BATCH).await > 0 {
        let mut batch = BatchCommandsRequest::default();
        {
            let mut waiting = waiting.lock().expect("no holder panics");
            for (asked, answer) in ready.drain(..) {
                next_id += 1;
                waiting.insert(next_id, answer);
                batch.requests.push(Ask { cmd: Some(asked) });
                batch.request_ids.push(next_id);
            }
        }
        if batches.send(batch).await.is_err() {
            return;
        }
    }
}

async fn receive_answers(mut answers: Streaming<BatchCommandsResponse>, waiting: Arc<Waiting>) {
    while let Ok(Some(batch)) = answers.message().await {
        let mut waiting = waiting.lock().expect("no holder panics");
        for (answer, id) in batch.responses.into_iter().zip(batch.request_ids) {
            // A caller may have given up.
            if let Some(caller) = waiting.remove(&id) {
                let _ = caller.send(answer);
            }
        }
    }
    // Whoever still waits learns it by their sender being dropped.
    waiting.lock().expect("no holder panics").clear();
}
