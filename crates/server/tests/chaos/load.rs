//! Writers that know what they were promised.

use std::sync::Arc;

use anyhow::{Context, Result, bail};
use client::RawClient;
use futures::StreamExt;
use tokio::sync::Mutex;
use tokio::task::JoinSet;

use crate::model::{self, Model};

const WRITERS: usize = 16;
/// Keys of one writer: each is written many times, so that old values could come back.
const KEYS: u64 = 200;
/// Sizes in turn: small ones, and one that spans blocks.
const VALUE_BYTES: [usize; 4] = [64, 128, 512, 9000];
/// Values loaded ahead of the faults.
const PRELOAD_BYTES: usize = 64 << 10;
const PRELOAD_BATCH: u64 = 8;
/// Of the preloaded keys, one in so many is read after each fault.
const PRELOAD_CHECKED: u64 = 16;

/// All writers with what each knows. A writer has one write under way at a time.
#[derive(Default)]
pub struct Load {
    models: Vec<Arc<Mutex<Model>>>,
    writers: JoinSet<()>,
    preloaded: u64,
}

impl Load {
    /// Puts about `mib` MiB in place that no writer touches.
    pub async fn preload(&mut self, client: &RawClient, mib: u64) -> Result<()> {
        let values = (mib << 20) / PRELOAD_BYTES as u64;
        let batches = futures::stream::iter((0..values).step_by(PRELOAD_BATCH as usize)).map(|first| {
            let numbers = first..values.min(first + PRELOAD_BATCH);
            client.batch_put(numbers.map(|number| {
                (
                    preload_key(number),
                    model::value_of(&preload_key(number), number, PRELOAD_BYTES),
                )
            }))
        });
        let mut answers = batches.buffer_unordered(4);
        while let Some(answer) = answers.next().await {
            answer?;
        }
        self.preloaded = values;
        Ok(())
    }

    /// Starts every writer; they go on until a write fails.
    pub fn begin(&mut self, client: &RawClient) {
        self.models.resize_with(WRITERS, Arc::default);
        for (writer, model) in self.models.iter().enumerate() {
            self.writers.spawn(write(client.clone(), writer, model.clone()));
        }
    }

    /// Waits for the writers: their store is gone, so each fails soon.
    pub async fn end(&mut self) {
        while let Some(ended) = self.writers.join_next().await {
            ended.expect("a writer panicked");
        }
    }

    pub fn acknowledged(&self) -> u64 {
        self.models
            .iter()
            .map(|model| model.try_lock().expect("no writer runs").acknowledged)
            .sum()
    }

    /// Reads every key that was ever written, and some of the preloaded ones. Returns how many.
    pub async fn check(&mut self, client: &RawClient) -> Result<u64> {
        let mut checked = 0;
        for model in &self.models {
            checked += check_model(client, &mut *model.lock().await).await?;
        }
        for number in (0..self.preloaded).step_by(PRELOAD_CHECKED as usize) {
            let key = preload_key(number);
            if client.get(key.clone()).await? != Some(model::value_of(&key, number, PRELOAD_BYTES).into()) {
                bail!("preloaded value {number} is not what was written");
            }
            checked += 1;
        }
        Ok(checked)
    }
}

async fn check_model(client: &RawClient, model: &mut Model) -> Result<u64> {
    let keys: Vec<Vec<u8>> = model.keys().cloned().collect();
    for chunk in keys.chunks(64) {
        let pairs = client.batch_get(chunk.iter().cloned()).await.context("read the keys back")?;
        for key in chunk {
            let found = pairs.iter().find(|pair| pair.0 == key);
            if let Err(wrong) = model.check(key, found.map(|pair| pair.1.as_ref())) {
                bail!("{}", wrong.0);
            }
        }
    }
    Ok(keys.len() as u64)
}

/// Writes key after key until a write fails; its outcome is then unknown.
async fn write(client: RawClient, writer: usize, model: Arc<Mutex<Model>>) {
    let mut model = model.lock().await;
    for turn in model.acknowledged.. {
        let key = format!("writer-{writer}/{}", turn % KEYS).into_bytes();
        let number = model.next(&key);
        let value = model::value_of(&key, number, VALUE_BYTES[turn as usize % VALUE_BYTES.len()]);
        match client.put(key.clone(), value).await {
            Ok(()) => model.acknowledge(&key, number),
            Err(_) => return,
        }
    }
}

fn preload_key(number: u64) -> Vec<u8> {
    format!("preload/{number:08}").into_bytes()
}
