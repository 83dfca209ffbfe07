use clap::Parser;
use serde_json::json;

use super::*;

#[test]
fn bytes_print_as_they_are_typed() {
    let all: Vec<u8> = (0..=255).collect();
    for form in [Form::Plain, Form::Hex] {
        assert_eq!(form.parse(&form.print(&all)).expect("what is printed can be typed"), all);
    }
    assert_eq!(Form::Plain.print(b"a\\b\n\xff~"), r"a\\b\n\xff~");
    assert_eq!(Form::Hex.print(b"a\n"), "610a");
    assert_eq!(Form::Plain.parse("é").expect("UTF-8"), "é".as_bytes());
    assert_eq!(Form::Hex.parse("0aFF").expect("both cases"), &b"\x0a\xff"[..]);
}

#[test]
fn bad_escapes_are_told() {
    for (form, text) in [
        (Form::Plain, r"a\q"),
        (Form::Plain, r"a\"),
        (Form::Plain, r"\x1"),
        (Form::Plain, r"\xgg"),
        (Form::Hex, "abc"),
        (Form::Hex, "zz"),
    ] {
        let error = form.parse(text).expect_err(text);
        assert!(error.to_string().starts_with(&format!("`{text}` cannot be read")), "{error}");
    }
}

fn printed(json: bool, print: impl Fn(&mut Output<&mut Vec<u8>>) -> io::Result<()>) -> String {
    let mut bytes = Vec::new();
    print(&mut Output::new(&mut bytes, json, Form::Plain)).expect("memory takes it");
    String::from_utf8(bytes).expect("text")
}

#[test]
fn tables_for_people_and_lines_for_programs() {
    let rows = || {
        vec![
            vec![("id", json!(1)), ("address", json!("a:1"))],
            vec![("id", json!(20)), ("address", json!(null))],
        ]
    };
    assert_eq!(printed(false, |out| out.table(rows())), "ID  ADDRESS\n1   a:1\n20  -\n");
    assert_eq!(
        printed(true, |out| out.table(rows())),
        "{\"address\":\"a:1\",\"id\":1}\n{\"address\":null,\"id\":20}\n"
    );
    assert_eq!(printed(false, |out| out.card(rows().remove(0))), "id       1\naddress  a:1\n");
    assert_eq!(
        printed(false, |out| out.row(vec![("k", json!("a")), ("v", json!([1, 2]))])),
        "a\t1,2\n"
    );
    assert_eq!(printed(false, |out| out.table(vec![])), "");
}

#[derive(Debug, Parser)]
struct Cli {
    #[command(flatten)]
    args: Args,
}

fn parse(line: &str) -> Result<Args, clap::Error> {
    Cli::try_parse_from(std::iter::once("ctl").chain(line.split_whitespace())).map(|cli| cli.args)
}

#[test]
fn command_lines() {
    for good in [
        "get k",
        "get k --json --hex",
        "--pd-addr a:1,b:2 put k v --ttl 90s",
        "scan",
        "scan a b --limit 5 --reverse --keys-only",
        "scan --prefix p --keyspace 7",
        "store",
        "store 4 --timeout 300ms",
        "region",
        "region 7",
        "region --key k",
        "member",
        "tso",
        "txn --keyspace 7 --hex",
    ] {
        assert!(parse(good).is_ok(), "{good}: {}", parse(good).expect_err("bad"));
    }
    for bad in [
        "",
        "get",
        "put k",
        "put k v --ttl 5",
        "scan a --prefix p",
        "region 7 --key k",
        "store x",
        "tso --timeout 5",
    ] {
        assert!(parse(bad).is_err(), "{bad}");
    }
}

#[test]
fn a_reader_that_went_away_is_no_error() {
    let out = || Output::new(Vec::new(), false, Form::Plain);
    let broken = io::Error::from(io::ErrorKind::BrokenPipe);
    assert_eq!(finish(Err(broken.into()), out()).expect("no error"), ExitCode::SUCCESS);
    assert_eq!(finish(Ok(false), out()).expect("no error"), ExitCode::from(1));
    assert!(finish(Err(io::Error::from(io::ErrorKind::StorageFull).into()), out()).is_err());
}

#[tokio::test]
async fn an_unreachable_cluster_is_told_with_its_address() {
    let args = parse("get k --pd-addr 127.0.0.1:1 --timeout 100ms").expect("good");
    let error = run(args).await.expect_err("nobody listens on port 1");
    let text = format!("{error:#}");
    assert!(
        text.contains("http://127.0.0.1:1") && text.contains("is the cluster up"),
        "{text}"
    );
}
