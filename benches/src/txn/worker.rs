//! One client of the benchmark: what it writes, and through what.

use anyhow::{Result, ensure};
use bytes::Bytes;
use client::{Hint, RawClient, TxnClient, TxnOptions};
use proto::etcdserverpb::kv_client::KvClient;
use proto::etcdserverpb::{PutRequest, RequestOp, TxnRequest, request_op};
use rand::Rng;
use rand::rngs::SmallRng;
use tonic::transport::Channel;

use crate::kv::load::Worker;

/// Where the second region begins.
pub const BORDER: &str = "txn/b";
/// Keys of each region, written with equal chance.
const KEYS: u64 = 10_000;
/// The same where all clients want the same few.
const HOT_KEYS: u64 = 16;

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Work {
    OneKey,
    /// One of few keys.
    OneKeyContended,
    /// A key in each of two regions.
    TwoRegions,
    /// The same, of few keys.
    TwoRegionsContended,
}

impl Work {
    pub fn name(self) -> &'static str {
        match self {
            Work::OneKey => "1 key",
            Work::OneKeyContended => "1 key, contended",
            Work::TwoRegions => "2 keys, 2 regions",
            Work::TwoRegionsContended => "2 keys, 2 regions, contended",
        }
    }

    pub fn is_contended(self) -> bool {
        matches!(self, Work::OneKeyContended | Work::TwoRegionsContended)
    }

    fn keys(self, chance: &mut SmallRng) -> Vec<Bytes> {
        let count = if self.is_contended() { HOT_KEYS } else { KEYS };
        let mut key = |region: char| Bytes::from(format!("txn/{region}{:08}", chance.random_range(0..count)));
        match self {
            Work::OneKey | Work::OneKeyContended => vec![key('a')],
            Work::TwoRegions | Work::TwoRegionsContended => vec![key('a'), key('b')],
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Way {
    /// No transaction: the floor.
    RawPut,
    OnePhase,
    Async,
    TwoPhase,
    /// Locks first, then commits in as few rounds as it can: what to use where many want the same keys.
    Pessimistic,
    Etcd,
}

impl Way {
    pub fn name(self) -> &'static str {
        match self {
            Way::RawPut => "raw put",
            Way::OnePhase => "one phase",
            Way::Async => "async commit",
            Way::TwoPhase => "two phases",
            Way::Pessimistic => "pessimistic",
            Way::Etcd => "etcd Txn",
        }
    }

    pub fn options(self) -> TxnOptions {
        match self {
            Way::OnePhase => TxnOptions::default(),
            Way::Async => TxnOptions {
                one_phase: false,
                ..TxnOptions::default()
            },
            Way::Pessimistic => TxnOptions::pessimistic(),
            _ => TxnOptions::two_phase(),
        }
    }
}

/// Through what a client writes.
#[derive(Clone)]
pub enum Target {
    Raw(RawClient),
    Txn(TxnClient, TxnOptions),
    Etcd(KvClient<Channel>),
}

pub struct TxnWorker {
    pub target: Target,
    pub work: Work,
    pub value: Bytes,
}

impl Worker for TxnWorker {
    async fn work(&mut self, chance: &mut SmallRng) -> Result<()> {
        let keys = self.work.keys(chance);
        match &mut self.target {
            Target::Raw(client) => {
                for key in keys {
                    client.put(key, self.value.clone()).await?;
                }
                Ok(())
            }
            Target::Txn(client, options) => commit(client, options, &keys, &self.value).await,
            Target::Etcd(client) => {
                let put = |key| RequestOp {
                    request: Some(request_op::Request::RequestPut(PutRequest {
                        key,
                        value: self.value.clone(),
                        ..PutRequest::default()
                    })),
                };
                let request = TxnRequest {
                    success: keys.into_iter().map(put).collect(),
                    ..TxnRequest::default()
                };
                let answer = client.txn(request).await?.into_inner();
                ensure!(answer.succeeded, "a transaction without condition failed");
                Ok(())
            }
        }
    }
}

/// Until it is committed.
async fn commit(client: &TxnClient, options: &TxnOptions, keys: &[Bytes], value: &Bytes) -> Result<()> {
    loop {
        let mut txn = client.begin(options.clone()).await?;
        // Locks are taken here if they are taken first: then one of two that wait for each other is told to begin again.
        let wrote = txn.batch_put(keys.iter().map(|key| (key.clone(), value.clone()))).await;
        let ended = match wrote {
            Ok(()) => txn.commit().await.map(drop),
            Err(error) => txn.rollback().await.and(Err(error)),
        };
        match ended {
            Ok(()) => return Ok(()),
            Err(error) if error.hint() == Hint::RetryTransaction => {}
            Err(error) => return Err(error.into()),
        }
    }
}
