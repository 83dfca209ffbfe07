//! Timestamps: how many a second one placement driver, and three of which one leads, give to clients that ask for many at a time.

use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use base::MonoTime;
use client::{ClientOptions, RawClient};
use proto::pdpb::pd_client::PdClient;
use proto::pdpb::{RequestHeader, TsoRequest};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use crate::report::{Goal, Origin};

/// Wanted of either.
const PER_SECOND_MIN: f64 = 500_000.0;

#[derive(clap::Args)]
pub struct Args {
    /// Seconds of each measurement, after one of warming up.
    #[arg(long, default_value_t = 5)]
    seconds: u64,
    /// Streams at once, each with one request under way.
    #[arg(long, default_value_t = 8)]
    streams: usize,
    /// Timestamps of one request.
    #[arg(long, default_value_t = 1024)]
    batch: u32,
    /// The binary to measure.
    #[arg(long, env = "FERRITE_BIN", default_value = "target/release/ferrite")]
    ferrite: PathBuf,
}

/// Measures and prints; whether the goals were met.
pub fn run(args: &Args) -> Result<bool> {
    ensure!(
        args.streams > 0 && args.seconds > 0 && args.batch > 0,
        "zero streams, seconds or timestamps"
    );
    println!("{}", Origin::of(&std::env::temp_dir()).line());
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let mut goals = Vec::new();
    for members in [1, 3] {
        let cluster = Playground::start(args, members)?;
        let streams = runtime.block_on(over_streams(args, &cluster.pds))?;
        let callers = runtime.block_on(over_client(args, &cluster.pds))?;
        println!(
            "{members} members: {streams:.0} timestamps/s on {} streams of {}; {callers:.0} timestamps/s one by one from 256 callers of the client",
            args.streams, args.batch
        );
        goals.push(Goal::at_least(
            format!("tso_batched_{members}_members"),
            streams,
            PER_SECOND_MIN,
        ));
    }
    goals.iter().for_each(|goal| println!("{}", goal.line()));
    Ok(goals.iter().all(Goal::is_met))
}

/// `ferrite playground` with one store; gone when dropped.
struct Playground {
    child: Child,
    pds: Vec<String>,
}

impl Playground {
    fn start(args: &Args, members: usize) -> Result<Playground> {
        let mut command = Command::new(&args.ferrite);
        command
            .args(["playground", "--stores", "1", "--free-ports", "--json", "--pds"])
            .arg(members.to_string());
        let child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("start {}", args.ferrite.display()))?;
        let mut playground = Playground { child, pds: Vec::new() };
        let mut line = String::new();
        let out = playground.child.stdout.take().context("its output is a pipe")?;
        BufReader::new(out).read_line(&mut line)?;
        let told: serde_json::Value = serde_json::from_str(&line).context("where the playground listens")?;
        let pds = told["pds"].as_array().context("its placement drivers")?;
        playground.pds = pds.iter().filter_map(|pd| Some(pd.as_str()?.to_owned())).collect();
        Ok(playground)
    }
}

impl Drop for Playground {
    fn drop(&mut self) {
        // It may have ended by itself, as its output then told.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// Streams with one request of many timestamps under way each.
async fn over_streams(args: &Args, pds: &[String]) -> Result<f64> {
    let client = RawClient::connect(pds, ClientOptions::default()).await?;
    let (url, cluster_id) = (client.pd().leader_url(), client.pd().cluster_id());
    let begin = MonoTime::now() + Duration::from_secs(1);
    let end = begin + Duration::from_secs(args.seconds);
    let mut streams = Vec::new();
    for _ in 0..args.streams {
        streams.push(tokio::spawn(stream(url.clone(), cluster_id, args.batch, begin, end)));
    }
    let mut given = 0;
    for stream in streams {
        given += stream.await??;
    }
    Ok(given as f64 / args.seconds as f64)
}

/// Timestamps that one stream was given between `begin` and `end`.
async fn stream(url: String, cluster_id: u64, count: u32, begin: MonoTime, end: MonoTime) -> Result<u64> {
    let mut client = PdClient::connect(url).await?;
    let (sender, receiver) = mpsc::channel(1);
    let request = || TsoRequest {
        header: Some(RequestHeader {
            cluster_id,
            ..RequestHeader::default()
        }),
        count,
        ..TsoRequest::default()
    };
    sender.send(request()).await?;
    let mut answers = client.tso(ReceiverStream::new(receiver)).await?.into_inner();
    let (mut given, mut last) = (0, 0);
    loop {
        let answer = answers.message().await?.context("the stream ended")?;
        let ts = answer.timestamp.context("an answer without timestamp")?;
        let ts_now = ((ts.physical as u64) << 18) + ts.logical as u64;
        ensure!(
            ts_now >= last + u64::from(count),
            "timestamps go back from {last} to {ts_now}"
        );
        last = ts_now;
        let now = MonoTime::now();
        if now >= end {
            return Ok(given);
        }
        if now >= begin {
            given += u64::from(answer.count);
        }
        sender.send(request()).await?;
    }
}

/// Callers of the client that ask for one timestamp at a time; the client gathers them.
async fn over_client(args: &Args, pds: &[String]) -> Result<f64> {
    let client = RawClient::connect(pds, ClientOptions::default()).await?;
    let end = MonoTime::now() + Duration::from_secs(args.seconds);
    let callers: Vec<_> = (0..256)
        .map(|_| {
            let pd = client.pd().clone();
            tokio::spawn(async move {
                let mut given = 0_u64;
                while MonoTime::now() < end {
                    pd.timestamp().await?;
                    given += 1;
                }
                anyhow::Ok(given)
            })
        })
        .collect();
    let mut given = 0;
    for caller in callers {
        given += caller.await??;
    }
    Ok(given as f64 / args.seconds as f64)
}
