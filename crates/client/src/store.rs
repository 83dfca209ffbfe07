//! Connections to stores, by store id.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use base::StoreId;
use parking_lot::Mutex;
use proto::metapb;
use proto::tikvpb::tikv_client::TikvClient;
use tls::Dialer;
use tonic::Status;
use tonic::transport::Channel;

use crate::batch::BatchStream;
use crate::call::Call;
use crate::error::PdError;
use crate::pd::Pd;
use crate::request::Request;
use crate::{ClientOptions, Error, net};

/// Connections to one store at the address that PD told.
pub(crate) struct Store {
    pub address: String,
    lines: Vec<Line>,
    next: AtomicUsize,
    batched: bool,
}

/// One connection, with its stream of batched requests once there was one.
struct Line {
    client: TikvClient<Channel>,
    batch: Mutex<Option<Arc<BatchStream>>>,
}

impl Store {
    fn new(address: String, options: &ClientOptions, dialer: &Dialer) -> Result<Store, Error> {
        let line = |_| {
            let client = TikvClient::new(net::lazy(dialer, &address)?).max_decoding_message_size(options.answer_bytes_max);
            Ok(Line {
                client: client.max_encoding_message_size(usize::MAX),
                batch: Mutex::default(),
            })
        };
        let lines = (0..options.connections.max(1)).map(line).collect::<Result<_, Error>>()?;
        Ok(Store {
            address,
            lines,
            next: AtomicUsize::new(0),
            batched: options.batch_commands,
        })
    }

    /// One try of a request, without deadline.
    pub async fn send<R: Request>(&self, request: R) -> Result<R::Answer, Status> {
        let line = &self.lines[self.next.fetch_add(1, Ordering::Relaxed) % self.lines.len()];
        let unary = match self.batched {
            false => request,
            true => match request.into_command() {
                Ok(command) => {
                    let answer = line.batch().call(command).await?;
                    return R::from_command(answer).ok_or_else(|| Status::internal("an answer of another kind"));
                }
                Err(request) => request,
            },
        };
        // Boxed, here and in `route`, as what is rarely awaited: each call is as large as the largest of what it may await, and is moved.
        Box::pin(unary.send(line.client.clone())).await
    }
}

impl Line {
    fn batch(&self) -> Arc<BatchStream> {
        let mut held = self.batch.lock();
        match &*held {
            Some(stream) if !stream.is_over() => stream.clone(),
            _ => held.insert(Arc::new(BatchStream::open(self.client.clone()))).clone(),
        }
    }
}

/// All stores that were asked so far.
pub(crate) struct Stores {
    pd: Pd,
    options: Arc<ClientOptions>,
    known: Mutex<BTreeMap<StoreId, Arc<Store>>>,
}

impl Stores {
    pub fn new(pd: Pd, options: Arc<ClientOptions>) -> Stores {
        Stores {
            pd,
            options,
            known: Mutex::default(),
        }
    }

    /// Errors with [`PdError::NotFound`] if PD does not know the store, or as one that was removed.
    pub async fn get(&self, call: &mut Call, id: StoreId) -> Result<Arc<Store>, Error> {
        if let Some(store) = self.known.lock().get(&id) {
            return Ok(store.clone());
        }
        let (meta, _) = Box::pin(self.pd.store_within(call, id)).await?;
        if meta.state() == metapb::StoreState::Tombstone {
            return Err(Error::Pd {
                kind: PdError::NotFound,
                message: format!("store {id} was removed"),
            });
        }
        let store = Arc::new(Store::new(meta.address, &self.options, self.pd.dialer())?);
        Ok(self.known.lock().entry(id).or_insert(store).clone())
    }

    /// Forgets a store that does not answer, so that PD is asked for its address again.
    pub fn forget(&self, id: StoreId, store: &Arc<Store>) {
        let mut known = self.known.lock();
        if known.get(&id).is_some_and(|held| Arc::ptr_eq(held, store)) {
            known.remove(&id);
        }
    }
}
