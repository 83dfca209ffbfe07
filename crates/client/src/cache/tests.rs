use super::*;

/// Region `id` over `[start, end)` with peers `id * 10 + store` on stores 1 to 3; store 1 leads.
fn region(id: u64, start: &'static str, end: &'static str, version: u64) -> Region {
    let peers: Vec<_> = (1..=3)
        .map(|store| metapb::Peer {
            id: id * 10 + store,
            store_id: store,
            ..Default::default()
        })
        .collect();
    let leader = peers[0];
    let meta = metapb::Region {
        id,
        start_key: start.into(),
        end_key: end.into(),
        region_epoch: Some(metapb::RegionEpoch { conf_ver: 1, version }),
        peers,
        ..Default::default()
    };
    Region::new(meta, Some(leader)).expect("has peers")
}

fn cache(regions: &[Region]) -> RegionCache {
    let mut cache = RegionCache::default();
    regions.iter().for_each(|region| {
        cache.insert(region.clone());
    });
    cache
}

/// Id of the region that holds `key`, 0 for none.
fn at(cache: &RegionCache, key: &str) -> u64 {
    cache
        .find(&Bytes::copy_from_slice(key.as_bytes()))
        .map_or(0, |region| region.id().0)
}

fn before(cache: &RegionCache, end: &'static str) -> u64 {
    cache.find_before(&end.into()).map_or(0, |region| region.id().0)
}

#[test]
fn finds_by_half_open_range() {
    let cache = cache(&[region(1, "", "b", 1), region(2, "b", "d", 1), region(4, "f", "", 1)]);
    let found: Vec<u64> = ["", "a", "b", "c", "d", "e", "f", "z"].map(|key| at(&cache, key)).to_vec();
    assert_eq!(found, [1, 1, 2, 2, 0, 0, 4, 4]);
}

#[test]
fn finds_what_lies_before_an_end() {
    let cache = cache(&[region(1, "", "b", 1), region(2, "b", "d", 1), region(4, "f", "", 1)]);
    let found: Vec<u64> = ["a", "b", "c", "d", "e", "f", "g", ""]
        .map(|end| before(&cache, end))
        .to_vec();
    assert_eq!(found, [1, 1, 2, 2, 0, 0, 4, 4]);
    assert_eq!(
        before(&self::cache(&[region(1, "", "b", 1)]), ""),
        0,
        "the last region is not known"
    );
}

#[test]
fn split_and_merge_replace_what_they_overlap() {
    let mut cache = cache(&[region(1, "", "m", 1), region(2, "m", "", 1)]);
    cache.insert(region(3, "", "f", 2));
    assert_eq!((at(&cache, "a"), at(&cache, "g"), at(&cache, "n")), (3, 0, 2));
    cache.insert(region(1, "f", "m", 2));
    assert_eq!((at(&cache, "a"), at(&cache, "g"), at(&cache, "n")), (3, 1, 2));
    cache.insert(region(2, "", "", 3));
    assert_eq!((at(&cache, "a"), at(&cache, "g"), at(&cache, "n")), (2, 2, 2));
    assert_eq!(cache.by_start.len(), cache.starts.len());
}

#[test]
fn a_region_that_shrank_leaves_no_ghost() {
    let mut cache = cache(&[region(1, "", "", 1)]);
    cache.insert(region(1, "m", "", 2));
    assert_eq!((at(&cache, "a"), at(&cache, "n")), (0, 1));
    assert_eq!(cache.by_start.len(), 1);
}

#[test]
fn an_older_region_does_not_replace_a_newer() {
    let mut cache = cache(&[region(1, "", "m", 2), region(2, "m", "", 2)]);
    let kept = cache.insert(region(1, "", "", 1));
    assert_eq!(kept.meta.region_epoch.as_ref().map(|epoch| epoch.version), Some(2));
    assert_eq!((at(&cache, "a"), at(&cache, "n")), (1, 2));
    let small = region(3, "c", "d", 3);
    cache.insert(small);
    let stale = cache.insert(region(1, "", "m", 2));
    assert_eq!(stale.id(), RegionId(1), "usable, if only to be told better by the store");
    assert_eq!((at(&cache, "a"), at(&cache, "c")), (0, 3), "but not kept over what is newer");
}

