//! Bytes in and out: streams with and without TLS, buffers that hold nothing while a connection is quiet.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf as _, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpSocket, TcpStream};

/// A connection.
pub enum Stream {
    Tcp(TcpStream),
    TlsServer(Box<tokio_rustls::server::TlsStream<TcpStream>>),
    TlsClient(Box<tokio_rustls::client::TlsStream<TcpStream>>),
}

impl Stream {
    /// Reads once.
    pub fn poll_read(&mut self, cx: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self {
            Stream::Tcp(stream) => Pin::new(stream).poll_read(cx, into),
            Stream::TlsServer(stream) => Pin::new(stream.as_mut()).poll_read(cx, into),
            Stream::TlsClient(stream) => Pin::new(stream.as_mut()).poll_read(cx, into),
        }
    }

    fn poll_write(&mut self, cx: &mut Context<'_>, parts: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        match self {
            Stream::Tcp(stream) => match parts {
                // The usual case; to send it costs the system less than a list of one.
                [only] => Pin::new(stream).poll_write(cx, only),
                _ => Pin::new(stream).poll_write_vectored(cx, parts),
            },
            Stream::TlsServer(stream) => Pin::new(stream.as_mut()).poll_write_vectored(cx, parts),
            Stream::TlsClient(stream) => Pin::new(stream.as_mut()).poll_write_vectored(cx, parts),
        }
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            // A socket holds nothing back.
            Stream::Tcp(_) => Poll::Ready(Ok(())),
            Stream::TlsServer(stream) => Pin::new(stream.as_mut()).poll_flush(cx),
            Stream::TlsClient(stream) => Pin::new(stream.as_mut()).poll_flush(cx),
        }
    }
}

/// Buffers above this go when they are empty: thousands of quiet connections hold nothing.
const KEPT_MAX: usize = 4 * 1024;
/// Most that is asked for because the last output was large.
const USUAL_MAX: usize = 64 * 1024;
/// Chunks of at least this go out from where they lie; smaller ones are cheaper to copy than to name.
pub const SHARED_MIN: usize = 16 * 1024;
/// Nothing above this is held back for what may come after it.
const EARLY_MAX: usize = 16 * 1024;
/// Slices of one write.
const SLICES_MAX: usize = 64;

/// What waits to be written: small pieces side by side, large ones as they are.
#[derive(Default)]
pub struct Out {
    chunks: VecDeque<Bytes>,
    /// Comes after all chunks.
    tail: Vec<u8>,
    /// Of the tail, what was written.
    sent: usize,
    len: usize,
    /// Room that the tail needed last, so that it need not grow step by step.
    usual: usize,
}

impl Out {
    /// Bytes that wait.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Appends a copy.
    pub fn push(&mut self, bytes: &[u8]) {
        self.with(|tail| tail.extend_from_slice(bytes));
    }

    /// Appends what `write` writes.
    pub fn with(&mut self, write: impl FnOnce(&mut Vec<u8>)) {
        if self.tail.capacity() == 0 {
            self.tail.reserve(self.usual);
        }
        let before = self.tail.len();
        write(&mut self.tail);
        self.len += self.tail.len() - before;
    }

    /// Appends `bytes` as they are, if they are large.
    pub fn push_shared(&mut self, bytes: Bytes) {
        if bytes.len() < SHARED_MIN {
            return self.push(&bytes);
        }
        self.seal();
        self.len += bytes.len();
        self.chunks.push_back(bytes);
    }

    fn seal(&mut self) {
        if self.tail.len() > self.sent {
            let mut tail = Bytes::from(std::mem::take(&mut self.tail));
            tail.advance(self.sent);
            self.chunks.push_back(tail);
        } else {
            self.tail.clear();
        }
        self.sent = 0;
    }

    /// Drops everything.
    pub fn clear(&mut self) {
        *self = Out::default();
    }

    /// Whether so little waits that it may wait for more.
    pub fn is_early(&self) -> bool {
        (1..EARLY_MAX).contains(&self.len)
    }

