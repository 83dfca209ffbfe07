//! A client that dies: takes locks and waits to be killed.

use anyhow::{Context, Result};
use client::{Api, ClientOptions, Keyspace, TxnClient, TxnOptions};

/// Locks and writes `keys` in a pessimistic transaction, says so, and never ends.
pub async fn run(endpoint: &str, keys: Vec<Vec<u8>>) -> Result<()> {
    let options = ClientOptions {
        api: Api::V2(Keyspace::Id(0)),
        ..Default::default()
    };
    let client = TxnClient::connect(&[endpoint], options).await?;
    let mut txn = client.begin(TxnOptions::pessimistic()).await?;
    txn.batch_put(keys.into_iter().map(|key| (key, "of the dead"))).await?;
    println!("locked");
    std::io::Write::flush(&mut std::io::stdout()).context("say so")?;
    std::future::pending().await
}