#[test]
fn hint_of_a_leader_is_followed_at_once() {
    let asked = region(1, "", "", 1);
    let mut cache = cache(std::slice::from_ref(&asked));
    let hint = asked.meta.peers[2];
    let error = errorpb::Error {
        not_leader: Some(errorpb::NotLeader {
            region_id: 1,
            leader: Some(hint),
        }),
        ..Default::default()
    };
    assert_eq!(cache.on_error(&asked, &error), Step::Again);
    assert_eq!(cache.find(&"k".into()).expect("still known").peer, hint);

    let stranger = metapb::Peer {
        id: 99,
        store_id: 9,
        ..Default::default()
    };
    let error = errorpb::Error {
        not_leader: Some(errorpb::NotLeader {
            region_id: 1,
            leader: Some(stranger),
        }),
        ..Default::default()
    };
    let asked = cache.find(&"k".into()).expect("still known");
    assert!(matches!(
        cache.on_error(&asked, &error),
        Step::Pause { cause: Cause::Stale, .. }
    ));
    assert_eq!(at(&cache, "k"), 0, "a leader unknown to the cached region");
}

#[test]
fn without_a_hint_every_peer_is_asked_then_pd() {
    let mut cache = cache(&[region(1, "", "", 1)]);
    let error = errorpb::Error {
        not_leader: Some(errorpb::NotLeader::default()),
        ..Default::default()
    };
    let mut stores = Vec::new();
    while let Some(asked) = cache.find(&"k".into()) {
        stores.push(asked.store().0);
        assert!(matches!(
            cache.on_error(&asked, &error),
            Step::Pause {
                cause: Cause::Election,
                ..
            }
        ));
    }
    assert_eq!(stores, [1, 2, 3]);
}

#[test]
fn late_errors_do_not_undo_newer_knowledge() {
    let asked = region(1, "", "", 1);
    let mut cache = cache(std::slice::from_ref(&asked));
    cache.try_next_peer(&asked);
    // A second caller that asked the same peer fails too, later.
    cache.try_next_peer(&asked);
    assert_eq!(cache.find(&"k".into()).expect("still known").store(), StoreId(2));
    cache.insert(region(1, "", "", 2));
    cache.on_error(
        &asked,
        &errorpb::Error {
            region_not_found: Some(Default::default()),
            ..Default::default()
        },
    );
    assert_eq!(at(&cache, "k"), 1);
}

#[test]
fn regions_in_epoch_not_match_are_taken() {
    let asked = Region {
        peer: region(1, "", "", 1).meta.peers[1],
        ..region(1, "", "", 1)
    };
    let mut cache = cache(std::slice::from_ref(&asked));
    let current = vec![region(5, "", "m", 2).meta, region(1, "m", "", 2).meta];
    let error = errorpb::Error {
        epoch_not_match: Some(errorpb::EpochNotMatch {
            current_regions: current,
        }),
        ..Default::default()
    };
    assert_eq!(cache.on_error(&asked, &error), Step::Again);
    assert_eq!((at(&cache, "a"), at(&cache, "z")), (5, 1));
    assert_eq!(
        cache.find(&"a".into()).expect("taken").store(),
        StoreId(2),
        "the store that answered is asked"
    );

    let empty = errorpb::Error {
        epoch_not_match: Some(Default::default()),
        ..Default::default()
    };
    let asked = cache.find(&"a".into()).expect("taken");
    assert!(matches!(
        cache.on_error(&asked, &empty),
        Step::Pause { cause: Cause::Stale, .. }
    ));
    assert_eq!(at(&cache, "a"), 0);
}

