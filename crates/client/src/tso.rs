//! Timestamps: one stream to PD, one request for all callers that wait at the time.

use std::sync::Arc;
use std::time::Duration;

use base::Ts;
use proto::pdpb;
use tokio::sync::{mpsc, oneshot};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};

use crate::Error;
use crate::pd::{Link, Shared};

/// Callers that may wait for their turn; further ones wait to be let in.
const WAITING_MAX: usize = 4096;
/// Callers served by one request. Well below the counter's 262,144 per millisecond.
const BATCH_MAX: usize = 1024;
/// A stream that stays silent for this long is dropped and made anew, to another leader if there is one.
const ANSWER_MAX: Duration = Duration::from_secs(2);

type Waiter = oneshot::Sender<Result<Ts, Error>>;

/// Door to the task that holds the stream. The task ends with the last door.
#[derive(Clone)]
pub(crate) struct Tso(mpsc::Sender<Waiter>);

impl Tso {
    pub fn new(pd: Arc<Shared>) -> Tso {
        let (doors, waiters) = mpsc::channel(WAITING_MAX);
        tokio::spawn(serve(pd, waiters));
        Tso(doors)
    }

    /// One try; errors when the stream breaks.
    pub async fn timestamp(&self) -> Result<Ts, Error> {
        let gone = || Error::rpc("placement driver", Status::unavailable("the runtime is shutting down"));
        let (waiter, answer) = oneshot::channel();
        self.0.send(waiter).await.map_err(|_| gone())?;
        answer.await.unwrap_or_else(|_| Err(gone()))
    }
}

/// A stream under way: at most one request on it is unanswered, so an answer belongs to the last request.
struct TsoStream {
    link: Arc<Link>,
    requests: mpsc::Sender<pdpb::TsoRequest>,
    answers: Streaming<pdpb::TsoResponse>,
}

async fn serve(pd: Arc<Shared>, mut waiters: mpsc::Receiver<Waiter>) {
    let mut stream = None;
    let mut batch = Vec::new();
    loop {
        batch.clear();
        if waiters.recv_many(&mut batch, BATCH_MAX).await == 0 {
            return;
        }
        // Who gave up meanwhile needs no timestamp.
        batch.retain(|waiter| !waiter.is_closed());
        if batch.is_empty() {
            continue;
        }
        let link = pd.link();
        match tokio::time::timeout(ANSWER_MAX, ask(&pd, &link, &mut stream, batch.len() as u32)).await {
            Ok(Ok(last)) => {
                let first = last.0 + 1 - batch.len() as u64;
                batch
                    .drain(..)
                    .zip(first..)
                    .for_each(|(waiter, ts)| drop(waiter.send(Ok(Ts(ts)))));
            }
            failed => {
                stream = None;
                let status = match failed {
                    Ok(Err(status)) => status,
                    _ => Status::deadline_exceeded("no timestamp came in time"),
                };
                for waiter in batch.drain(..) {
                    drop(waiter.send(Err(Error::rpc(&link.url, status.clone()))));
                }
                pd.look_for_leader(&link, ANSWER_MAX).await;
            }
        }
    }
}

/// The last of `count` fresh timestamps.
async fn ask(pd: &Shared, link: &Arc<Link>, stream: &mut Option<TsoStream>, count: u32) -> Result<Ts, Status> {
    let stream = match stream {
        Some(open) if Arc::ptr_eq(&open.link, link) => open,
        slot => slot.insert(open(link).await?),
    };
    let request = pdpb::TsoRequest {
        header: Some(pd.header()),
        count,
        ..Default::default()
    };
    let closed = || Status::unavailable("the stream of timestamps ended");
    stream.requests.send(request).await.map_err(|_| closed())?;
    let answer = stream.answers.message().await?.ok_or_else(closed)?;
    if let Some(error) = answer.header.and_then(|header| header.error) {
        return Err(Status::unavailable(error.message));
    }
    last_timestamp(count, answer.count, answer.timestamp)
}

async fn open(link: &Arc<Link>) -> Result<TsoStream, Status> {
    let (requests, outgoing) = mpsc::channel(1);
    let answers = link.client.clone().tso(ReceiverStream::new(outgoing)).await?.into_inner();
    Ok(TsoStream {
        link: link.clone(),
        requests,
        answers,
    })
}

/// Checks an answer to a request for `wanted` timestamps; it names the last of them.
fn last_timestamp(wanted: u32, given: u32, timestamp: Option<pdpb::Timestamp>) -> Result<Ts, Status> {
    let bad = |what: String| Status::data_loss(format!("placement driver: {what}"));
    let timestamp = timestamp.ok_or_else(|| bad("an answer without timestamp".into()))?;
    if given != wanted {
        return Err(bad(format!("{given} timestamps where {wanted} were wanted")));
    }
    let (physical, logical) = (timestamp.physical as u64, timestamp.logical as u64);
    let fits = physical >> (64 - Ts::LOGICAL_BITS) == 0 && logical >> Ts::LOGICAL_BITS == 0 && logical + 1 >= wanted.into();
    match fits {
        true => Ok(Ts::compose(physical, logical)),
        false => Err(bad(format!("{wanted} timestamps up to {physical} ms, counter {logical}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn timestamp(physical: i64, logical: i64) -> Option<pdpb::Timestamp> {
        Some(pdpb::Timestamp {
            physical,
            logical,
            suffix_bits: 0,
        })
    }

    #[test]
    fn the_answer_names_the_last_of_the_batch() {
        let last = last_timestamp(64, 64, timestamp(1_700_000_000_000, 63)).expect("well formed");
        assert_eq!(last, Ts::compose(1_700_000_000_000, 63));
        assert_eq!(Ts(last.0 + 1 - 64), Ts::compose(1_700_000_000_000, 0));
    }

    #[test]
    fn answers_that_cannot_be_are_refused() {
        let cases = [
            (64, 63, timestamp(1, 63)),
            (1, 1, None),
            (64, 64, timestamp(1, 62)),
            (1, 1, timestamp(-1, 0)),
            (1, 1, timestamp(1, 1 << 18)),
            (1, 1, timestamp(1, -1)),
        ];
        for (wanted, given, timestamp) in cases {
            assert!(
                last_timestamp(wanted, given, timestamp).is_err(),
                "{wanted} {given} {timestamp:?}"
            );
        }
    }
}
