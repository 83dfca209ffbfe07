//! Structured logs to standard error, and how errors and keys stand in them.

use std::error::Error;
use std::fmt;
use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;

/// How a log line looks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// For programs: one JSON object a line.
    Json,
}

/// Sends `tracing` events at `level` (`"info"`, or a filter such as `"info,raftstore=debug"`) to standard error.
/// Errors when the filter cannot be read. A second call does nothing, so that tests may all call it.
pub fn init(level: &str, format: LogFormat) -> Result<(), String> {
    let filter = read_filter(level)?;
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal());
    let _already_set = match format {
        LogFormat::Text => builder.try_init(),
        LogFormat::Json => builder.json().try_init(),
    };
    Ok(())
}

/// Whether [`init`] would take `filter`; errors tell why not.
pub fn check_filter(filter: &str) -> Result<(), String> {
    read_filter(filter).map(drop)
}

fn read_filter(filter: &str) -> Result<EnvFilter, String> {
    // EnvFilter takes any single word for a target, so that "inof" would silence everything else.
    let words = filter.split(',').map(str::trim).filter(|word| !word.contains(['=', '[']));
    if let Some(word) = words.into_iter().find(|word| word.parse::<LevelFilter>().is_err()) {
        return Err(format!("`{word}` is not a level"));
    }
    // At the default level, libraries speak only when something is wrong.
    let quiet = if filter == "info" {
        "info,lsm_tree=warn,raft_engine=warn,pprof=warn"
    } else {
        filter
    };
    EnvFilter::try_new(quiet).map_err(|e| e.to_string())
}

/// Prints an error with all that caused it: `write raft log: no space left on device`.
pub fn chain<'a>(error: &'a (dyn Error + 'a)) -> impl fmt::Display + 'a {
    struct Chain<'a>(&'a (dyn Error + 'a));
    impl fmt::Display for Chain<'_> {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            write!(f, "{}", self.0)?;
            let mut cause = self.0.source();
            while let Some(error) = cause {
                write!(f, ": {error}")?;
                cause = error.source();
            }
            Ok(())
        }
    }
    Chain(error)
}

/// Stands for a key in logs and errors: its length and a short hash, never its bytes.
pub fn redact(key: &[u8]) -> String {
    let hash = key.iter().fold(0xcbf2_9ce4_8422_2325_u64, |h, &b| {
        (h ^ u64::from(b)).wrapping_mul(0x100_0000_01b3)
    });
    format!("key({} bytes, #{:08x})", key.len(), hash as u32)
}
