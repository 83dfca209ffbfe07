//! Connecting to a server: address, TLS, who we are, which database.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use tokio::net::TcpStream;

use super::{Conn, Fault};
use crate::link::Link;
use crate::net::Stream;
use crate::pool::Pool;
use crate::resp::write::{self, Version};
use crate::topology::PoolPlan;

/// A connection that is ready for requests, within the pool's time for it.
pub async fn connect(conn: &Rc<Conn>, pool: &Rc<Pool>) -> Result<Stream, Fault> {
    let view = pool.view();
    let limit = view.plan.config.timeout_connect.0;
    let connected = tokio::time::timeout(limit, open(conn, &view.plan)).await;
    let stream = connected.unwrap_or(Err(Fault::Timeout(limit)))?;
    if conn.is_killed.get() {
        return Err(Fault::Dropped);
    }
    Ok(stream)
}

async fn open(conn: &Conn, plan: &PoolPlan) -> Result<Stream, Fault> {
    let stream = dial(&conn.node.addr, plan).await?;
    if plan.config.protocol == crate::config::Protocol::Memcached {
        return Ok(stream);
    }
    let mut link = Link::new(stream);
    for request in hello(conn, plan) {
        let reply = link.ask(&request).await.map_err(|error| Fault::Refused(error.to_string()))?;
        if reply.first() == Some(&b'-') {
            let text = String::from_utf8_lossy(&reply);
            return Err(Fault::Refused(text.trim_start_matches('-').trim_end().to_owned()));
        }
    }
    link.into_stream().ok_or(Fault::Unasked)
}

/// A bare connection to `addr`, with TLS if the pool wants it.
pub async fn dial(addr: &str, plan: &PoolPlan) -> Result<Stream, Fault> {
    let tcp = TcpStream::connect(addr).await?;
    tcp.set_nodelay(true)?;
    let Some(connector) = &plan.connector else {
        return Ok(Stream::Tcp(tcp));
    };
    let name = crate::tls::server_name(addr, &plan.config.server_tls_name).map_err(Fault::Refused)?;
    Ok(Stream::TlsClient(Box::new(connector.connect(name, tcp).await?)))
}

/// What the server must hear first.
fn hello(conn: &Conn, plan: &PoolPlan) -> Vec<Vec<u8>> {
    let config = &plan.config;
    let mut requests = Vec::new();
    let mut ask = |args: &[&[u8]]| {
        let mut request = Vec::new();
        write::request(&mut request, args);
        requests.push(request);
    };
    let (user, password) = (config.server_user.as_bytes(), config.server_password.as_bytes());
    match (password.is_empty(), user.is_empty()) {
        (true, _) => {}
        (false, true) => ask(&[b"AUTH", password]),
        (false, false) => ask(&[b"AUTH", user, password]),
    }
    if conn.purpose.version == Version::Resp3 {
        ask(&[b"HELLO", b"3"]);
    }
    if conn.purpose.db > 0 {
        ask(&[b"SELECT", conn.purpose.db.to_string().as_bytes()]);
    }
    if conn.node.is_cluster_replica {
        ask(&[b"READONLY"]);
    }
    requests
}

/// How long a server that could not be reached is left alone; it doubles up to a second.
pub fn pause(current: &Cell<Duration>) -> Duration {
    let next = (current.get() * 2).clamp(Duration::from_millis(20), Duration::from_secs(1));
    current.set(next);
    next
}
