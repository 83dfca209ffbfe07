//! Transactions, blocking commands and subscriptions, beside bystanders who must notice nothing.

use crate::harness::*;

/// Bystanders, as many as the issue asks for.
const BYSTANDERS: usize = 30;

#[test]
fn thirty_bystanders_never_see_anothers_state() {
    let server = redis();
    let proxy = Proxy::start(&pool(&[&server], ""));
    let mut bystanders: Vec<_> = (0..BYSTANDERS).map(|_| proxy.client()).collect();
    let mut check = |when: &str| {
        for (number, client) in bystanders.iter_mut().enumerate() {
            assert_eq!(client.ask(&format!("SET by{number} {number}")), "OK", "{when}");
            assert_eq!(client.ask(&format!("GET by{number}")), number.to_string(), "{when}");
            assert_eq!(client.ask("GET secret"), "(nil)", "{when}");
        }
    };
    check("before");
    let mut database = proxy.client();
    assert_eq!(database.ask("SELECT 3"), "OK");
    assert_eq!(database.ask("SET secret x"), "OK");
    check("another selected a database");
    let mut multi = proxy.client();
    assert_eq!(multi.ask("WATCH w"), "OK");
    assert_eq!(multi.ask("MULTI"), "OK");
    assert_eq!(multi.ask("SET w 1"), "QUEUED");
    check("another is in a transaction");
    let mut subscriber = proxy.client();
    assert_eq!(subscriber.ask("SUBSCRIBE news"), "[subscribe news 1]");
    check("another is subscribed");
    let mut blocked = proxy.client();
    blocked.command("BLPOP queue 0");
    check("another is blocked");
    let mut modern = proxy.client();
    modern.command("HELLO 3");
    modern.reply();
    check("another speaks version 3");
    assert_eq!(database.ask("GET secret"), "x");
    assert_eq!(multi.ask("EXEC"), "[OK]");
    let mut other = proxy.client();
    assert_eq!(other.ask("PUBLISH news hello"), "1");
    assert_eq!(subscriber.answer(), "[message news hello]");
    assert_eq!(other.ask("LPUSH queue item"), "1");
    assert_eq!(blocked.answer(), "[queue item]");
    assert_eq!(blocked.ask("GET w"), "1");
    // They leave in the middle of it.
    multi.ask("MULTI");
    multi.ask("SET secret y");
    blocked.command("BLPOP queue 0");
    drop((multi, blocked, subscriber, database, modern));
    check("others left in the middle");
    assert_eq!(other.ask("LPUSH queue kept"), "1");
    assert_eq!(other.ask("LLEN queue"), "1");
    // One leaves with requests behind a blocking one.
    let mut leaver = proxy.client();
    leaver.command("BLPOP elsewhere 0");
    leaver.command("GET x");
    let blocked = |server: &Server| {
        Client::connect(&server.addr)
            .ask("INFO clients")
            .contains("blocked_clients:1")
    };
    eventually("it waits", || blocked(&server));
    drop(leaver);
    eventually("nothing waits for who is gone", || !blocked(&server));
}

#[test]
fn transactions_behave_as_at_a_server() {
    let servers = [redis(), redis()];
    let proxy = Proxy::start(&pool(&servers.each_ref(), "hash-tag = \"{}\"\nhash = \"murmur\""));
    let (mut a, mut b) = (proxy.client(), proxy.client());
    assert_eq!(a.ask("MULTI"), "OK");
    assert_eq!(a.ask("EXEC"), "[]");
    // A whole one in one write, with an ordinary request before and after it.
    for words in ["SET {t}1 0", "MULTI", "INCR {t}1", "INCRBY {t}1 5", "EXEC", "GET {t}1"] {
        a.command(words);
    }
    let answers: Vec<_> = (0..6).map(|_| a.answer()).collect();
    assert_eq!(answers, ["OK", "OK", "QUEUED", "QUEUED", "[1 6]", "6"]);
    // A watched key that changes.
    assert_eq!(a.ask("WATCH {t}1"), "OK");
    assert_eq!(b.ask("SET {t}1 9"), "OK");
    assert_eq!(a.ask("MULTI"), "OK");
    assert_eq!(a.ask("SET {t}1 1"), "QUEUED");
    assert_eq!(a.ask("EXEC"), "(nil)");
    assert_eq!(a.ask("GET {t}1"), "9");
    // A request that fails when queued.
    a.ask("MULTI");
    assert!(a.ask("NOSUCH x").starts_with("!ERR unknown"));
    assert_eq!(a.ask("SET {t}1 1"), "QUEUED");
    assert!(a.ask("EXEC").starts_with("!EXECABORT"));
    assert_eq!(a.ask("GET {t}1"), "9");
    a.ask("MULTI");
    a.ask("SET {t}1 1");
    assert_eq!(a.ask("DISCARD"), "OK");
    assert_eq!(a.ask("GET {t}1"), "9");
    // Keys of two servers.
    a.ask("MULTI");
    let refused = (0..50).any(|number| a.ask(&format!("SET k{number} 1")).starts_with("!CROSSSLOT"));
    assert!(refused);
    assert!(a.ask("EXEC").starts_with("!EXECABORT"));
    assert!(a.ask("EXEC").starts_with("!ERR EXEC without MULTI"));
}

