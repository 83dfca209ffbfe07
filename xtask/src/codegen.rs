//! `codegen`: files made from other files. Each is made by the code that knows its source, and stale ones fail a check.

use std::fmt::Write;
use std::fs;

use anyhow::{Context, Result};

use crate::stage::{Outcome, Report};
use crate::workspace;

/// Regenerate the files made from other files.
///
///   config.example.toml, docs/configuration.md   from the docs of the options
///   docs/wire.md                                 from the services in crates/proto/proto
///
/// Rust code of the .proto files is made by cargo at build time and is not kept. Stale files fail
/// `cargo xtask check` (the wire) and `cargo xtask test` (the configuration).
#[derive(clap::Args)]
#[command(verbatim_doc_comment)]
pub struct Args {}

const WIRE_PAGE: &str = "docs/wire.md";

pub fn run(_args: &Args) -> Result<bool> {
    let mut report = Report::new("codegen");
    report.stage("wire", || stage(false));
    // The server's own test knows how; BLESS makes it write what it would compare.
    let mut config = workspace::cargo(&[
        "test",
        "--locked",
        "--quiet",
        "--package",
        "ferrite-server",
        "--lib",
        "config::docs",
    ]);
    report.command("configuration", config.env("BLESS", "1"));
    Ok(report.finish())
}

/// Writes the page of RPCs, or only compares (`check`).
pub fn stage(check: bool) -> Result<Outcome> {
    let page = wire_page(&services()?);
    let path = workspace::root().join(WIRE_PAGE);
    if fs::read_to_string(&path).unwrap_or_default() == page {
        return Ok(Outcome::Passed);
    }
    if check {
        eprintln!("{WIRE_PAGE} is stale; run: cargo xtask codegen");
        return Ok(Outcome::Failed);
    }
    fs::write(&path, page).with_context(|| format!("write {WIRE_PAGE}"))?;
    eprintln!("wrote {WIRE_PAGE}");
    Ok(Outcome::Passed)
}

/// A service of a .proto file.
#[derive(Debug, PartialEq)]
struct Service {
    file: String,
    /// With its package: `tikvpb.Tikv`.
    name: String,
    rpcs: Vec<Rpc>,
}

#[derive(Debug, PartialEq)]
struct Rpc {
    name: String,
    request: String,
    answer: String,
}

fn services() -> Result<Vec<Service>> {
    let folder = workspace::root().join("crates/proto/proto");
    let mut files: Vec<_> = fs::read_dir(&folder)
        .context("read crates/proto/proto")?
        .collect::<Result<_, _>>()?;
    files.sort_by_key(|file| file.file_name());
    let mut found = Vec::new();
    for file in files {
        let name = file.file_name().to_string_lossy().into_owned();
        if name.ends_with(".proto") {
            found.extend(parse(&name, &fs::read_to_string(file.path())?));
        }
    }
    Ok(found)
}

/// Reads services from the text of a .proto file, as our own files are laid out: comments on `//`, an `rpc` ends with `;` or `{}`.
fn parse(file: &str, text: &str) -> Vec<Service> {
    let code: String = text
        .lines()
        .map(|line| line.split("//").next().unwrap_or_default())
        .collect::<Vec<_>>()
        .join(" ");
    let package = code
        .split("package ")
        .nth(1)
        .and_then(|rest| rest.split(';').next())
        .unwrap_or_default()
        .trim();
    let mut services = Vec::new();
    for block in code.split("service ").skip(1) {
        let (name, body) = block.split_once('{').unwrap_or((block, ""));
        let body = body.split("message ").next().unwrap_or_default();
        let rpcs = body.split("rpc ").skip(1).filter_map(parse_rpc).collect();
        services.push(Service {
            file: file.to_owned(),
            name: format!("{package}.{}", name.trim()),
            rpcs,
        });
    }
    services
}

/// `Name(stream Request) returns (Answer)`.
fn parse_rpc(text: &str) -> Option<Rpc> {
    let (name, rest) = text.split_once('(')?;
    let (request, rest) = rest.split_once(')')?;
    let (_, rest) = rest.split_once('(')?;
    let (answer, _) = rest.split_once(')')?;
    let clean = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
    Some(Rpc {
        name: clean(name),
        request: clean(request),
        answer: clean(answer),
    })
}

fn wire_page(services: &[Service]) -> String {
    let mut page = String::from(
        "# The wire\n\n\
         <!-- Made from crates/proto/proto by `cargo xtask codegen`; change the .proto files instead. -->\n\n\
         Every service whose messages Ferrite knows. An RPC that is known but not served yet answers `UNIMPLEMENTED`, on which clients\n\
         fall back; [README.md](../README.md) tells what is served. `stream` marks a side that sends many messages.\n",
    );
    for service in services {
        let _ = write!(
            page,
            "\n## `{}`\n\n[{file}](../crates/proto/proto/{file})\n\n| RPC | request | answer |\n|---|---|---|\n",
            service.name,
            file = service.file
        );
        for rpc in &service.rpcs {
            let _ = writeln!(page, "| {} | {} | {} |", rpc.name, rpc.request, rpc.answer);
        }
    }
    page
}

#[cfg(test)]
mod tests {
    use super::*;

    const PROTO: &str = "syntax = \"proto3\";\npackage demo;\n// The service of it.\nservice Demo {\n  // rpc Old(A) returns (B);\n  rpc Get(GetRequest) \
                         returns (GetResponse);\n  rpc Watch(stream W)\n      returns (stream V) {}\n}\nmessage GetRequest { bytes key = 1; }\n";

    #[test]
    fn services_and_streams_are_read() {
        let found = parse("demo.proto", PROTO);
        let rpc = |name: &str, request: &str, answer: &str| Rpc {
            name: name.into(),
            request: request.into(),
            answer: answer.into(),
        };
        let rpcs = vec![rpc("Get", "GetRequest", "GetResponse"), rpc("Watch", "stream W", "stream V")];
        assert_eq!(
            found,
            [Service {
                file: "demo.proto".into(),
                name: "demo.Demo".into(),
                rpcs
            }]
        );
    }

    #[test]
    fn the_page_has_a_row_per_rpc() {
        let page = wire_page(&parse("demo.proto", PROTO));
        assert!(page.contains("## `demo.Demo`"));
        assert!(page.contains("| Watch | stream W | stream V |"));
    }
}
