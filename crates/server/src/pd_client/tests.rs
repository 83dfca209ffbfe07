use std::sync::Arc;
use std::time::Duration;

use base::MonoTime;
use pd::{Lookup, RegionInfo};
use tokio::sync::mpsc;

use super::*;
use crate::pd_service::tests::{TestPd, must_bootstrap, peer, region, store};

fn soon() -> MonoTime {
    MonoTime::now() + Duration::from_secs(20)
}

fn news() -> (OnNews, mpsc::UnboundedReceiver<News>) {
    let (sender, receiver) = mpsc::unbounded_channel();
    (Arc::new(move |news| drop(sender.send(news))), receiver)
}

fn heartbeat(region: Region) -> RegionInfo {
    RegionInfo {
        leader: region.peers[0],
        region,
        term: 6,
        ..RegionInfo::default()
    }
}

async fn must_hear(news: &mut mpsc::UnboundedReceiver<News>) -> News {
    tokio::time::timeout(Duration::from_secs(20), news.recv())
        .await
        .expect("news in time")
        .expect("the link lives")
}

/// Both kinds of link to one placement driver.
async fn links(pd: &TestPd) -> Vec<(StorePd, mpsc::UnboundedReceiver<News>)> {
    let (on_news, local_news) = news();
    let local = StorePd::local(pd.pd.handle().clone(), on_news);
    let (on_news, mut remote_news) = news();
    let remote = StorePd::connect(&[pd.address.to_string()], &tls::Dialer::plain(), on_news, soon())
        .await
        .unwrap();
    assert_eq!(must_hear(&mut remote_news).await, News::Forgotten);
    vec![(local, local_news), (remote, remote_news)]
}

#[tokio::test]
async fn a_store_starts_over_either_link() {
    for kind in 0..2 {
        let pd = TestPd::start().await;
        let (link, _news) = links(&pd).await.swap_remove(kind);
        assert!(!link.is_bootstrapped(soon()).await.unwrap());
        assert_eq!(link.put_store(store(1), soon()).await, Err(Error::NotBootstrapped));
        let first = link.alloc_ids(3, soon()).await.unwrap();
        assert_eq!(link.alloc_ids(1, soon()).await, Ok(first + 3));
        let regions = vec![region(10, b"", b"g", 1), region(11, b"g", b"m", 1), region(12, b"m", b"", 1)];
        link.bootstrap(store(1), regions.clone(), soon()).await.unwrap();
        assert_eq!(
            link.bootstrap(store(1), regions, soon()).await,
            Err(Error::AlreadyBootstrapped)
        );
        assert!(link.is_bootstrapped(soon()).await.unwrap());
        link.put_store(store(2), soon()).await.unwrap();
        link.store_heartbeat(
            StoreStats {
                store_id: 2,
                ..StoreStats::default()
            },
            soon(),
        )
        .await
        .unwrap();
        assert_eq!(link.store(StoreId(2), soon()).await.unwrap().address, store(2).address);
        let unknown = link.store(StoreId(9), soon()).await.unwrap_err();
        assert_eq!(
            unknown,
            Error::Refused {
                reason: "invalid store ID 9, not found".to_owned()
            }
        );
        let found = pd_service::ask(
            pd.pd.handle(),
            Request::Regions(vec![Lookup::Key(bytes::Bytes::from_static(b"h"))]),
        )
        .await;
        assert!(matches!(found, Ok(Reply::Regions(found)) if found[0].as_ref().unwrap().id() == RegionId(11)));
    }
}

#[tokio::test]
async fn addresses_are_kept_until_forgotten() {
    let pd = TestPd::start().await;
    must_bootstrap(&mut pd.client().await).await;
    for (link, _news) in links(&pd).await {
        link.put_store(store(2), soon()).await.unwrap();
        assert_eq!(link.store(StoreId(2), soon()).await.unwrap().address, store(2).address);
        let moved = Store {
            address: "127.0.0.1:1".to_owned(),
            ..store(2)
        };
        link.put_store(moved.clone(), soon()).await.unwrap();
        assert_eq!(link.store(StoreId(2), soon()).await.unwrap().address, store(2).address);
        link.forget_store(StoreId(2));
        assert_eq!(link.store(StoreId(2), soon()).await.unwrap().address, moved.address);
    }
}

#[tokio::test]
async fn heartbeats_bring_orders() {
    for kind in 0..2 {
        let pd = TestPd::start().await;
        must_bootstrap(&mut pd.client().await).await;
        let (link, mut news) = links(&pd).await.swap_remove(kind);
        link.put_store(store(2), soon()).await.unwrap();
        assert_eq!(
            must_hear(&mut news).await,
            News::Forgotten,
            "leaders are asked when a store joins"
        );
        link.region_heartbeat(heartbeat(region(11, b"m", b"", 2)));
        let News::Order {
            region,
            leader,
            operator: Operator::AddLearner(learner),
            ..
        } = must_hear(&mut news).await
        else {
            panic!("wanted a learner");
        };
        assert_eq!((region, leader, learner.store_id), (RegionId(11), peer(111, 1), 2));
    }
}

#[tokio::test]
async fn a_link_outlives_a_restart_and_is_told_that_all_is_forgotten() {
    let pd = TestPd::start().await;
    must_bootstrap(&mut pd.client().await).await;
    let (on_news, mut news) = news();
    let link = StorePd::connect(&[pd.address.to_string()], &tls::Dialer::plain(), on_news, soon())
        .await
        .unwrap();
    assert_eq!(must_hear(&mut news).await, News::Forgotten);
    link.region_heartbeat(heartbeat(region(11, b"m", b"", 2)));
    let (dir, address) = pd.stop().await;
    let short = MonoTime::now() + Duration::from_millis(200);
    assert!(
        matches!(link.alloc_ids(1, short).await, Err(Error::Unreachable { .. })),
        "a deadline is kept"
    );
    let pd = TestPd::start_in(dir, address).await;
    link.alloc_ids(1, soon()).await.unwrap();
    assert_eq!(must_hear(&mut news).await, News::Forgotten);
    link.region_heartbeat(heartbeat(region(12, b"q", b"", 3)));
    loop {
        let found = pd_service::ask(pd.pd.handle(), Request::Regions(vec![Lookup::Id(RegionId(12))])).await;
        if matches!(found, Ok(Reply::Regions(found)) if found[0].is_some()) {
            break;
        }
        assert!(MonoTime::now() < short + Duration::from_secs(20), "the heartbeat arrives");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn nobody_at_home_is_told_in_time() {
    let (on_news, _news) = news();
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let deadline = MonoTime::now() + Duration::from_millis(300);
    let outcome = StorePd::connect(&[silent.to_string()], &tls::Dialer::plain(), on_news, deadline)
        .await
        .map(drop);
    let error = outcome.unwrap_err();
    assert!(
        error
            .to_string()
            .starts_with(&format!("no placement driver answers at http://{silent}")),
        "{error}"
    );
}