#[test]
fn blocking_commands_keep_the_order_of_a_pipeline() {
    let server = redis();
    let proxy = Proxy::start(&pool(&[&server], "timeout-request = \"100ms\""));
    let (mut a, mut b) = (proxy.client(), proxy.client());
    for words in ["LPUSH q first", "BLPOP q 0", "BLPOP q 0", "SET after 1", "GET after"] {
        a.command(words);
    }
    assert_eq!(a.answer(), "1");
    assert_eq!(a.answer(), "[q first]");
    assert_eq!(b.ask("GET after"), "(nil)");
    eventually("it waits longer than ordinary requests may", || {
        !b.ask("CLIENT ID").is_empty() && b.ask("GET after") == "(nil)"
    });
    assert_eq!(b.ask("LPUSH q second"), "1");
    assert_eq!([a.answer(), a.answer(), a.answer()], ["[q second]", "OK", "1"]);
    assert_eq!(a.ask("BLPOP q 0.05"), "(nil)");
    assert_eq!(a.ask("XADD s 1-1 f v"), "1-1");
    assert_eq!(a.ask("XREAD COUNT 1 STREAMS s 0"), "[[s [[1-1 [f v]]]]]");
}

#[test]
fn subscriptions_by_both_versions() {
    let server = redis();
    let proxy = Proxy::start(&pool(&[&server], ""));
    let mut publisher = proxy.client();
    let mut old = proxy.client();
    assert_eq!(old.ask("SUBSCRIBE a b"), "[subscribe a 1]");
    assert_eq!(old.answer(), "[subscribe b 2]");
    assert_eq!(old.ask("PSUBSCRIBE n*"), "[psubscribe n* 3]");
    assert!(old.ask("GET x").contains("only (P|S)SUBSCRIBE"));
    assert_eq!(old.ask("PING"), "[pong ]");
    assert_eq!(publisher.ask("PUBLISH b 1"), "1");
    assert_eq!(old.answer(), "[message b 1]");
    assert_eq!(publisher.ask("PUBLISH news 2"), "1");
    assert_eq!(old.answer(), "[pmessage n* news 2]");
    assert_eq!(old.ask("UNSUBSCRIBE a b"), "[unsubscribe a 2]");
    assert_eq!(old.answer(), "[unsubscribe b 1]");
    assert_eq!(old.ask("PUNSUBSCRIBE"), "[punsubscribe n* 0]");
    assert_eq!(old.ask("SET x 1"), "OK");
    // Version 3 goes on with other commands meanwhile.
    let mut new = proxy.client();
    new.command("HELLO 3");
    new.reply();
    new.command("SUBSCRIBE c");
    assert_eq!(new.reply().expect("a push"), b">3\r\n$9\r\nsubscribe\r\n$1\r\nc\r\n:1\r\n");
    assert_eq!(new.ask("GET x"), "1");
    assert_eq!(publisher.ask("PUBLISH c 3"), "1");
    assert_eq!(new.reply().expect("a push"), b">3\r\n$7\r\nmessage\r\n$1\r\nc\r\n$1\r\n3\r\n");
    assert_eq!(new.ask("SSUBSCRIBE shard"), "[ssubscribe shard 1]");
    drop(new);
    eventually("the subscription is gone", || publisher.ask("PUBLISH c 4") == "0");
}
