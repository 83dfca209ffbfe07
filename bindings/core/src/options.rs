//! Options as text, `name=value` parted by commas: a new option changes no signature, and every language tells the same faults.

use std::str::FromStr;
use std::time::Duration;

use base::Span;
use client::{Api, ClientOptions, Keyspace, LockWait, ScanOptions, TlsOptions, TxnOptions};

use crate::Failure;

/// Options of a client: `deadline=500ms,keyspace=orders`. See the fields of [`ClientOptions`] for what they mean; `keyspace` and
/// `keyspace-id` choose API V2; `ca`, `cert` and `key` are TLS, each the path of a PEM file (without a comma) or PEM text itself.
pub fn client(text: &str) -> Result<ClientOptions, Failure> {
    let mut options = ClientOptions::default();
    let [mut ca, mut cert, mut key] = [""; 3];
    for (name, value) in pairs(text)? {
        match name {
            "deadline" => options.deadline = time(name, value)?,
            "keyspace" => options.api = Api::V2(Keyspace::Name(value.to_owned())),
            "keyspace-id" => options.api = Api::V2(Keyspace::Id(parse(name, value, "a number below 16777216")?)),
            "batch-commands" => options.batch_commands = flag(name, value)?,
            "connections" => options.connections = connections(name, value)?,
            "retry-undetermined" => options.retry_undetermined = flag(name, value)?,
            "answer-bytes-max" => options.answer_bytes_max = parse(name, value, "a number of bytes")?,
            "ca" => ca = value,
            "cert" => cert = value,
            "key" => key = value,
            _ => {
                return Err(unknown(
                    name,
                    "deadline, keyspace, keyspace-id, batch-commands, connections, retry-undetermined, answer-bytes-max, ca, cert, key",
                ));
            }
        }
    }
    let tls = TlsOptions::of_options(ca, cert, key);
    options.tls = tls.map_err(|missing| Failure::configuration(format!("options ca, cert and key: {missing}")))?;
    Ok(options)
}

/// Options of a transaction: `pessimistic,lock-wait=no`. See the fields of [`TxnOptions`].
pub fn txn(text: &str) -> Result<TxnOptions, Failure> {
    let mut options = TxnOptions::default();
    for (name, value) in pairs(text)? {
        match name {
            "pessimistic" => options.pessimistic = flag(name, value)?,
            "async-commit" => options.async_commit = flag(name, value)?,
            "one-phase" => options.one_phase = flag(name, value)?,
            "causal" => options.causal = flag(name, value)?,
            "deadline" => options.deadline = Some(time(name, value)?),
            "lock-wait" => {
                options.lock_wait = match value {
                    "deadline" => LockWait::Deadline,
                    "no" => LockWait::No,
                    _ => LockWait::For(time(name, value)?),
                }
            }
            _ => {
                return Err(unknown(
                    name,
                    "pessimistic, async-commit, one-phase, causal, deadline, lock-wait",
                ));
            }
        }
    }
    Ok(options)
}

/// How a scan goes; a limit of 0 is none.
pub fn scan(limit: u64, reverse: bool, keys_only: bool) -> ScanOptions {
    let limit = match usize::try_from(limit) {
        Ok(0) | Err(_) => usize::MAX,
        Ok(limit) => limit,
    };
    ScanOptions {
        limit,
        reverse,
        keys_only,
    }
}

/// Endpoints parted by commas.
pub fn endpoints(text: &str) -> Result<Vec<String>, Failure> {
    let endpoints: Vec<String> = text
        .split(',')
        .map(|endpoint| endpoint.trim().to_owned())
        .filter(|endpoint| !endpoint.is_empty())
        .collect();
    match endpoints.is_empty() {
        true => Err(Failure::configuration(
            "no endpoint was given: wanted those of the placement driver, such as 127.0.0.1:2379".into(),
        )),
        false => Ok(endpoints),
    }
}

