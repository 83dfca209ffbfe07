//! `BatchCommands` streams.

use super::*;
use crate::limits::STREAM_COMMANDS_MAX;
use proto::tikvpb::BatchCommandsEmptyRequest;
use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};

fn get(name: &str) -> Request {
    Request::RawGet(RawGetRequest {
        context: Some(context(V1)),
        key: text(name),
        ..Default::default()
    })
}

fn put(name: &str, value: &str) -> Request {
    Request::RawPut(RawPutRequest {
        context: Some(context(V1)),
        key: text(name),
        value: text(value),
        ..Default::default()
    })
}

#[tokio::test]
async fn answers_carry_the_ids_of_their_commands() {
    let store = Fixture::new(V1);
    for n in 0..100 {
        store.put(&n.to_string(), &format!("v{n}")).await;
    }
    // Ids as a client draws them: not in order, and the same key asked twice.
    let messages: Messages = (0..10)
        .map(|m| {
            (0..20)
                .map(|n| (10_000 - m * 100 - n, get(&(m * 10 + n / 2).to_string())))
                .collect()
        })
        .collect();
    let expected: BTreeMap<u64, String> = (0..10)
        .flat_map(|m| (0..20).map(move |n| (10_000 - m * 100 - n, format!("v{}", m * 10 + n / 2))))
        .collect();
    let answers = batched(&store.service, messages).await;
    assert_eq!(answers.len(), 200);
    for (id, answer) in answers {
        let Some(Answer::RawGet(answer)) = answer else {
            panic!("another kind of answer: {answer:?}")
        };
        assert_eq!(answer.value, expected[&id], "{id}");
    }
}

#[tokio::test]
async fn what_is_ready_together_leaves_together() {
    let store = Fixture::new(V1);
    let commands = (0..600).map(|id| (id, get("k"))).collect();
    let stream = futures::stream::iter([Ok(message(commands))]);
    let messages: Vec<_> = BatchCommands::new(store.service.handlers.clone(), stream)
        .map(|m| m.expect("ends well"))
        .collect()
        .await;
    let sizes: Vec<usize> = messages.iter().map(|message| message.responses.len()).collect();
    assert_eq!(sizes, [256, 256, 88]);
    assert!(messages.iter().all(|message| message.transport_layer_load == 0));
}

/// Gets that run together are answered each by itself: by its key, its column family, its region.
#[tokio::test]
async fn gets_that_run_together_fail_alone() {
    let store = Fixture::new(V1);
    store.put("k", "v").await;
    let with = |change: &dyn Fn(&mut RawGetRequest)| {
        let mut request = RawGetRequest {
            context: Some(context(V1)),
            key: text("k"),
            ..Default::default()
        };
        change(&mut request);
        Request::RawGet(request)
    };
    let region_of = |request: &mut RawGetRequest, id| request.context.as_mut().expect("given").region_id = id;
    let commands = vec![
        (1, with(&|_| {})),
        (2, with(&|request| request.cf = "none such".to_owned())),
        (3, with(&|request| request.key = text("absent"))),
        (4, with(&|request| region_of(request, 999))),
        (5, with(&|request| region_of(request, 999))),
        (6, put("l", "w")),
        (7, with(&|_| {})),
    ];
    let mut seen: Vec<_> = batched(&store.service, vec![commands]).await;
    seen.sort_by_key(|(id, _)| *id);
    let seen: Vec<String> = seen
        .into_iter()
        .map(|(id, answer)| match answer {
            Some(Answer::RawGet(RawGetResponse {
                region_error: Some(_), ..
            })) => format!("{id} region"),
            Some(Answer::RawGet(answer)) if !answer.error.is_empty() => format!("{id} {}", answer.error),
            Some(Answer::RawGet(answer)) if answer.not_found => format!("{id} absent"),
            Some(Answer::RawGet(answer)) => format!("{id} {}", String::from_utf8_lossy(&answer.value)),
            other => format!("{id} {}", matches!(other, Some(Answer::RawPut(_)))),
        })
        .collect();
    let wanted = [
        "1 v",
        "2 no such column family for raw data",
        "3 absent",
        "4 region",
        "5 region",
        "6 true",
        "7 v",
    ];
    assert_eq!(seen, wanted);
}