#[test]
fn a_store_behind_the_client_is_waited_for() {
    let asked = region(1, "", "", 5);
    let mut cache = cache(std::slice::from_ref(&asked));
    let error = errorpb::Error {
        epoch_not_match: Some(errorpb::EpochNotMatch {
            current_regions: vec![region(1, "", "", 4).meta],
        }),
        ..Default::default()
    };
    assert!(
        matches!(cache.on_error(&asked, &error), Step::Pause { .. }),
        "asking at once would spin"
    );
    assert_eq!(at(&cache, "k"), 0, "what the store knows is older");
}

#[test]
fn every_kind_of_error_has_its_step() {
    type Fill = fn(&mut errorpb::Error);
    let stale = pause(Cause::Stale);
    let busy = pause(Cause::Busy);
    // What to fill, the step, and whether the region stays cached.
    let table: [(&str, Fill, Step, bool); 19] = [
        (
            "region_not_found",
            |e| e.region_not_found = Some(Default::default()),
            stale,
            false,
        ),
        (
            "key_not_in_region",
            |e| e.key_not_in_region = Some(Default::default()),
            stale,
            false,
        ),
        (
            "store_not_match",
            |e| e.store_not_match = Some(Default::default()),
            stale,
            false,
        ),
        (
            "mismatch_peer_id",
            |e| e.mismatch_peer_id = Some(Default::default()),
            stale,
            false,
        ),
        ("is_witness", |e| e.is_witness = Some(Default::default()), stale, false),
        (
            "bucket_version_not_match",
            |e| e.bucket_version_not_match = Some(Default::default()),
            stale,
            false,
        ),
        ("only a text", |e| e.message = "new".into(), stale, false),
        ("stale_command", |e| e.stale_command = Some(Default::default()), stale, true),
        (
            "proposal_in_merging_mode",
            |e| e.proposal_in_merging_mode = Some(Default::default()),
            stale,
            true,
        ),
        (
            "read_index_not_ready",
            |e| e.read_index_not_ready = Some(Default::default()),
            stale,
            true,
        ),
        (
            "region_not_initialized",
            |e| e.region_not_initialized = Some(Default::default()),
            stale,
            true,
        ),
        (
            "max_timestamp_not_synced",
            |e| e.max_timestamp_not_synced = Some(Default::default()),
            stale,
            true,
        ),
        ("disk_full", |e| e.disk_full = Some(Default::default()), busy, true),
        (
            "recovery_in_progress",
            |e| e.recovery_in_progress = Some(Default::default()),
            busy,
            true,
        ),
        (
            "flashback_in_progress",
            |e| e.flashback_in_progress = Some(Default::default()),
            busy,
            true,
        ),
        (
            "undetermined_result",
            |e| e.undetermined_result = Some(Default::default()),
            Step::Undetermined,
            true,
        ),
        (
            "raft_entry_too_large",
            |e| e.raft_entry_too_large = Some(Default::default()),
            Step::Refuse,
            true,
        ),
        (
            "data_is_not_ready",
            |e| e.data_is_not_ready = Some(Default::default()),
            Step::Again,
            true,
        ),
        (
            "server_is_busy",
            |e| {
                e.server_is_busy = Some(errorpb::ServerIsBusy {
                    backoff_ms: 30,
                    ..Default::default()
                })
            },
            Step::Pause {
                cause: Cause::Busy,
                millis_min: 30,
            },
            true,
        ),
    ];
    for (name, fill, step, stays) in table {
        let asked = region(1, "", "", 1);
        let mut cache = cache(std::slice::from_ref(&asked));
        let mut error = errorpb::Error::default();
        fill(&mut error);
        assert_eq!(cache.on_error(&asked, &error), step, "{name}");
        assert_eq!(at(&cache, "k") == 1, stays, "{name}: stays cached");
    }
}

#[test]
fn a_region_without_peers_is_none() {
    assert_eq!(Region::new(metapb::Region::default(), None), None);
}
