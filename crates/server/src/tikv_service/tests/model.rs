//! Raw operations drawn at random, unary or batched, against a sorted map.

use super::*;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use std::collections::BTreeMap;
use std::ops::Bound::{Excluded, Included};

type Model = BTreeMap<Bytes, Bytes>;

struct Run {
    store: Fixture,
    rng: StdRng,
    model: Model,
}

impl Run {
    /// Few keys, so that operations meet; lengths around the groups of the memcomparable form.
    fn key(&mut self) -> Bytes {
        let len = [0, 1, 2, 4, 5, 12][self.rng.random_range(0..6)];
        let name: String = (0..len).map(|_| ['\0', 'a', 'b'][self.rng.random_range(0..3)]).collect();
        self.store.key(&name)
    }

    fn value(&mut self) -> Bytes {
        let len = self.rng.random_range(0..12);
        (0..len).map(|_| self.rng.random::<u8>()).collect::<Vec<u8>>().into()
    }

    fn pair(&mut self) -> KvPair {
        KvPair {
            key: self.key(),
            value: self.value(),
            ..Default::default()
        }
    }

    fn range(&mut self) -> (Bytes, Bytes) {
        let (a, b) = (self.key(), self.key());
        if a <= b { (a, b) } else { (b, a) }
    }

    async fn ask(&mut self, request: Request) -> Answer {
        if self.rng.random() {
            self.store.unary(request).await
        } else {
            self.store.batched(request).await
        }
    }

    fn found(&self, lower: &Bytes, upper: &Bytes, limit: u32, reverse: bool, key_only: bool) -> Vec<KvPair> {
        // An empty upper end is open.
        let upper = if upper.is_empty() {
            std::ops::Bound::Unbounded
        } else {
            Excluded(upper.clone())
        };
        let range = self.model.range((Included(lower.clone()), upper));
        let pair = |(key, value): (&Bytes, &Bytes)| KvPair {
            key: key.clone(),
            value: if key_only { Bytes::new() } else { value.clone() },
            ..Default::default()
        };
        if reverse {
            range.rev().take(limit as usize).map(pair).collect()
        } else {
            range.take(limit as usize).map(pair).collect()
        }
    }

