//! A connection for one question at a time: handshakes, probes, the control plane.

use std::future::poll_fn;
use std::io;
use std::task::Poll;

use tokio::io::ReadBuf;

use crate::net::{Out, Stream};
use crate::resp::reply::{Found, ReplyScanner, Value};
use crate::resp::write;

/// Largest answer to a question of the control plane.
const ANSWER_MAX: usize = 16 * 1024 * 1024;

/// A connection without requests in flight between questions.
pub struct Link {
    stream: Stream,
    read: Vec<u8>,
}

impl Link {
    /// Over a fresh connection.
    pub fn new(stream: Stream) -> Link {
        Link {
            stream,
            read: Vec::new(),
        }
    }

    /// The connection; `None` if the server said more than it was asked.
    pub fn into_stream(self) -> Option<Stream> {
        self.read.is_empty().then_some(self.stream)
    }

    /// Sends a request and awaits its reply, a RESP value.
    pub async fn ask(&mut self, request: &[u8]) -> io::Result<Vec<u8>> {
        self.send(request).await?;
        let mut scanner = ReplyScanner::default();
        loop {
            let malformed = |error| io::Error::new(io::ErrorKind::InvalidData, error);
            if let Found::Reply(len) = scanner.scan(&self.read, ANSWER_MAX).map_err(malformed)? {
                let rest = self.read.split_off(len);
                return Ok(std::mem::replace(&mut self.read, rest));
            }
            self.fill().await?;
        }
    }

    /// Asks and takes the reply apart; an error of the server is an error.
    pub async fn value(&mut self, args: &[&[u8]]) -> io::Result<Value> {
        let mut request = Vec::new();
        write::request(&mut request, args);
        let reply = self.ask(&request).await?;
        match Value::read(&reply) {
            Some(Value::Error(text)) => Err(io::Error::other(text)),
            Some(value) => Ok(value),
            None => Err(io::ErrorKind::InvalidData.into()),
        }
    }

    /// Sends a line and awaits one (memcached).
    pub async fn line(&mut self, request: &[u8]) -> io::Result<Vec<u8>> {
        self.send(request).await?;
        loop {
            if let Some(end) = memchr::memchr(b'\n', &self.read) {
                let rest = self.read.split_off(end + 1);
                return Ok(std::mem::replace(&mut self.read, rest));
            }
            if self.read.len() > 4096 {
                return Err(io::ErrorKind::InvalidData.into());
            }
            self.fill().await?;
        }
    }

    async fn send(&mut self, request: &[u8]) -> io::Result<()> {
        let mut out = Out::default();
        out.push(request);
        poll_fn(|cx| {
            loop {
                match out.poll_flush(cx, &mut self.stream) {
                    Poll::Ready(Ok(_)) if out.is_empty() => return Poll::Ready(Ok(())),
                    Poll::Ready(Ok(_)) => {}
                    Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                    Poll::Pending => return Poll::Pending,
                }
            }
        })
        .await
    }

    async fn fill(&mut self) -> io::Result<()> {
        let mut room = [0u8; 4096];
        let mut into = ReadBuf::new(&mut room);
        poll_fn(|cx| self.stream.poll_read(cx, &mut into)).await?;
        if into.filled().is_empty() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.read.extend_from_slice(into.filled());
        Ok(())
    }
}
