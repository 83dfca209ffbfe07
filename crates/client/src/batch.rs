//! Many requests on one stream to a store (`BatchCommands`), matched to their answers by request id.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use futures::stream;
use parking_lot::Mutex;
use prost::Message;
use proto::tikvpb::tikv_client::TikvClient;
use proto::tikvpb::{self, batch_commands_request as batch_request, batch_commands_response as batch_response};
use tokio::sync::{mpsc, oneshot};
use tonic::transport::Channel;
use tonic::{Status, Streaming};

/// Requests that wait to be put on the stream; further callers wait to be let in.
const WAITING_MAX: usize = 4096;
/// Requests sent in one message. What came together leaves together; nothing waits for more to come.
const BATCH_MAX: usize = 128;
/// And their bytes, unless one alone is more: well below what stores take in one message, 16 MiB.
const BATCH_BYTES_MAX: usize = 4 << 20;

type Command = batch_request::request::Cmd;
type CommandAnswer = batch_response::response::Cmd;
type Waiter = oneshot::Sender<Result<CommandAnswer, Status>>;

/// Requests without an answer yet. `None` once the stream is over: then none may be added, and all were told.
struct InFlight(Mutex<Option<HashMap<u64, Waiter>>>);

impl InFlight {
    fn add(&self, id: u64, waiter: Waiter) {
        match self.0.lock().as_mut() {
            Some(waiters) => drop(waiters.insert(id, waiter)),
            None => drop(waiter),
        }
    }

    fn take(&self, id: u64) -> Option<Waiter> {
        self.0.lock().as_mut()?.remove(&id)
    }

    fn end(&self, status: &Status) {
        let waiters = self.0.lock().take().unwrap_or_default();
        waiters
            .into_values()
            .for_each(|waiter| drop(waiter.send(Err(status.clone()))));
    }
}

/// One stream. When it breaks every caller on it gets the error, and [`BatchStream::is_over`] says so from then on.
pub(crate) struct BatchStream {
    waiting: mpsc::Sender<(Command, Waiter)>,
    in_flight: Arc<InFlight>,
}

impl BatchStream {
    /// Opens a stream as soon as the connection allows; it lives until dropped or broken.
    pub fn open(client: TikvClient<Channel>) -> BatchStream {
        let (waiting, requests) = mpsc::channel(WAITING_MAX);
        let in_flight = Arc::new(InFlight(Mutex::new(Some(HashMap::new()))));
        tokio::spawn(run(client, requests, in_flight.clone()));
        BatchStream { waiting, in_flight }
    }

    pub fn is_over(&self) -> bool {
        self.in_flight.0.lock().is_none()
    }

    pub async fn call(&self, command: Command) -> Result<CommandAnswer, Status> {
        let over = || Status::unavailable("the stream of batched requests ended");
        let (waiter, answer) = oneshot::channel();
        self.waiting.send((command, waiter)).await.map_err(|_| over())?;
        answer.await.unwrap_or_else(|_| Err(over()))
    }
}

async fn run(mut client: TikvClient<Channel>, requests: mpsc::Receiver<(Command, Waiter)>, in_flight: Arc<InFlight>) {
    let outgoing = stream::unfold(Outgoing::new(requests, in_flight.clone()), |mut outgoing| async move {
        let batch = outgoing.next().await?;
        Some((batch, outgoing))
    });
    let ended = match client.batch_commands(outgoing).await {
        Ok(answers) => receive(answers.into_inner(), &in_flight).await,
        Err(status) => status,
    };
    in_flight.end(&ended);
}

/// What is sent. Polled by the connection whenever it can send, so that requests gather while it cannot.
struct Outgoing {
    requests: mpsc::Receiver<(Command, Waiter)>,
    /// Taken from the queue, and too many bytes for the message before.
    taken: VecDeque<(Command, Waiter)>,
    in_flight: Arc<InFlight>,
    next_id: u64,
}

impl Outgoing {
    fn new(requests: mpsc::Receiver<(Command, Waiter)>, in_flight: Arc<InFlight>) -> Outgoing {
        Outgoing {
            requests,
            taken: VecDeque::new(),
            in_flight,
            next_id: 1,
        }
    }

