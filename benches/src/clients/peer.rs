//! The load of the registry's `tikv-client`: the same calls on the same keys as the loads of our clients.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Result, bail};
use conformance::load::{self, Args, Mode};
use tikv_client::{CheckLevel, Config, RawClient, TransactionClient, TransactionOptions};

/// Connects, loads, prints.
pub fn load(args: &Args) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let told = runtime.block_on(run(args))?;
    println!("{told}");
    Ok(())
}

async fn run(args: &Args) -> Result<String> {
    let endpoints: Vec<String> = args.endpoints.split(',').map(str::to_owned).collect();
    let config = Config::default().with_timeout(Duration::from_secs(20));
    let raw = RawClient::new_with_config(endpoints.clone(), config.clone()).await?;
    let txns = Arc::new(TransactionClient::new_with_config(endpoints, config).await?);
    let (mode, prefix, span) = (
        args.mode,
        Arc::<str>::from(args.prefix.as_str()),
        Duration::from_millis(args.amount),
    );
    match mode {
        Mode::Get => {
            let call = move |_, random| {
                let (raw, key) = (raw.clone(), load::key(&prefix, random));
                async move { raw.get(key).await.is_ok() }
            };
            load::bench(args.in_flight, span, call).await
        }
        Mode::Put => {
            let call = move |_, random| {
                let (raw, key) = (raw.clone(), load::key(&prefix, random));
                async move { raw.put(key, load::value()).await.is_ok() }
            };
            load::bench(args.in_flight, span, call).await
        }
        Mode::Txn => {
            let call = move |worker, random| {
                let (txns, keys) = (txns.clone(), load::pair(&prefix, worker, random));
                async move { commit(&txns, keys).await.is_ok() }
            };
            load::bench(args.in_flight, span, call).await
        }
        Mode::Soak => bail!("only our own clients are soaked"),
    }
}

/// In the ways of committing that ours takes without being asked.
async fn commit(txns: &TransactionClient, keys: [String; 2]) -> Result<(), tikv_client::Error> {
    let options = TransactionOptions::new_optimistic()
        .use_async_commit()
        .try_one_pc()
        .drop_check(CheckLevel::Warn);
    let mut txn = txns.begin_with_options(options).await?;
    for key in keys {
        if let Err(error) = txn.put(key, load::value()).await {
            txn.rollback().await?;
            return Err(error);
        }
    }
    txn.commit().await.map(drop)
}
