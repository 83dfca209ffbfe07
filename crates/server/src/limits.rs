//! Bounds on what clients may ask at once, and what happens at each: one table, `docs/limits.md`, which a test compares with
//! the constants here. Also deadlines, and [`Admission`], the bound on requests in flight.

use std::time::Duration;

use tokio::sync::{Semaphore, SemaphorePermit};
use tonic::metadata::MetadataMap;

/// Longest key, as the client sends it. Borders of ranges are bounded by the message alone.
pub const KEY_BYTES_MAX: usize = 8 << 10;
/// Keys, pairs or ranges in one request.
pub const BATCH_KEYS_MAX: usize = 65_536;
/// Keys and values in one answer. Clients whose own limit is lower (4 MiB in the Rust client) must ask for less themselves: an
/// answer cut short would mean that there is no more.
pub const ANSWER_BYTES_MAX: usize = 64 << 20;
/// Commands of one `BatchCommands` stream that are not answered yet. Beyond, the stream is not read on.
pub const STREAM_COMMANDS_MAX: usize = 1024;
/// Requests in flight in the process. More wait, then are refused.
pub const REQUESTS_MAX: usize = 16_384;
/// How long a request waits for its turn before it is refused.
pub const REQUEST_WAIT_MAX: Duration = Duration::from_millis(500);
/// How long a request that a full queue below refuses is tried again.
pub const BUSY_WAIT_MAX: Duration = Duration::from_millis(500);
/// The first pause before another try; each further one is twice as long.
pub const BUSY_PAUSE: Duration = Duration::from_millis(2);
/// How long a request may take when the client sets no time itself, and the most that it may set.
pub const DEADLINE_DEFAULT: Duration = Duration::from_secs(10);
pub const DEADLINE_MAX: Duration = Duration::from_secs(600);

/// Time a request may take: what the call's metadata or the request's context say, whichever is shorter.
pub fn time_allowed(timeout: Option<Duration>, max_execution_ms: u64) -> Duration {
    let context = (max_execution_ms != 0).then(|| Duration::from_millis(max_execution_ms));
    [timeout, context]
        .into_iter()
        .flatten()
        .min()
        .unwrap_or(DEADLINE_DEFAULT)
        .min(DEADLINE_MAX)
}

/// Reads the header `grpc-timeout`: up to eight digits and a unit. What is malformed counts as absent.
pub fn grpc_timeout(metadata: &MetadataMap) -> Option<Duration> {
    let text = metadata.get("grpc-timeout")?.to_str().ok()?;
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if digits.is_empty() || digits.len() > 8 || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let number: u64 = digits.parse().ok()?;
    match unit {
        "H" => Some(Duration::from_secs(number * 3600)),
        "M" => Some(Duration::from_secs(number * 60)),
        "S" => Some(Duration::from_secs(number)),
        "m" => Some(Duration::from_millis(number)),
        "u" => Some(Duration::from_micros(number)),
        "n" => Some(Duration::from_nanos(number)),
        _ => None,
    }
}

/// Bounds the requests in flight in the process; whoever comes beyond waits, in order of arrival, but not for long.
pub struct Admission {
    places: Semaphore,
    wait: Duration,
}

impl Default for Admission {
    fn default() -> Admission {
        Admission::new(REQUESTS_MAX, REQUEST_WAIT_MAX)
    }
}

impl Admission {
    pub fn new(places: usize, wait: Duration) -> Admission {
        Admission {
            places: Semaphore::new(places),
            wait,
        }
    }

    /// Places for `requests` that run together, held while they do; `None` when they did not come free in time.
    pub async fn enter(&self, requests: usize) -> Option<SemaphorePermit<'_>> {
        let places = u32::try_from(requests).expect("a stream has a thousand commands at most");
        if let Ok(held) = self.places.try_acquire_many(places) {
            return Some(held);
        }
        let held = tokio::time::timeout(self.wait, self.places.acquire_many(places)).await.ok()?;
        Some(held.expect("the semaphore is never closed"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::listen::MESSAGE_MAX;

    /// Each row of the page begins with what it is about and its bound.
    #[test]
    fn the_page_tells_the_constants() {
        let page = include_str!("../../../docs/limits.md");
        let rows = [
            ("request message", format!("{} MiB", MESSAGE_MAX >> 20)),
            ("key, as the client sends it", format!("{} KiB", KEY_BYTES_MAX >> 10)),
            ("keys, pairs or ranges in one request", BATCH_KEYS_MAX.to_string()),
            ("keys and values in one answer", format!("{} MiB", ANSWER_BYTES_MAX >> 20)),
            (
                "commands of one BatchCommands stream without an answer",
                STREAM_COMMANDS_MAX.to_string(),
            ),
            ("requests in flight in the process", REQUESTS_MAX.to_string()),
            ("wait for a place among them", format!("{} ms", REQUEST_WAIT_MAX.as_millis())),
            (
                "time for a request that sets none itself",
                format!("{} s", DEADLINE_DEFAULT.as_secs()),
            ),
            ("time that a request may set", format!("{} s", DEADLINE_MAX.as_secs())),
        ];
        for (what, bound) in rows {
            let row = format!("| {what} | {bound} |");
            assert!(page.contains(&row), "docs/limits.md has no row `{row}`");
        }
    }

    #[test]
    fn the_shorter_time_counts() {
        let (s, ms) = (Duration::from_secs, Duration::from_millis);
        let cases = [
            (None, 0, DEADLINE_DEFAULT),
            (Some(s(2)), 0, s(2)),
            (None, 300, ms(300)),
            (Some(s(2)), 300, ms(300)),
            (Some(ms(100)), 300, ms(100)),
            (Some(s(3600)), 0, DEADLINE_MAX),
            (None, u64::MAX, DEADLINE_MAX),
        ];
        for (timeout, context, allowed) in cases {
            assert_eq!(time_allowed(timeout, context), allowed, "{timeout:?} {context}");
        }
    }

    #[test]
    fn reads_grpc_timeouts() {
        let read = |text: &'static str| {
            let mut metadata = MetadataMap::new();
            metadata.insert("grpc-timeout", tonic::metadata::MetadataValue::from_static(text));
            grpc_timeout(&metadata)
        };
        for (text, millis) in [
            ("1H", 3_600_000),
            ("2M", 120_000),
            ("3S", 3000),
            ("4m", 4),
            ("5000u", 5),
            ("6000000n", 6),
            ("99999999m", 99_999_999),
        ] {
            assert_eq!(read(text), Some(Duration::from_millis(millis)), "{text}");
        }
        for text in ["", "5", "S", "123456789S", "-1S", "+1S", "1.5S", "5 S", "5s"] {
            assert_eq!(read(text), None, "{text}");
        }
        assert_eq!(grpc_timeout(&MetadataMap::new()), None);
    }

    #[tokio::test]
    async fn waits_for_a_place_and_then_refuses() {
        let admission = Admission::new(1, Duration::from_millis(5));
        let held = admission.enter(1).await.expect("free");
        assert!(admission.enter(1).await.is_none(), "refused after the wait");
        drop(held);
        assert!(admission.enter(1).await.is_some(), "free again");
        let patient = Admission::new(1, Duration::from_secs(60));
        let held = patient.enter(1).await.expect("free");
        let (place, ()) = tokio::join!(patient.enter(1), async { drop(held) });
        assert!(place.is_some(), "came free while waiting");
    }
}
