//! One connection: in the clear, or by TLS once its handshake is done. The handshake runs where the connection is served, so that a slow
//! one holds nothing but its own place.

use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use base::MonoTime;
use futures::Future;
use tls::Acceptor;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::Sleep;
use tokio_rustls::FallibleAccept;
use tokio_rustls::server::TlsStream;
use tonic::transport::server::Connected;
use tracing::{debug, warn};

use super::metrics::HANDSHAKES;

/// For a handshake; a healthy one takes two round trips.
const HANDSHAKE_MAX: Duration = Duration::from_secs(10);
/// Whoever was refused may send on for so long, so that the reason reaches it before the connection breaks.
const LINGER: Duration = Duration::from_secs(1);
/// Between two warnings about refused connections; the others are told at debug.
const WARN_EVERY: Duration = Duration::from_secs(10);

/// What a listener hands to the server.
pub struct Connection {
    io: Io,
    /// `None` once the connection is over.
    place: Option<OwnedSemaphorePermit>,
    peer: <TcpStream as Connected>::ConnectInfo,
}

enum Io {
    Plain(TcpStream),
    Handshake(Box<Handshake>),
    Secure(Box<TlsStream<TcpStream>>),
    Refused,
}

struct Handshake {
    accept: FallibleAccept<TcpStream>,
    late: Pin<Box<Sleep>>,
}

impl Connection {
    pub fn new(io: TcpStream, place: OwnedSemaphorePermit, tls: Option<&Acceptor>) -> Connection {
        let peer = io.connect_info();
        let io = match tls {
            None => Io::Plain(io),
            Some(tls) => Io::Handshake(Box::new(Handshake {
                accept: tls.accept(io).into_fallible(),
                late: Box::pin(tokio::time::sleep(HANDSHAKE_MAX)),
            })),
        };
        Connection {
            io,
            place: Some(place),
            peer,
        }
    }

    /// The stream, once there is one to read from and write to.
    fn poll_stream(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Stream<'_>>> {
        if let Io::Handshake(handshake) = &mut self.io {
            let outcome = match Pin::new(&mut handshake.accept).poll(cx) {
                Poll::Ready(outcome) => outcome.map_err(|(error, io)| (error, Some(io))),
                Poll::Pending => {
                    ready!(handshake.late.as_mut().poll(cx));
                    Err((io::ErrorKind::TimedOut.into(), None))
                }
            };
            self.settle(outcome)?;
        }
        Poll::Ready(match &mut self.io {
            Io::Plain(io) => Ok(Stream::Plain(Pin::new(io))),
            Io::Secure(io) => Ok(Stream::Secure(Pin::new(io.as_mut()))),
            Io::Handshake(_) | Io::Refused => Err(io::ErrorKind::NotConnected.into()),
        })
    }

    fn settle(&mut self, outcome: Result<TlsStream<TcpStream>, (io::Error, Option<TcpStream>)>) -> io::Result<()> {
        match outcome {
            Ok(secure) => {
                HANDSHAKES.with_label_values(&["ok"]).inc();
                self.io = Io::Secure(Box::new(secure));
                Ok(())
            }
            Err((error, io)) => {
                HANDSHAKES.with_label_values(&["refused"]).inc();
                self.io = Io::Refused;
                self.tell(&error);
                if let (Some(io), place) = (io, self.place.take()) {
                    tokio::spawn(linger(io, place));
                }
                Err(error)
            }
        }
    }

    fn tell(&self, error: &io::Error) {
        static WARNED: AtomicU64 = AtomicU64::new(0);
        let peer = self.peer.remote_addr().map(|addr| addr.to_string()).unwrap_or_default();
        // Somebody who just went away is no news.
        let is_news = matches!(error.kind(), io::ErrorKind::InvalidData | io::ErrorKind::TimedOut);
        let (now, last) = (MonoTime::now(), MonoTime(WARNED.load(Ordering::Relaxed)));
        if !is_news || (last.0 > 0 && now.since(last) < WARN_EVERY) {
            return debug!(peer, %error, "connection refused: no TLS was agreed on");
        }
        WARNED.store(now.0, Ordering::Relaxed);
        warn!(peer, %error, "connection refused: no TLS was agreed on");
    }
}

/// Lets the other side read why it was refused: a connection that is closed while it still sends loses what it was told.
async fn linger(mut io: TcpStream, place: Option<OwnedSemaphorePermit>) {
    let drain = async {
        io.shutdown().await?;
        let mut left = [0; 1024];
        while io.read(&mut left).await? > 0 {}
        io::Result::Ok(())
    };
    let _best_effort = tokio::time::timeout(LINGER, drain).await;
    drop(place);
}

enum Stream<'a> {
    Plain(Pin<&'a mut TcpStream>),
    Secure(Pin<&'a mut TlsStream<TcpStream>>),
}

impl Connected for Connection {
    type ConnectInfo = <TcpStream as Connected>::ConnectInfo;

    fn connect_info(&self) -> Self::ConnectInfo {
        self.peer.clone()
    }
}

impl AsyncRead for Connection {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match ready!(self.poll_stream(cx))? {
            Stream::Plain(io) => io.poll_read(cx, buf),
            Stream::Secure(io) => io.poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match ready!(self.poll_stream(cx))? {
            Stream::Plain(io) => io.poll_write(cx, buf),
            Stream::Secure(io) => io.poll_write(cx, buf),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match ready!(self.poll_stream(cx))? {
            Stream::Plain(io) => io.poll_flush(cx),
            Stream::Secure(io) => io.poll_flush(cx),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.io {
            Io::Plain(io) => Pin::new(io).poll_shutdown(cx),
            Io::Secure(io) => Pin::new(io.as_mut()).poll_shutdown(cx),
            // Nothing was said that could be finished.
            Io::Handshake(_) | Io::Refused => Poll::Ready(Ok(())),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match &self.io {
            Io::Plain(io) => io.is_write_vectored(),
            // Gathered, since a record is encrypted as one.
            _ => true,
        }
    }

    fn poll_write_vectored(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bufs: &[io::IoSlice<'_>]) -> Poll<io::Result<usize>> {
        match ready!(self.poll_stream(cx))? {
            Stream::Plain(io) => io.poll_write_vectored(cx, bufs),
            Stream::Secure(io) => io.poll_write_vectored(cx, bufs),
        }
    }
}
