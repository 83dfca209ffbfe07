//! Golden bytes: messages as other programs of the TiKV world put them on the wire.
//!
//! The bytes were made from the upstream definitions by protobuf's own library, not by this crate.

use bytes::Bytes;
use prost::Message;
use proto::tikvpb::batch_commands_request::{Request, request::Cmd};
use proto::{coprocessor, errorpb, kvrpcpb, metapb, pdpb, tikvpb};

/// Encodes to exactly the golden bytes and decodes from them.
fn check<M: Message + Default + PartialEq + std::fmt::Debug>(message: M, golden: &str) {
    let encoded: String = message.encode_to_vec().iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(encoded, golden, "{message:?}");
    assert_eq!(M::decode(message.encode_to_vec().as_slice()).expect("just encoded"), message);
}

fn bytes(text: &'static str) -> Bytes {
    Bytes::from_static(text.as_bytes())
}

#[test]
fn context_and_raw_requests() {
    let context = kvrpcpb::Context {
        region_id: 7,
        region_epoch: Some(metapb::RegionEpoch { conf_ver: 3, version: 9 }),
        peer: Some(metapb::Peer {
            id: 8,
            store_id: 2,
            role: metapb::PeerRole::Learner.into(),
            is_witness: false,
        }),
        term: 5,
        priority: kvrpcpb::CommandPri::High.into(),
        max_execution_duration_ms: 1000,
        api_version: kvrpcpb::ApiVersion::V2.into(),
        request_source: "s".into(),
        keyspace_id: 0x010203,
        cluster_id: 77,
        ..Default::default()
    };
    check(
        kvrpcpb::RawPutRequest {
            context: Some(context),
            key: bytes("k"),
            value: bytes("v"),
            cf: "default".into(),
            ttl: 60,
            for_cas: true,
        },
        "0a2608071204080310091a060808100218012805300270e807a80102c2010173800283840498024d12016b1a0176220764656661756c74283c3001",
    );
    check(
        kvrpcpb::RawCasRequest {
            key: bytes("k"),
            value: bytes("v"),
            previous_not_exist: true,
            previous_value: bytes("p"),
            cf: "c".into(),
            ttl: 1,
            delete: true,
            ..Default::default()
        },
        "12016b1a017620012a017032016338014001",
    );
    check(
        kvrpcpb::RawScanRequest {
            start_key: bytes("a"),
            limit: 10,
            key_only: true,
            cf: "c".into(),
            reverse: true,
            end_key: bytes("b"),
            ..Default::default()
        },
        "120161180a20012a016330013a0162",
    );
    check(
        kvrpcpb::RawBatchPutRequest {
            pairs: vec![kvrpcpb::KvPair {
                key: bytes("k"),
                value: bytes("v"),
                ..Default::default()
            }],
            cf: "c".into(),
            for_cas: true,
            ttls: vec![300, 0],
            ..Default::default()
        },
        "120612016b1a01761a016328013203ac0200",
    );
    check(
        kvrpcpb::RawChecksumResponse {
            checksum: 1,
            total_kvs: 2,
            total_bytes: 3,
            ..Default::default()
        },
        "180120022803",
    );
}

#[test]
fn region_errors() {
    let region = metapb::Region {
        id: 1,
        start_key: bytes("a"),
        end_key: bytes("b"),
        region_epoch: Some(metapb::RegionEpoch { conf_ver: 1, version: 2 }),
        peers: vec![metapb::Peer {
            id: 3,
            store_id: 4,
            ..Default::default()
        }],
        ..Default::default()
    };
    check(
        errorpb::Error {
            message: "m".into(),
            epoch_not_match: Some(errorpb::EpochNotMatch {
                current_regions: vec![region],
            }),
            ..Default::default()
        },
        "0a016d2a160a1408011201611a01622204080110022a0408031004",
    );
    check(
        errorpb::Error {
            not_leader: Some(errorpb::NotLeader {
                region_id: 1,
                leader: Some(metapb::Peer {
                    id: 2,
                    store_id: 3,
                    ..Default::default()
                }),
            }),
            server_is_busy: Some(errorpb::ServerIsBusy {
                reason: "r".into(),
                backoff_ms: 5,
                ..Default::default()
            }),
            recovery_in_progress: Some(errorpb::RecoveryInProgress { region_id: 6 }),
            undetermined_result: Some(errorpb::UndeterminedResult { message: "u".into() }),
            ..Default::default()
        },
        "1208080112040802100332050a017210058201020806b201030a0175",
    );
}

