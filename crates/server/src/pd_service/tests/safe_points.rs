//! Safe points, the pins that hold them back, and the states of newer clients.

use super::*;

#[tokio::test]
async fn safe_points_follow_pins_and_barriers() {
    let (_pd, mut client) = must_start().await;
    let service = |name: &'static str, ttl, safe_point| UpdateServiceGcSafePointRequest {
        header: header(),
        service_id: Bytes::from_static(name.as_bytes()),
        ttl,
        safe_point,
    };
    let lowest = client
        .update_service_gc_safe_point(service("backup", 600, 50))
        .await
        .unwrap()
        .into_inner();
    must_be_ok(lowest.header);
    assert_eq!(
        (&lowest.service_id[..], lowest.ttl, lowest.min_safe_point),
        (&b"gc_worker"[..], i64::MAX, 0)
    );
    let moved = client
        .update_gc_safe_point(UpdateGcSafePointRequest {
            header: header(),
            safe_point: 90,
        })
        .await
        .unwrap()
        .into_inner();
    assert_eq!(moved.new_safe_point, 50, "held by the backup");
    client.update_service_gc_safe_point(service("backup", 0, 0)).await.unwrap();
    let moved = client
        .update_gc_safe_point(UpdateGcSafePointRequest {
            header: header(),
            safe_point: 90,
        })
        .await
        .unwrap()
        .into_inner();
    assert_eq!(moved.new_safe_point, 90);
    let told = client
        .get_gc_safe_point(GetGcSafePointRequest { header: header() })
        .await
        .unwrap()
        .into_inner();
    assert_eq!(told.safe_point, 90);

    let barrier = SetGcBarrierRequest {
        header: header(),
        barrier_id: "br".to_owned(),
        barrier_ts: 120,
        ttl_seconds: i64::MAX,
        ..SetGcBarrierRequest::default()
    };
    must_be_ok(client.set_gc_barrier(barrier.clone()).await.unwrap().into_inner().header);
    let late = SetGcBarrierRequest {
        barrier_ts: 80,
        ..barrier
    };
    must_fail(
        client.set_gc_barrier(late).await.unwrap().into_inner().header,
        ErrorType::InvalidValue,
    );
    let target = |target| AdvanceTxnSafePointRequest {
        header: header(),
        target,
        ..AdvanceTxnSafePointRequest::default()
    };
    let moved = client.advance_txn_safe_point(target(150)).await.unwrap().into_inner();
    assert_eq!((moved.old_txn_safe_point, moved.new_txn_safe_point), (90, 120));
    assert!(moved.blocker_description.contains("`br`"), "{}", moved.blocker_description);
    let beyond = AdvanceGcSafePointRequest {
        header: header(),
        target: 130,
        ..AdvanceGcSafePointRequest::default()
    };
    must_fail(
        client
            .advance_gc_safe_point(beyond.clone())
            .await
            .unwrap()
            .into_inner()
            .header,
        ErrorType::InvalidValue,
    );
    let moved = client
        .advance_gc_safe_point(AdvanceGcSafePointRequest { target: 110, ..beyond })
        .await
        .unwrap()
        .into_inner();
    assert_eq!((moved.old_gc_safe_point, moved.new_gc_safe_point), (90, 110));
    let ask = GetGcStateRequest {
        header: header(),
        keyspace_scope: None,
    };
    let state = client.get_gc_state(ask).await.unwrap().into_inner().gc_state.unwrap();
    assert_eq!((state.txn_safe_point, state.gc_safe_point), (120, 110));
    assert_eq!((state.gc_barriers.len(), state.gc_barriers[0].ttl_seconds), (1, i64::MAX));
    let all = client
        .get_all_keyspaces_gc_states(GetAllKeyspacesGcStatesRequest { header: header() })
        .await
        .unwrap()
        .into_inner();
    assert_eq!(all.gc_states.len(), 1);
    let drop = DeleteGcBarrierRequest {
        header: header(),
        barrier_id: "br".to_owned(),
        ..DeleteGcBarrierRequest::default()
    };
    let dropped = client.delete_gc_barrier(drop.clone()).await.unwrap().into_inner();
    assert_eq!(dropped.deleted_barrier_info.unwrap().barrier_ts, 120);
    assert_eq!(
        client
            .delete_gc_barrier(drop)
            .await
            .unwrap()
            .into_inner()
            .deleted_barrier_info,
        None
    );
}

#[tokio::test]
async fn older_forms_with_a_keyspace_move_the_same_safe_point() {
    let (_pd, mut client) = must_start().await;
    let pin = UpdateServiceSafePointV2Request {
        header: header(),
        keyspace_id: 7,
        service_id: Bytes::from_static(b"backup"),
        safe_point: 50,
        ttl: 600,
    };
    let lowest = client.update_service_safe_point_v2(pin.clone()).await.unwrap().into_inner();
    must_be_ok(lowest.header);
    assert_eq!((&lowest.service_id[..], lowest.min_safe_point), (&b"gc_worker"[..], 0));
    let update = UpdateGcSafePointV2Request {
        header: header(),
        keyspace_id: 7,
        safe_point: 90,
    };
    let moved = client.update_gc_safe_point_v2(update.clone()).await.unwrap().into_inner();
    assert_eq!(moved.new_safe_point, 50, "held by the backup");
    let dropped = UpdateServiceSafePointV2Request { ttl: 0, ..pin };
    client.update_service_safe_point_v2(dropped).await.unwrap();
    assert_eq!(
        client
            .update_gc_safe_point_v2(update)
            .await
            .unwrap()
            .into_inner()
            .new_safe_point,
        90
    );
    let one = GetGcSafePointV2Request {
        header: header(),
        keyspace_id: 7,
    };
    assert_eq!(client.get_gc_safe_point_v2(one).await.unwrap().into_inner().safe_point, 90);
    let all = GetAllGcSafePointV2Request { header: header() };
    let all = client.get_all_gc_safe_point_v2(all).await.unwrap().into_inner();
    assert_eq!(all.gc_safe_points.iter().map(|of| of.gc_safe_point).collect::<Vec<_>>(), [90]);
}