/// A name alone stands for `name=true`.
fn pairs(text: &str) -> Result<Vec<(&str, &str)>, Failure> {
    let entries = text.split(',').map(str::trim).filter(|entry| !entry.is_empty());
    let pairs: Vec<(&str, &str)> = entries
        .map(|entry| entry.split_once('=').unwrap_or((entry, "true")))
        .map(|(name, value)| (name.trim(), value.trim()))
        .collect();
    let mut names: Vec<_> = pairs.iter().map(|(name, _)| name).collect();
    names.sort();
    match names.windows(2).find(|two| two[0] == two[1]) {
        Some(twice) => Err(Failure::configuration(format!("option `{}` is given twice", twice[0]))),
        None => Ok(pairs),
    }
}

fn parse<T: FromStr>(name: &str, value: &str, wanted: &str) -> Result<T, Failure> {
    value
        .parse()
        .map_err(|_| Failure::configuration(format!("{name}={value}: wanted {wanted}")))
}

fn flag(name: &str, value: &str) -> Result<bool, Failure> {
    parse(name, value, "true or false")
}

fn time(name: &str, value: &str) -> Result<Duration, Failure> {
    parse::<Span>(name, value, "a time such as 500ms or 5s").map(|span| span.0)
}

fn connections(name: &str, value: &str) -> Result<usize, Failure> {
    match parse(name, value, "a number from 1 to 64")? {
        count @ 1..=64 => Ok(count),
        _ => Err(Failure::configuration(format!(
            "{name}={value}: wanted a number from 1 to 64"
        ))),
    }
}

fn unknown(name: &str, known: &str) -> Failure {
    Failure::configuration(format!("there is no option `{name}`: wanted one of {known}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_read() {
        let options = client("deadline=500ms, keyspace-id=7,batch-commands=false,connections=2").expect("good");
        assert_eq!(options.deadline, Duration::from_millis(500));
        assert_eq!(options.api, Api::V2(Keyspace::Id(7)));
        assert_eq!((options.batch_commands, options.connections), (false, 2));
        assert_eq!(client("").expect("good").api, Api::V1);
        let options = txn("pessimistic,lock-wait=50ms,one-phase=false").expect("good");
        assert!(options.pessimistic && !options.one_phase && options.async_commit);
        assert_eq!(options.lock_wait, LockWait::For(Duration::from_millis(50)));
        assert_eq!(txn("lock-wait=no").expect("good").lock_wait, LockWait::No);
    }

    #[test]
    fn certificates_are_files_or_text() {
        let text = "-----BEGIN CERTIFICATE-----\nMIIB+/==\n-----END CERTIFICATE-----";
        let tls = client(&format!("ca={text},cert=a/b.pem,key=a/b.key"))
            .expect("good")
            .tls
            .expect("asked for");
        assert_eq!(tls.authority, ::client::Pem::Text(text.as_bytes().into()));
        assert_eq!(
            tls.identity.expect("both are there").key,
            ::client::Pem::File("a/b.key".into())
        );
        assert_eq!(client("deadline=1s").expect("good").tls, None);
        for (text, missing) in [("ca=c,cert=a", "go together"), ("cert=a,key=b", "need ca")] {
            let told = client(text).expect_err(text).message;
            assert!(told.contains(missing), "{told}");
        }
    }

    #[test]
    fn faults_name_the_option_and_what_was_wanted() {
        let told = |text| client(text).expect_err(text).message;
        assert!(told("speed=high").contains("no option `speed`"));
        assert!(told("deadline=soon").contains("500ms"));
        assert!(told("connections=0").contains("1 to 64"));
        assert!(told("deadline=1s,deadline=2s").contains("twice"));
        assert!(txn("pessimistic=maybe").expect_err("bad").message.contains("true or false"));
        assert!(endpoints(" , ").is_err());
        assert_eq!(endpoints("a:1, b:2").expect("good"), ["a:1", "b:2"]);
    }
}
