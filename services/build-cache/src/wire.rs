//! The socket of a connection without TLS. Over HTTP/1, parts of blobs go from their files to it by sendfile(2), unseen by this process.
//!
//! hyper writes what bodies give it as it got it, by vectored writes. A body that lends ([`Loans::lend`]) gives it a stand-in: as many
//! bytes, from a place that nothing else is written from. [`Wire`] knows that place, and sends what was lent instead. It takes nothing
//! on trust: a stand-in without a loan, a loan without its stand-in, or one of another length ends the connection, so that whatever hyper
//! may come to do with its buffers, a client gets the right bytes or too few.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use blob_store::{LOAN_MAX, Loan};
use bytes::Bytes;
use parking_lot::Mutex;
use rustix::net::SendFlags;
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::TcpStream;

use crate::metrics;

/// What stands in for lent bytes. Never sent.
static STAND_IN: [u8; LOAN_MAX] = [0; LOAN_MAX];

/// Whether `bytes` stand for others.
fn is_stand_in(bytes: &[u8]) -> bool {
    STAND_IN.as_ptr_range().contains(&bytes.as_ptr())
}

/// What bodies lent to one connection and is not sent yet, in order. At most what one answer gives hyper before it is flushed.
#[derive(Clone, Default)]
pub struct Loans(Arc<Mutex<VecDeque<Lent>>>);

struct Lent {
    loan: Loan,
    /// The answer ends with it.
    is_last: bool,
}

impl Loans {
    /// The bytes to give hyper for `loan`, which ends the answer or not.
    pub fn lend(&self, loan: Loan, is_last: bool) -> Bytes {
        let stand_in = Bytes::from_static(&STAND_IN[..loan.left()]);
        self.0.lock().push_back(Lent { loan, is_last });
        stand_in
    }
}

/// A socket that [`Loans`] are paid to.
pub struct Wire {
    socket: TcpStream,
    loans: Loans,
    /// The system holds back what fills no segment: more of the answer comes. Each segment wakes its reader, so they had better be few.
    is_corked: bool,
}

impl Wire {
    pub fn new(socket: TcpStream) -> Wire {
        Wire {
            socket,
            loans: Loans::default(),
            is_corked: false,
        }
    }

    pub fn loans(&self) -> Loans {
        self.loans.clone()
    }

    /// Sends the head of what is to be written.
    fn send(&mut self, cx: &mut Context<'_>, next: &Next<'_>) -> Poll<io::Result<usize>> {
        if let Next::Lent { is_last: false } = next {
            self.cork(true)?;
        }
        loop {
            ready!(self.socket.poll_write_ready(cx))?;
            let sent = self.socket.try_io(Interest::WRITABLE, || match next {
                // More follows: the headers travel with the first bytes of the body.
                Next::Ahead(bytes) => Ok(rustix::net::send(&self.socket, bytes, SendFlags::MORE | SendFlags::NOSIGNAL)?),
                Next::Lent { .. } => self.pay(),
            });
            match sent {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
                Err(error) => return Poll::Ready(Err(error)),
                Ok(sent) => {
                    let is_end = matches!(next, Next::Lent { is_last: true }) && self.loans.0.lock().is_empty();
                    if is_end {
                        self.cork(false)?;
                    }
                    return Poll::Ready(Ok(sent));
                }
            }
        }
    }

    fn cork(&mut self, wanted: bool) -> io::Result<()> {
        if self.is_corked != wanted {
            rustix::net::sockopt::set_tcp_cork(&self.socket, wanted)?;
            self.is_corked = wanted;
        }
        Ok(())
    }

    fn pay(&self) -> io::Result<usize> {
        let mut loans = self.loans.0.lock();
        let Lent { loan, .. } = loans.front_mut().ok_or_else(|| broken("nothing was lent"))?;
        let sent = loan.send(&self.socket, loan.left())?;
        if loan.left() == 0 {
            loans.pop_front();
        }
        metrics::LENT_BYTES.inc_by(sent as u64);
        Ok(sent)
    }

    /// What comes first in `slices`; `None`: nothing is lent, and nothing stands for it.
    fn next<'a>(&self, slices: &'a [IoSlice<'a>]) -> io::Result<Option<Next<'a>>> {
        let mut slices = slices.iter().map(|slice| &**slice).filter(|slice| !slice.is_empty());
        let lent = self.loans.0.lock().front().map(|lent| (lent.loan.left(), lent.is_last));
        let first = slices.next().unwrap_or_default();
        let stand_in = match is_stand_in(first) {
            true => Some(first),
            false => slices.find(|slice| is_stand_in(slice)),
        };
        match (lent, stand_in) {
            (None, None) => Ok(None),
            (Some((left, is_last)), Some(stand_in)) if stand_in.len() == left => Ok(Some(match is_stand_in(first) {
                true => Next::Lent { is_last },
                false => Next::Ahead(first),
            })),
            _ => Err(broken("what is lent and what stands for it differ")),
        }
    }
}

enum Next<'a> {
    /// Bytes before lent ones.
    Ahead(&'a [u8]),
    Lent {
        is_last: bool,
    },
}

fn broken(what: &str) -> io::Error {
    tracing::error!(what, "an answer is cut off");
    io::Error::other(what)
}

impl AsyncRead for Wire {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_read(cx, buf)
    }
}