#[test]
fn transactions() {
    check(
        kvrpcpb::KeyError {
            locked: Some(Box::new(kvrpcpb::LockInfo {
                primary_lock: bytes("p"),
                lock_version: 1,
                key: bytes("k"),
                lock_ttl: 2,
                txn_size: 3,
                lock_type: kvrpcpb::Op::PessimisticLock.into(),
                lock_for_update_ts: 4,
                use_async_commit: true,
                min_commit_ts: 5,
                secondaries: vec![bytes("s")],
                ..Default::default()
            })),
            conflict: Some(kvrpcpb::WriteConflict {
                start_ts: 1,
                conflict_ts: 2,
                key: bytes("k"),
                primary: bytes("p"),
                conflict_commit_ts: 3,
                reason: kvrpcpb::write_conflict::Reason::RcCheckTs.into(),
            }),
            txn_lock_not_found: Some(kvrpcpb::TxnLockNotFound { key: bytes("k") }),
            ..Default::default()
        },
        "0a170a017010011a016b200228033005380440014805520173220e080110021a016b2201702803300462030a016b",
    );
    use kvrpcpb::prewrite_request::PessimisticAction::{DoPessimisticCheck, SkipPessimisticCheck};
    check(
        kvrpcpb::PrewriteRequest {
            mutations: vec![kvrpcpb::Mutation {
                op: kvrpcpb::Op::Insert.into(),
                key: bytes("k"),
                value: bytes("v"),
                assertion: kvrpcpb::Assertion::NotExist.into(),
            }],
            primary_lock: bytes("k"),
            start_version: 400_000_000_000_000_001,
            lock_ttl: 3000,
            pessimistic_actions: vec![DoPessimisticCheck.into(), SkipPessimisticCheck.into()],
            txn_size: 1,
            for_update_ts: 2,
            min_commit_ts: 3,
            use_async_commit: true,
            secondaries: vec![bytes("a"), bytes("b")],
            try_one_pc: true,
            max_commit_ts: 4,
            assertion_level: kvrpcpb::AssertionLevel::Strict.into(),
            ..Default::default()
        },
        "120a080412016b1a017620021a016b208180a0b197bcc5c60528b8173a0201004001480250035801620161620162680170047802",
    );
    check(
        kvrpcpb::CheckTxnStatusRequest {
            primary_key: bytes("p"),
            lock_ts: 1,
            caller_start_ts: 2,
            current_ts: u64::MAX,
            rollback_if_not_exist: true,
            resolving_pessimistic_lock: true,
            verify_is_primary: true,
            ..Default::default()
        },
        "1201701801200228ffffffffffffffffff01300140014801",
    );
}

#[test]
fn placement_driver() {
    let header = Some(pdpb::ResponseHeader {
        cluster_id: 9,
        error: None,
    });
    check(
        pdpb::TsoResponse {
            header: Some(pdpb::ResponseHeader {
                cluster_id: 9,
                error: Some(pdpb::Error {
                    r#type: pdpb::ErrorType::RegionNotFound.into(),
                    message: "e".into(),
                }),
            }),
            count: 64,
            timestamp: Some(pdpb::Timestamp {
                physical: 1_700_000_000_000,
                logical: 262_143,
                suffix_bits: 0,
            }),
        },
        "0a0908091205080612016510401a0b0880d095ffbc3110ffff0f",
    );
    check(
        pdpb::GetMembersResponse {
            header: header.clone(),
            members: vec![pdpb::Member {
                name: "n".into(),
                member_id: 1,
                peer_urls: vec!["p".into()],
                client_urls: vec!["http://h:2379".into()],
                ..Default::default()
            }],
            leader: Some(pdpb::Member {
                member_id: 1,
                client_urls: vec!["u".into()],
                ..Default::default()
            }),
            etcd_leader: Some(pdpb::Member {
                name: "n".into(),
                ..Default::default()
            }),
            ..Default::default()
        },
        "0a02080912170a016e10011a0170220d687474703a2f2f683a323337391a05100122017522030a016e",
    );
    let region = pdpb::RegionResponse {
        region: Some(metapb::Region {
            id: 4,
            ..Default::default()
        }),
        leader: Some(metapb::Peer {
            id: 5,
            store_id: 1,
            ..Default::default()
        }),
        ..Default::default()
    };
    check(
        pdpb::QueryRegionResponse {
            header,
            key_id_map: vec![4, 4],
            prev_key_id_map: vec![3],
            regions_by_id: [(4, region)].into(),
        },
        "0a020809120204041a0103220e0804120a0a020804120408051001",
    );
    check(
        pdpb::RegionHeartbeatRequest {
            header: Some(pdpb::RequestHeader {
                cluster_id: 9,
                ..Default::default()
            }),
            region: Some(metapb::Region {
                id: 4,
                ..Default::default()
            }),
            leader: Some(metapb::Peer {
                id: 5,
                ..Default::default()
            }),
            down_peers: vec![pdpb::PeerStats {
                peer: Some(metapb::Peer {
                    id: 6,
                    ..Default::default()
                }),
                down_seconds: 7,
            }],
            pending_peers: vec![metapb::Peer {
                id: 8,
                ..Default::default()
            }],
            bytes_written: 1,
            bytes_read: 2,
            keys_written: 3,
            keys_read: 4,
            approximate_size: 5,
            interval: Some(pdpb::TimeInterval {
                start_timestamp: 1,
                end_timestamp: 2,
            }),
            approximate_keys: 6,
            term: 7,
            ..Default::default()
        },
        "0a020809120208041a02080522060a02080610072a0208083001380240034804500562040801100268067007",
    );
    check(
        metapb::Store {
            id: 1,
            address: "a".into(),
            state: metapb::StoreState::Offline.into(),
            labels: vec![metapb::StoreLabel {
                key: "zone".into(),
                value: "z".into(),
            }],
            version: "8.5.7".into(),
            peer_address: "p".into(),
            status_address: "s".into(),
            git_hash: "g".into(),
            start_timestamp: 2,
            deploy_path: "d".into(),
            last_heartbeat: 3,
            node_state: metapb::NodeState::Serving.into(),
            ..Default::default()
        },
        "0801120161180122090a047a6f6e6512017a2a05382e352e373201703a0173420167480252016458036801",
    );
}