    async fn step(&mut self) {
        let context = self.store.context();
        match self.rng.random_range(0..10) {
            0 => {
                let KvPair { key, value, .. } = self.pair();
                self.model.insert(key.clone(), value.clone());
                let answer = self
                    .ask(Request::RawPut(RawPutRequest {
                        context,
                        key,
                        value,
                        ..Default::default()
                    }))
                    .await;
                assert_eq!(answer, Answer::RawPut(RawPutResponse::default()));
            }
            1 => {
                let pairs: Vec<KvPair> = (0..self.rng.random_range(0..6)).map(|_| self.pair()).collect();
                self.model
                    .extend(pairs.iter().map(|pair| (pair.key.clone(), pair.value.clone())));
                let answer = self
                    .ask(Request::RawBatchPut(RawBatchPutRequest {
                        context,
                        pairs,
                        ..Default::default()
                    }))
                    .await;
                assert_eq!(answer, Answer::RawBatchPut(RawBatchPutResponse::default()));
            }
            2 => {
                let key = self.key();
                self.model.remove(&key);
                let answer = self
                    .ask(Request::RawDelete(RawDeleteRequest {
                        context,
                        key,
                        ..Default::default()
                    }))
                    .await;
                assert_eq!(answer, Answer::RawDelete(RawDeleteResponse::default()));
            }
            3 => {
                let keys: Vec<Bytes> = (0..self.rng.random_range(0..4)).map(|_| self.key()).collect();
                keys.iter().for_each(|key| drop(self.model.remove(key)));
                let answer = self
                    .ask(Request::RawBatchDelete(RawBatchDeleteRequest {
                        context,
                        keys,
                        ..Default::default()
                    }))
                    .await;
                assert_eq!(answer, Answer::RawBatchDelete(RawBatchDeleteResponse::default()));
            }
            4 if self.rng.random_bool(0.3) => {
                let (start_key, end_key) = self.range();
                if start_key != end_key || end_key.is_empty() {
                    self.model
                        .retain(|key, _| *key < start_key || (!end_key.is_empty() && *key >= end_key));
                }
                let request = RawDeleteRangeRequest {
                    context,
                    start_key,
                    end_key,
                    ..Default::default()
                };
                assert_eq!(
                    self.ask(Request::RawDeleteRange(request)).await,
                    Answer::RawDeleteRange(RawDeleteRangeResponse::default())
                );
            }
            4 | 5 => {
                let KvPair { key, value, .. } = self.pair();
                let expected = if self.rng.random() {
                    self.model.get(&key).cloned()
                } else {
                    Some(self.value())
                };
                let (previous, delete) = (self.model.get(&key).cloned(), self.rng.random());
                let swapped = previous == expected;
                if swapped && delete {
                    self.model.remove(&key);
                } else if swapped {
                    self.model.insert(key.clone(), value.clone());
                }
                let request = RawCasRequest {
                    context,
                    key,
                    value,
                    previous_not_exist: expected.is_none(),
                    previous_value: expected.unwrap_or_default(),
                    delete,
                    ..Default::default()
                };
                let answer = self
                    .store
                    .service
                    .raw_compare_and_swap(tonic::Request::new(request))
                    .await
                    .expect("ends well")
                    .into_inner();
                let told = RawCasResponse {
                    succeed: swapped,
                    previous_not_exist: previous.is_none(),
                    previous_value: previous.unwrap_or_default(),
                    ..Default::default()
                };
                assert_eq!(answer, told);
            }
            6 => {
                let key = self.key();
                let there = self.model.get(&key).cloned();
                let told = RawGetResponse {
                    not_found: there.is_none(),
                    value: there.unwrap_or_default(),
                    ..Default::default()
                };
                let answer = self
                    .ask(Request::RawGet(RawGetRequest {
                        context,
                        key,
                        ..Default::default()
                    }))
                    .await;
                assert_eq!(answer, Answer::RawGet(told));
            }
            7 => {
                let keys: Vec<Bytes> = (0..self.rng.random_range(0..6)).map(|_| self.key()).collect();
                let there = |key: &Bytes| {
                    Some(KvPair {
                        key: key.clone(),
                        value: self.model.get(key)?.clone(),
                        ..Default::default()
                    })
                };
                let pairs = keys.iter().filter_map(there).collect();
                let answer = self
                    .ask(Request::RawBatchGet(RawBatchGetRequest {
                        context,
                        keys,
                        ..Default::default()
                    }))
                    .await;
                assert_eq!(
                    answer,
                    Answer::RawBatchGet(RawBatchGetResponse {
                        pairs,
                        ..Default::default()
                    })
                );
            }
            8 => {
                let (lower, upper) = self.range();
                let (limit, reverse, key_only) = (self.rng.random_range(0..8), self.rng.random(), self.rng.random());
                let kvs = self.found(&lower, &upper, limit, reverse, key_only);
                let (start_key, end_key) = if reverse { (upper, lower) } else { (lower, upper) };
                let request = RawScanRequest {
                    context,
                    start_key,
                    end_key,
                    limit,
                    reverse,
                    key_only,
                    ..Default::default()
                };
                let answer = self.ask(Request::RawScan(request)).await;
                assert_eq!(
                    answer,
                    Answer::RawScan(RawScanResponse {
                        kvs,
                        ..Default::default()
                    })
                );
            }
            _ => {
                let (lower, upper) = self.range();
                let found = self.found(&lower, &upper, u32::MAX, false, false);
                let ranges = vec![KeyRange {
                    start_key: lower,
                    end_key: upper,
                }];
                let request = RawChecksumRequest {
                    context,
                    ranges,
                    ..Default::default()
                };
                let answer = self
                    .store
                    .service
                    .raw_checksum(tonic::Request::new(request))
                    .await
                    .expect("ends well")
                    .into_inner();
                let crc = crc::Crc::<u64>::new(&crc::CRC_64_XZ);
                let sum = found
                    .iter()
                    .fold(0, |sum, pair| sum ^ crc.checksum(&[&pair.key[..], &pair.value[..]].concat()));
                let bytes: usize = found.iter().map(|pair| pair.key.len() + pair.value.len()).sum();
                assert_eq!(
                    (answer.checksum, answer.total_kvs, answer.total_bytes),
                    (sum, found.len() as u64, bytes as u64)
                );
            }
        }
    }
}

#[tokio::test]
async fn agrees_with_a_sorted_map() {
    for api in ALL {
        for seed in 0..20 {
            // Told only when a step panics.
            println!("{api:?} seed {seed}");
            let mut run = Run {
                store: Fixture::new(api),
                rng: StdRng::seed_from_u64(seed),
                model: Model::new(),
            };
            for _ in 0..300 {
                run.step().await;
            }
        }
    }
}
