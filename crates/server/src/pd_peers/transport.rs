//! Links to other members: a stream to each, made when there is something to send and made again when it breaks.

use std::collections::BTreeMap;
use std::time::Duration;

use parking_lot::Mutex;
use pd::{MemberId, Transport};
use proto::ferrite_pd::pd_peers_client::PdPeersClient;
use proto::ferrite_pd::{GroupBatch, GroupMessage};
use tls::Dialer;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;

/// Batches that wait for one member; when full, further ones are dropped, which raft repairs.
const WAITING_MAX: usize = 256;
/// Wait before a member that could not be reached is tried again. Far below an election timeout.
const PAUSE: Duration = Duration::from_millis(100);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
const KEEPALIVE: Duration = Duration::from_secs(2);

/// See the module.
pub struct Links {
    runtime: tokio::runtime::Handle,
    group: u64,
    /// Where this member is dialled.
    own_url: String,
    dialer: Dialer,
    /// By URL: a member that moved is a new link.
    links: Mutex<BTreeMap<String, mpsc::Sender<Vec<GroupMessage>>>>,
}

impl Links {
    /// Links of a member of `group` that is dialled at `own_url`. Call it on the runtime.
    pub fn new(group: u64, own_url: String, dialer: Dialer) -> Links {
        Links {
            runtime: tokio::runtime::Handle::current(),
            group,
            own_url,
            dialer,
            links: Mutex::default(),
        }
    }
}

impl Transport for Links {
    fn send(&self, to: MemberId, url: &str, messages: Vec<GroupMessage>) {
        let mut links = self.links.lock();
        let link = links.entry(url.to_owned()).or_insert_with(|| {
            let (sender, receiver) = mpsc::channel(WAITING_MAX);
            let (url, own_url) = (url.to_owned(), self.own_url.clone());
            self.runtime
                .spawn(run(url, self.group, own_url, self.dialer.clone(), receiver));
            sender
        });
        if link.try_send(messages).is_err() {
            tracing::debug!(
                member = to.0,
                url,
                "messages to a member of the placement driver were dropped"
            );
        }
    }
}

/// Connects to a member; `url` has a scheme.
pub(crate) async fn connect(url: &str, dialer: &Dialer) -> Result<PdPeersClient<Channel>, tonic::transport::Error> {
    let endpoint = dialer
        .endpoint(url)?
        .tcp_nodelay(true)
        .connect_timeout(CONNECT_TIMEOUT)
        .http2_keep_alive_interval(KEEPALIVE)
        .keep_alive_timeout(KEEPALIVE)
        .keep_alive_while_idle(true);
    Ok(PdPeersClient::new(dialer.connect(endpoint).await?))
}

/// Sends until the links are dropped.
async fn run(url: String, group: u64, own_url: String, dialer: Dialer, mut messages: mpsc::Receiver<Vec<GroupMessage>>) {
    while let Some(first) = messages.recv().await {
        let reason = match connect(&url, &dialer).await {
            Ok(client) => stream(client, group, &own_url, first, &mut messages).await,
            Err(error) => base::log::chain(&error).to_string(),
        };
        tracing::debug!(url, reason, "link to a member of the placement driver broke");
        tokio::time::sleep(PAUSE).await;
        // What waited meanwhile is old.
        while messages.try_recv().is_ok() {}
    }
}

async fn stream(
    mut client: PdPeersClient<Channel>,
    group: u64,
    own_url: &str,
    first: Vec<GroupMessage>,
    messages: &mut mpsc::Receiver<Vec<GroupMessage>>,
) -> String {
    let batch = |messages| GroupBatch {
        group,
        messages,
        from_url: own_url.to_owned(),
    };
    let (sender, receiver) = mpsc::channel(1);
    let answer = client.raft(ReceiverStream::new(receiver));
    let send = async {
        let mut next = Some(first);
        while let Some(messages_now) = next {
            if sender.send(batch(messages_now)).await.is_err() {
                return "the stream closed".to_owned();
            }
            next = messages.recv().await;
        }
        "this member stops".to_owned()
    };
    tokio::select! {
        reason = send => reason,
        answer = answer => answer.map_or_else(|status| status.message().to_owned(), |_| "the stream ended".to_owned()),
    }
}