    /// Writes until nothing waits or the stream takes no more. Returns the bytes written.
    pub fn poll_flush(&mut self, cx: &mut Context<'_>, stream: &mut Stream) -> Poll<io::Result<usize>> {
        let mut total = 0;
        while self.len > 0 {
            let mut slices = [IoSlice::new(&[]); SLICES_MAX];
            let mut count = 0;
            for (slice, chunk) in slices.iter_mut().zip(&self.chunks) {
                *slice = IoSlice::new(chunk);
                count += 1;
            }
            if let Some(slice) = slices.get_mut(count) {
                *slice = IoSlice::new(self.tail.get(self.sent..).unwrap_or_default());
                count += 1;
            }
            match stream.poll_write(cx, slices.get(..count).unwrap_or_default()) {
                Poll::Ready(Ok(0)) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Poll::Ready(Ok(written)) => {
                    self.advance(written);
                    total += written;
                }
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                // What was written before must not be forgotten; the stream wakes us.
                Poll::Pending if total > 0 => return Poll::Ready(Ok(total)),
                Poll::Pending => return Poll::Pending,
            }
        }
        ready!(stream.poll_flush(cx))?;
        Poll::Ready(Ok(total))
    }

    fn advance(&mut self, mut written: usize) {
        self.len -= written;
        while let Some(chunk) = self.chunks.front_mut() {
            if written < chunk.len() {
                chunk.advance(written);
                return;
            }
            written -= chunk.len();
            self.chunks.pop_front();
        }
        self.sent += written;
        if self.sent == self.tail.len() {
            self.sent = 0;
            if self.tail.capacity() > KEPT_MAX {
                self.usual = self.tail.len().min(USUAL_MAX);
                self.tail = Vec::new();
            } else {
                self.tail.clear();
            }
        }
    }
}

/// Room for one read, shared by all connections of a thread.
pub const SCRATCH: usize = 64 * 1024;

/// What was read and not yet understood: empty between requests, so a quiet connection holds no buffer.
#[derive(Default)]
pub struct In {
    own: BytesMut,
    /// Nothing can be understood before so many bytes are there.
    wanted: usize,
}

/// What a reader made of the front of its bytes.
pub enum Step {
    /// Understood, so many bytes.
    Took(usize),
    /// Not whole; asks again with so many bytes.
    More(usize),
    /// Could go on, but must not now.
    Pause,
}

/// How a round of reading ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Round {
    /// Everything that is there was understood; read on.
    Again,
    /// The reader asked for a pause; call again when it is over.
    Paused,
    /// The other side is done.
    End,
}

/// Room for the next read of a frame that is not whole: as much as is there already, within these bounds. Who announces a large frame must
/// send it first.
const ROOM: (usize, usize) = (16 * 1024, 1024 * 1024);

impl In {
    /// Whether bytes are held.
    pub fn is_empty(&self) -> bool {
        self.own.is_empty()
    }

    /// Shows what is held from before to `step`, then, if that pauses nowhere, reads once and shows that. `step` gets the bytes and, where it
    /// may take them over without a copy, the buffer that they lie in.
    pub fn poll_round<E: From<io::Error>>(
        &mut self,
        cx: &mut Context<'_>,
        stream: &mut Stream,
        scratch: &mut [u8],
        mut step: impl FnMut(&[u8]) -> Result<Step, E>,
    ) -> Poll<Result<(Round, usize), E>> {
        if !self.own.is_empty() && self.own.len() >= self.wanted && self.drain(&mut step)? {
            return Poll::Ready(Ok((Round::Paused, 0)));
        }
        if !self.own.is_empty() {
            return self.poll_more(cx, stream, step);
        }
        let mut into = ReadBuf::new(scratch);
        ready!(stream.poll_read(cx, &mut into))?;
        let bytes = into.filled();
        let count = bytes.len();
        if count == 0 {
            return Poll::Ready(Ok((Round::End, 0)));
        }
        let mut rest = bytes;
        while !rest.is_empty() {
            match step(rest)? {
                Step::Took(took) => rest = rest.get(took..).unwrap_or_default(),
                Step::More(wanted) => {
                    self.keep(rest, wanted);
                    break;
                }
                Step::Pause => {
                    self.keep(rest, 0);
                    return Poll::Ready(Ok((Round::Paused, count)));
                }
            }
        }
        Poll::Ready(Ok((Round::Again, count)))
    }

    fn keep(&mut self, rest: &[u8], wanted: usize) {
        self.wanted = wanted;
        self.own.extend_from_slice(rest);
    }