impl AsyncWrite for Wire {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[IoSlice::new(bytes)])
    }

    fn poll_write_vectored(mut self: Pin<&mut Self>, cx: &mut Context<'_>, slices: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        match self.next(slices)? {
            Some(next) => self.send(cx, &next),
            None => {
                self.cork(false)?;
                Pin::new(&mut self.socket).poll_write_vectored(cx, slices)
            }
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use blob_store::{Config, Content, Key, SpaceId, Store};
    use rand::rngs::SmallRng;
    use rand::{RngCore as _, SeedableRng as _};
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    /// Noise, so that it lies as it came.
    fn noise(len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        SmallRng::seed_from_u64(len as u64).fill_bytes(&mut bytes);
        bytes
    }

    fn lend(store: &Store, bytes: &[u8], start: u64) -> Loan {
        let key = Key::sha256(bytes);
        store.put(key, Content::Sha256, SpaceId(0), bytes).expect("stores");
        let blob = Arc::new(store.get(&key).expect("reads").expect("is there"));
        blob.range(start, u64::MAX).lend().expect("reads").expect("is in memory")
    }

    async fn pair() -> (Wire, TcpStream) {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("listens");
        let client = TcpStream::connect(listener.local_addr().expect("has one"))
            .await
            .expect("connects");
        (Wire::new(listener.accept().await.expect("accepts").0), client)
    }

    #[tokio::test]
    async fn lent_bytes_go_where_their_stand_ins_are() {
        let dir = tempfile::tempdir().expect("a folder");
        let store = Store::open(Config::new(dir.path().to_owned(), 64 << 20)).expect("opens");
        let (mut wire, mut client) = pair().await;
        let (first, second) = (noise(LOAN_MAX), noise(300_000));
        let loans = [(lend(&store, &first, 0), false), (lend(&store, &second, 77), true)];
        let stand_ins = loans.map(|(loan, is_last)| wire.loans().lend(loan, is_last));
        let read = tokio::spawn(async move {
            let mut got = Vec::new();
            client.read_to_end(&mut got).await.map(|_| got)
        });
        // As hyper does: what is left, from the front, until nothing is.
        let mut left = vec![
            Bytes::from_static(b"head"),
            stand_ins[0].clone(),
            Bytes::from_static(b"between"),
            stand_ins[1].clone(),
        ];
        while !left.is_empty() {
            let slices: Vec<IoSlice> = left.iter().map(|bytes| IoSlice::new(bytes)).collect();
            let mut sent = wire.write_vectored(&slices).await.expect("sends");
            while let Some(first) = left.first_mut()
                && sent >= first.len()
            {
                sent -= first.len();
                left.remove(0);
            }
            if sent > 0 {
                bytes::Buf::advance(&mut left[0], sent);
            }
        }
        assert!(!wire.is_corked, "nothing is held back");
        drop(wire);
        let got = read.await.expect("ends").expect("reads");
        assert!(got == [b"head", &first[..], b"between", &second[77..]].concat());
    }

    #[tokio::test]
    async fn a_file_that_becomes_short_meanwhile_is_an_error_and_gone() {
        let dir = tempfile::tempdir().expect("a folder");
        let store = Store::open(Config::new(dir.path().to_owned(), 64 << 20)).expect("opens");
        let (mut wire, client) = pair().await;
        let bytes = noise(200_000);
        let stand_in = wire.loans().lend(lend(&store, &bytes, 0), true);
        let folder = dir.path().join("files").join(&Key::sha256(&bytes).to_string()[..2]);
        let file = std::fs::read_dir(folder)
            .expect("reads")
            .next()
            .expect("is there")
            .expect("reads");
        std::fs::File::options()
            .write(true)
            .open(file.path())
            .expect("opens")
            .set_len(0)
            .expect("cuts");
        assert!(wire.write(&stand_in).await.is_err());
        assert!(store.get(&Key::sha256(&bytes)).expect("reads").is_none());
        drop(client);
    }

    #[tokio::test]
    async fn nothing_is_sent_where_loans_and_stand_ins_differ() {
        let dir = tempfile::tempdir().expect("a folder");
        let store = Store::open(Config::new(dir.path().to_owned(), 64 << 20)).expect("opens");
        let bytes = noise(100_000);
        let copied = vec![0; bytes.len()];
        for case in ["copied", "short", "nothing lent"] {
            let (mut wire, mut client) = pair().await;
            let stand_in = match case {
                "nothing lent" => Bytes::from_static(&STAND_IN[..100]),
                _ => wire.loans().lend(lend(&store, &bytes, 0), true),
            };
            let slice = match case {
                "copied" => &copied,
                "short" => &stand_in[1..],
                _ => &stand_in,
            };
            let refused = wire.write_vectored(&[IoSlice::new(b"head"), IoSlice::new(slice)]).await;
            assert!(refused.is_err(), "{case}");
            drop(wire);
            let mut got = Vec::new();
            client.read_to_end(&mut got).await.expect("ends");
            assert!(got.is_empty(), "{case}");
        }
    }
}