    async fn next(&mut self) -> Option<tikvpb::BatchCommandsRequest> {
        if self.taken.is_empty() {
            let mut taken = Vec::with_capacity(BATCH_MAX);
            if self.requests.recv_many(&mut taken, BATCH_MAX).await == 0 {
                return None;
            }
            self.taken = taken.into();
        }
        let mut batch = tikvpb::BatchCommandsRequest::default();
        let mut bytes = 0;
        while let Some((command, waiter)) = self.taken.pop_front() {
            // Who gave up meanwhile is not sent for.
            if waiter.is_closed() {
                continue;
            }
            let request = batch_request::Request { cmd: Some(command) };
            bytes += request.encoded_len();
            if bytes > BATCH_BYTES_MAX && !batch.requests.is_empty() {
                let command = request.cmd.expect("put there above");
                self.taken.push_front((command, waiter));
                break;
            }
            self.in_flight.add(self.next_id, waiter);
            batch.requests.push(request);
            batch.request_ids.push(self.next_id);
            self.next_id += 1;
        }
        Some(batch)
    }
}

/// Hands out answers until the stream ends; returns why it did.
async fn receive(mut answers: Streaming<tikvpb::BatchCommandsResponse>, in_flight: &InFlight) -> Status {
    loop {
        match answers.message().await {
            Ok(Some(batch)) => {
                for (id, answer) in batch.request_ids.into_iter().zip(batch.responses) {
                    let Some(waiter) = in_flight.take(id) else { continue };
                    let answer = answer.cmd.ok_or_else(|| Status::internal("an answer without content"));
                    drop(waiter.send(answer));
                }
            }
            Ok(None) => return Status::unavailable("the store ended the stream of batched requests"),
            Err(status) => return status,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn waiter() -> (Waiter, oneshot::Receiver<Result<CommandAnswer, Status>>) {
        oneshot::channel()
    }

    fn command() -> Command {
        Command::Empty(tikvpb::BatchCommandsEmptyRequest::default())
    }

    #[tokio::test]
    async fn what_waits_leaves_together_with_ids_in_order() {
        let in_flight = Arc::new(InFlight(Mutex::new(Some(HashMap::new()))));
        let (sender, requests) = mpsc::channel(8);
        let mut kept = Vec::new();
        for gives_up in [false, true, false] {
            let (waiter, answer) = waiter();
            sender.send((command(), waiter)).await.expect("room");
            if !gives_up {
                kept.push(answer);
            }
        }
        let mut outgoing = Outgoing::new(requests, in_flight);
        let batch = outgoing.next().await.expect("requests wait");
        assert_eq!((batch.request_ids, batch.requests.len()), (vec![1, 2], 2));
        assert_eq!(outgoing.next_id, 3);
        drop(sender);
        assert!(outgoing.next().await.is_none(), "the stream ends with its last sender");
    }

    #[tokio::test]
    async fn a_message_is_bounded_in_bytes() {
        let in_flight = Arc::new(InFlight(Mutex::new(Some(HashMap::new()))));
        let (sender, requests) = mpsc::channel(8);
        let mut kept = Vec::new();
        for mib in [1, 2, 2, 5, 1] {
            let (waiter, answer) = waiter();
            let put = proto::kvrpcpb::RawPutRequest {
                value: vec![7; mib << 20].into(),
                ..Default::default()
            };
            sender.send((Command::RawPut(put), waiter)).await.expect("room");
            kept.push(answer);
        }
        drop(sender);
        let mut outgoing = Outgoing::new(requests, in_flight);
        let mut messages = Vec::new();
        while let Some(batch) = outgoing.next().await {
            messages.push(batch.request_ids);
        }
        assert_eq!(messages, [vec![1, 2], vec![3], vec![4], vec![5]]);
    }

    #[tokio::test]
    async fn a_broken_stream_tells_everybody_then_and_later() {
        let in_flight = InFlight(Mutex::new(Some(HashMap::new())));
        let (early, early_answer) = waiter();
        in_flight.add(1, early);
        in_flight.end(&Status::unavailable("broken"));
        let (late, late_answer) = waiter();
        in_flight.add(2, late);
        let told = early_answer.await.expect("told").expect_err("broken");
        assert_eq!(told.message(), "broken");
        assert!(late_answer.await.is_err(), "the waiter is gone");
    }
}