#[tokio::test]
async fn empty_and_unknown_commands_are_answered() {
    let store = Fixture::new(V1);
    let empty = |test_id, delay_time| Request::Empty(BatchCommandsEmptyRequest { test_id, delay_time });
    let commands = vec![
        (1, empty(11, 0)),
        (2, Request::Flush(FlushRequest::default())),
        (3, empty(33, 1)),
        (4, get("k")),
    ];
    let answers: BTreeMap<_, _> = batched(&store.service, vec![vec![], commands]).await.into_iter().collect();
    assert_eq!(answers.len(), 4);
    assert!(matches!(&answers[&1], Some(Answer::Empty(answer)) if answer.test_id == 11));
    assert_eq!(answers[&2], None, "a command that is not served does not end the others");
    assert!(matches!(&answers[&3], Some(Answer::Empty(answer)) if answer.test_id == 33));
    assert!(matches!(&answers[&4], Some(Answer::RawGet(answer)) if answer.not_found));
}

#[tokio::test]
async fn ids_and_commands_must_be_as_many() {
    let store = Fixture::new(V1);
    let mut broken = message(vec![(1, get("k"))]);
    broken.request_ids.push(2);
    let stream = futures::stream::iter([Ok(broken)]);
    let ended: Vec<_> = BatchCommands::new(store.service.handlers.clone(), stream)
        .take(1)
        .collect()
        .await;
    let status = ended[0].as_ref().expect_err("the stream ends");
    assert_eq!(
        (status.code(), status.message()),
        (tonic::Code::InvalidArgument, "1 commands with 2 ids")
    );
}

#[tokio::test]
async fn a_fast_command_overtakes_a_slow_one() {
    let kv = SlowKv::new(false);
    let service = service(kv.clone(), V1);
    let stream = futures::stream::iter([Ok(message(vec![(1, put("k", "v")), (2, get("other"))]))]);
    let mut answers = BatchCommands::new(service.handlers.clone(), stream);
    let first = answers.next().await.expect("an answer").expect("ends well");
    assert_eq!(first.request_ids, [2]);
    assert!(futures::poll!(answers.next()).is_pending(), "the put waits for replication");
    kv.release();
    let second = answers.next().await.expect("an answer").expect("ends well");
    assert_eq!(second.request_ids, [1]);
    assert!(answers.next().await.is_none(), "the stream ends with its last answer");
}

/// Counts what is read of a stream without end.
struct Endless {
    read: Arc<AtomicUsize>,
}

impl futures::Stream for Endless {
    type Item = Result<BatchCommandsRequest, Status>;
    fn poll_next(self: Pin<&mut Self>, _: &mut std::task::Context<'_>) -> std::task::Poll<Option<Self::Item>> {
        let id = self.read.fetch_add(1, Ordering::Relaxed) as u64;
        std::task::Poll::Ready(Some(Ok(message(vec![(id, put(&id.to_string(), "v"))]))))
    }
}

#[tokio::test]
async fn a_stream_is_not_read_while_too_many_commands_wait() {
    let kv = SlowKv::new(false);
    let service = service(kv.clone(), V1);
    let read = Arc::new(AtomicUsize::new(0));
    let mut answers = BatchCommands::new(service.handlers.clone(), Endless { read: read.clone() });
    for _ in 0..10 {
        // Once more than it may: nothing is answered, so it stops by itself.
        assert!(futures::poll!(answers.next()).is_pending());
    }
    assert_eq!(kv.held(), STREAM_COMMANDS_MAX);
    let taken = read.load(Ordering::Relaxed);
    assert!(taken <= STREAM_COMMANDS_MAX + 1, "{taken} messages were read");
    for _ in 0..5 {
        kv.release();
    }
    let mut answered = 0;
    while answered < 5 {
        answered += answers.next().await.expect("an answer").expect("ends well").responses.len();
    }
    assert!(futures::poll!(answers.next()).is_pending());
    assert_eq!(kv.held(), STREAM_COMMANDS_MAX, "as many more were taken as were answered");
}

/// Writes go on although the client has gone, and leave nothing locked.
#[tokio::test]
async fn a_dropped_stream_leaves_nothing_behind() {
    let kv = SlowKv::new(false);
    let service = service(kv.clone(), V1);
    let stream = futures::stream::iter([Ok(message(vec![(1, put("k", "v"))]))]);
    let mut answers = BatchCommands::new(service.handlers.clone(), stream);
    assert!(futures::poll!(answers.next()).is_pending());
    drop(answers);
    kv.release();
    let request = RawCasRequest {
        context: Some(context(V1)),
        key: text("k"),
        value: text("w"),
        previous_value: text("v"),
        ..Default::default()
    };
    let mut swap = service.raw_compare_and_swap(tonic::Request::new(request));
    assert!(futures::poll!(&mut swap).is_pending(), "its write waits for an answer");
    let view = engine::kv::memory::TERM;
    assert_eq!(
        *kv.terms.lock(),
        [0, view],
        "once another may have led since it read, it must not write; a put may at any time"
    );
    kv.release();
    assert!(swap.await.expect("ends well").into_inner().succeed);
}
