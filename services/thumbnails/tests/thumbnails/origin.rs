//! A web server for sources, as a thread: what it answers is decided by a function of the request.

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// What is sent back: status line and headers, and a body.
pub type Reply = (String, Vec<u8>);

pub struct Origin {
    pub addr: String,
    requests: Arc<AtomicUsize>,
}

impl Origin {
    /// Answers with what `reply` makes of path and headers. The threads end with the process.
    pub fn start(reply: impl Fn(&str, &str) -> Reply + Send + Sync + 'static) -> Origin {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let addr = listener.local_addr().expect("an address").to_string();
        let requests = Arc::new(AtomicUsize::new(0));
        let (reply, counted) = (Arc::new(reply), requests.clone());
        base::thread::spawn("origin", move || {
            for io in listener.incoming().flatten() {
                let (reply, counted) = (reply.clone(), counted.clone());
                base::thread::spawn("origin-one", move || serve(io, &*reply, &counted));
            }
        });
        Origin { addr, requests }
    }

    pub fn requests(&self) -> usize {
        self.requests.load(Ordering::SeqCst)
    }
}

fn serve(mut io: TcpStream, reply: &dyn Fn(&str, &str) -> Reply, counted: &AtomicUsize) {
    let mut reader = BufReader::new(io.try_clone().expect("clones"));
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        if reader.read_line(&mut head).unwrap_or(0) == 0 {
            return;
        }
    }
    counted.fetch_add(1, Ordering::SeqCst);
    let path = head.split(' ').nth(1).unwrap_or_default().to_owned();
    let (status, body) = reply(&path, &head.to_lowercase());
    let head = format!(
        "HTTP/1.1 {status}\r\nconnection: close\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    let _gone = io.write_all(head.as_bytes()).and_then(|()| io.write_all(&body));
}