    fn poll_more<E: From<io::Error>>(
        &mut self,
        cx: &mut Context<'_>,
        stream: &mut Stream,
        mut step: impl FnMut(&[u8]) -> Result<Step, E>,
    ) -> Poll<Result<(Round, usize), E>> {
        let count = ready!(self.poll_fill(cx, stream))?;
        if count == 0 {
            return Poll::Ready(Ok((Round::End, 0)));
        }
        let paused = self.own.len() >= self.wanted && self.drain(&mut step)?;
        Poll::Ready(Ok((if paused { Round::Paused } else { Round::Again }, count)))
    }

    /// Reads on, up to so many bytes, although nothing may be understood now; ready when the other side is done.
    pub fn poll_end(&mut self, cx: &mut Context<'_>, stream: &mut Stream, bytes_max: usize) -> Poll<io::Result<()>> {
        while self.own.len() < bytes_max {
            if ready!(self.poll_fill(cx, stream))? == 0 {
                return Poll::Ready(Ok(()));
            }
        }
        Poll::Pending
    }

    /// Reads once, behind what is held.
    fn poll_fill(&mut self, cx: &mut Context<'_>, stream: &mut Stream) -> Poll<io::Result<usize>> {
        let before = self.own.len();
        let missing = self.wanted.saturating_sub(before).max(4096);
        self.own.resize(before + missing.min(before.clamp(ROOM.0, ROOM.1)), 0);
        let mut into = ReadBuf::new(self.own.get_mut(before..).unwrap_or_default());
        let polled = stream.poll_read(cx, &mut into);
        let count = into.filled().len();
        self.own.truncate(before + count);
        polled.map_ok(|()| count)
    }

    /// Shows what is held until it is understood; true if `step` paused.
    fn drain<E>(&mut self, step: &mut impl FnMut(&[u8]) -> Result<Step, E>) -> Result<bool, E> {
        let mut at = 0;
        let mut paused = false;
        while at < self.own.len() {
            match step(self.own.get(at..).unwrap_or_default())? {
                Step::Took(took) => at += took,
                Step::More(wanted) => {
                    self.wanted = wanted;
                    break;
                }
                Step::Pause => {
                    self.wanted = 0;
                    paused = true;
                    break;
                }
            }
        }
        self.own.advance(at);
        if self.own.is_empty() {
            self.own = BytesMut::new();
            self.wanted = 0;
        }
        Ok(paused)
    }
}

/// Holds a write back, once, until the event loop has looked for what came in meanwhile: one write then carries more. It costs a look that
/// does not wait, and no time that anybody would notice.
#[derive(Default)]
pub struct Patience {
    is_spent: bool,
}

impl Patience {
    /// True if the task is to wait, and will be woken when the loop has looked; false the second time in a row, and when `wants` is false.
    pub fn waits(&mut self, cx: &mut Context<'_>, wants: bool) -> bool {
        self.is_spent = wants && !self.is_spent;
        if self.is_spent {
            // Its first poll leaves the waker with the loop, and that is all it does.
            let looked = std::pin::pin!(tokio::task::yield_now()).poll(cx);
            debug_assert!(looked.is_pending());
        }
        self.is_spent
    }
}

/// A listener that shares its address with those of other threads; the system spreads connections over them.
pub fn listen(addr: SocketAddr) -> io::Result<TcpListener> {
    bind(addr)?.listen(4096)
}

/// Takes an address without listening: the threads' listeners then find it free, and port 0 becomes a port.
pub fn bind(addr: SocketAddr) -> io::Result<TcpSocket> {
    let socket = match addr {
        SocketAddr::V4(_) => TcpSocket::new_v4()?,
        SocketAddr::V6(_) => TcpSocket::new_v6()?,
    };
    socket.set_reuseaddr(true)?;
    socket.set_reuseport(true)?;
    socket.bind(addr)?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn large_pieces_stay_in_order_between_small_ones() {
        let mut out = Out::default();
        out.push(b"head");
        out.advance(2);
        out.push_shared(Bytes::from(vec![1; SHARED_MIN]));
        out.push(b"tail");
        assert_eq!((out.len(), out.chunks.len()), (2 + SHARED_MIN + 4, 2));
        assert_eq!(&*out.chunks[0], b"ad");
        out.advance(2 + SHARED_MIN + 1);
        assert_eq!((out.len(), out.sent), (3, 1));
        out.advance(3);
        assert!(out.is_empty() && out.tail.is_empty());
    }
}
