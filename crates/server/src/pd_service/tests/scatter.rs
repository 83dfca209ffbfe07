//! Scattering as clients ask for it, and the orders for which they wait.

use super::*;

/// Region 12, all keys, with peers on stores 1 to 3 and a fourth store that holds nothing; a stream of its heartbeats.
struct Leader {
    heartbeats: tokio::sync::mpsc::Sender<RegionHeartbeatRequest>,
    answers: tonic::Streaming<RegionHeartbeatResponse>,
    region: metapb::Region,
}

impl Leader {
    async fn start(client: &mut PdClient<Channel>) -> Leader {
        for id in 2..=4 {
            let request = PutStoreRequest {
                header: header(),
                store: Some(store(id)),
            };
            must_be_ok(client.put_store(request).await.unwrap().into_inner().header);
        }
        let (heartbeats, receiver) = tokio::sync::mpsc::channel(1);
        let answers = client.region_heartbeat(ReceiverStream::new(receiver)).await.unwrap();
        let region = metapb::Region {
            peers: (1..=3).map(|store| peer(100 + store, store)).collect(),
            ..region(12, b"", b"", 2)
        };
        Leader {
            heartbeats,
            answers: answers.into_inner(),
            region,
        }
    }

    async fn beat(&self) {
        self.heartbeats.send(beat(self.region.clone())).await.unwrap();
    }

    /// The next order, past what asks for reports.
    async fn must_be_told(&mut self) -> pd::Operator {
        loop {
            let answer = self.answers.next().await.unwrap().unwrap();
            must_be_ok(answer.header.clone());
            if let Some(operator) = operator_of_wire(&answer) {
                return operator;
            }
        }
    }
}

async fn order(client: &mut PdClient<Channel>) -> GetOperatorResponse {
    let request = GetOperatorRequest {
        header: header(),
        region_id: 12,
    };
    client.get_operator(request).await.unwrap().into_inner()
}

#[tokio::test]
async fn a_region_is_scattered_and_its_order_can_be_waited_for() {
    let (_pd, mut client) = must_start().await;
    let mut leader = Leader::start(&mut client).await;
    leader.beat().await;
    // The heartbeat has no answer, so the region is looked for.
    loop {
        let found = client.get_region_by_id(GetRegionByIdRequest {
            header: header(),
            region_id: 12,
            need_buckets: false,
        });
        if found.await.unwrap().into_inner().region.is_some() {
            break;
        }
    }
    must_fail(order(&mut client).await.header, ErrorType::RegionNotFound);

    // Two of the group: what the first one takes, the second one leaves.
    let scatter = |regions: Vec<u64>| ScatterRegionRequest {
        header: header(),
        regions_id: regions,
        group: "table".to_owned(),
        ..ScatterRegionRequest::default()
    };
    for _ in 0..2 {
        let answer = client.scatter_region(scatter(vec![12, 99])).await.unwrap().into_inner();
        must_be_ok(answer.header);
        assert_eq!((answer.finished_percentage, answer.failed_regions_id), (50, vec![99]));
    }
    let told = order(&mut client).await;
    must_be_ok(told.header.clone());
    assert_eq!(
        (told.desc.as_ref(), told.status()),
        (&b"scatter-region"[..], OperatorStatus::Running)
    );

    // It is where it should be once its leader is told nothing more.
    leader.beat().await;
    loop {
        let told = order(&mut client).await;
        if told.status() != OperatorStatus::Running {
            assert_eq!(
                (told.desc.as_ref(), told.status()),
                (&b"scatter-region"[..], OperatorStatus::Success)
            );
            break;
        }
        let Ok(operator) = tokio::time::timeout(std::time::Duration::from_millis(50), leader.must_be_told()).await else {
            continue;
        };
        let pd::Operator::TransferLeader(to) = operator else {
            panic!("{operator:?}: a region alone in its group keeps its stores")
        };
        leader.region.peers.sort_by_key(|peer| peer.id != to.id);
        leader.beat().await;
    }
}

#[tokio::test]
async fn regions_are_divided_and_scattered_in_one_call() {
    let (_pd, mut client) = must_start().await;
    let request = SplitAndScatterRegionsRequest {
        header: header(),
        split_keys: vec![Bytes::from_static(b"m")],
        group: "table".to_owned(),
        ..SplitAndScatterRegionsRequest::default()
    };
    let answer = client.split_and_scatter_regions(request).await.unwrap().into_inner();
    must_be_ok(answer.header);
    let percentages = (answer.split_finished_percentage, answer.scatter_finished_percentage);
    assert_eq!(
        (percentages, answer.regions_id),
        ((100, 100), vec![11]),
        "it begins there already"
    );
}

#[tokio::test]
async fn splits_may_be_reported() {
    let (_pd, mut client) = must_start().await;
    let request = ReportBatchSplitRequest {
        header: header(),
        regions: vec![region(11, b"m", b"", 1)],
    };
    must_be_ok(client.report_batch_split(request).await.unwrap().into_inner().header);
    let request = ReportSplitRequest {
        header: header(),
        ..ReportSplitRequest::default()
    };
    must_be_ok(client.report_split(request).await.unwrap().into_inner().header);
}