#[test]
fn coprocessor_and_batches() {
    check(
        coprocessor::Request {
            tp: 103,
            data: bytes("d"),
            ranges: vec![coprocessor::KeyRange {
                start: bytes("a"),
                end: bytes("b"),
            }],
            start_ts: 5,
            paging_size: 128,
            ..Default::default()
        },
        "10671a016422060a01611201623805508001",
    );
    let commands = [
        Cmd::RawGet(kvrpcpb::RawGetRequest {
            key: bytes("k"),
            ..Default::default()
        }),
        Cmd::RawPut(kvrpcpb::RawPutRequest {
            key: bytes("k"),
            ..Default::default()
        }),
        Cmd::Empty(tikvpb::BatchCommandsEmptyRequest {
            test_id: 1,
            delay_time: 0,
        }),
        Cmd::Prewrite(kvrpcpb::PrewriteRequest {
            start_version: 1,
            ..Default::default()
        }),
        Cmd::CheckSecondaryLocks(kvrpcpb::CheckSecondaryLocksRequest {
            start_version: 2,
            ..Default::default()
        }),
    ];
    check(
        tikvpb::BatchCommandsRequest {
            requests: commands.into_iter().map(|cmd| Request { cmd: Some(cmd) }).collect(),
            request_ids: vec![1, 2, 300],
        },
        "0a056a0312016b0a057a0312016b0a05fa0f0208010a041a0220010a058a0202180212040102ac02",
    );
}

/// Answers are moved several times on their way out; with errors inline each would be over a kilobyte.
#[test]
fn usual_answers_are_small_to_move() {
    let sizes = [
        ("RawGetResponse", size_of::<kvrpcpb::RawGetResponse>(), 80),
        ("RawPutResponse", size_of::<kvrpcpb::RawPutResponse>(), 32),
        ("RawScanResponse", size_of::<kvrpcpb::RawScanResponse>(), 32),
        (
            "a batch's answer",
            size_of::<tikvpb::batch_commands_response::Response>(),
            400,
        ),
        ("a batch's request", size_of::<Request>(), 800),
        ("KvPair", size_of::<kvrpcpb::KvPair>(), 96),
    ];
    for (name, size, wanted) in sizes {
        assert!(
            size <= wanted,
            "{name} takes {size} bytes, wanted at most {wanted}; all: {sizes:?}"
        );
    }
}

/// Bytes fields are slices of the buffer that a message was decoded from, not copies.
#[test]
fn bytes_are_not_copied() {
    let value = vec![b'v'; 1000];
    let message = kvrpcpb::RawGetResponse {
        value: value.into(),
        ..Default::default()
    };
    let buffer = Bytes::from(message.encode_to_vec());
    let decoded = kvrpcpb::RawGetResponse::decode(buffer.clone()).expect("just encoded");
    assert!(buffer.as_ptr_range().contains(&decoded.value.as_ptr()));
}
