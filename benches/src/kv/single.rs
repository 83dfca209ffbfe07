//! One fresh server: how soon it answers, and what it takes while nobody asks.

use std::path::Path;
use std::time::Duration;

use anyhow::Result;
use base::MonoTime;
use bytes::Bytes;

use super::caller::{Connections, Form};
use super::ferrite::{Route, start_single};
use super::load::Op;
use super::process::{disk_bytes, wait_for};

pub struct Single {
    /// From the start of the process to the answer of the first put and of a get that reads it.
    pub start_ms: f64,
    pub idle_rss_bytes: u64,
    pub disk_bytes: u64,
}

/// Starts `binary` on an empty directory, asks, leaves it alone for `idle`, measures.
pub async fn measure(binary: &Path, dir: &Path, idle: Duration) -> Result<Single> {
    let begin = MonoTime::now();
    let (mut server, pd_address) = start_single(binary, dir)?;
    wait_for("the first answer", Duration::from_secs(30), async || {
        server.check_alive()?;
        let route = Route::find(&pd_address).await?;
        let connections = Connections::open(&route.address, 1).await?;
        let mut caller = connections.callers(1, Form::Unary, &route.context).remove(0);
        let (key, value) = (Bytes::from_static(b"bench/first"), Bytes::from_static(b"value"));
        caller.call(Op::Put, key.clone(), &value).await?;
        caller.call(Op::Get, key, &value).await
    })
    .await?;
    let start_ms = MonoTime::now().since(begin).as_secs_f64() * 1e3;
    let disk = disk_bytes(&dir.join("data"))?;
    tokio::time::sleep(idle).await;
    Ok(Single {
        start_ms,
        idle_rss_bytes: server.rss_bytes()?,
        disk_bytes: disk.max(disk_bytes(&dir.join("data"))?),
    })
}
