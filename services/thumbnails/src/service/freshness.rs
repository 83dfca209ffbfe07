//! How long a result is served without asking its source, by what the source says (RFC 9111) and by our own bound.

use std::time::Duration;

use base::WallTime;

use crate::cache::Head;
use crate::source::Validators;

/// The time for which a result may still be served; `None` when the source is to be asked again.
pub fn left(head: &Head, bound: Duration, now: WallTime) -> Option<Duration> {
    let age = Duration::from_millis(now.0.saturating_sub(head.checked_ms));
    let lifetime = lifetime(&head.source).unwrap_or(bound).min(bound);
    lifetime.checked_sub(age).filter(|left| !left.is_zero())
}

/// Whether the source lets it be kept.
pub fn may_store(head: &Head) -> bool {
    let control = head.source.cache_control.as_deref().unwrap_or_default();
    !directives(control).any(|(name, _)| matches!(name, "no-store" | "private"))
}

/// What the source says.
fn lifetime(source: &Validators) -> Option<Duration> {
    let control = source.cache_control.as_deref().unwrap_or_default();
    let find = |wanted: &str| directives(control).find(|(name, _)| name.eq_ignore_ascii_case(wanted));
    if find("no-cache").is_some() || find("no-store").is_some() {
        return Some(Duration::ZERO);
    }
    // That for shared caches first.
    let seconds = find("s-maxage")
        .or_else(|| find("max-age"))
        .and_then(|(_, value)| value.parse().ok());
    seconds.map(Duration::from_secs)
}

fn directives(control: &str) -> impl Iterator<Item = (&str, &str)> {
    control.split(',').map(|directive| {
        let (name, value) = directive.split_once('=').unwrap_or((directive, ""));
        (name.trim(), value.trim().trim_matches('"'))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::sample;

    fn left_of(control: &str, age_secs: u64) -> Option<u64> {
        let mut head = sample("", 1_000_000).head;
        head.source.cache_control = Some(control.to_owned());
        let now = WallTime(1_000_000 + age_secs * 1000);
        left(&head, Duration::from_secs(100), now).map(|left| left.as_secs())
    }

    #[test]
    fn the_shorter_of_both_lifetimes_counts() {
        assert_eq!(left_of("", 40), Some(60));
        assert_eq!(left_of("", 100), None);
        assert_eq!(left_of("public, max-age=50", 40), Some(10));
        assert_eq!(left_of("max-age=50, s-maxage=\"70\"", 40), Some(30));
        assert_eq!(left_of("max-age=1000", 40), Some(60));
        assert_eq!(left_of("no-cache, max-age=50", 0), None);
        assert_eq!(left_of("max-age=x", 40), Some(60));
    }

    #[test]
    fn what_is_private_is_not_kept() {
        let mut head = sample("", 1).head;
        for (control, wanted) in [
            ("max-age=5", true),
            ("no-store", false),
            ("max-age=5, private", false),
            ("no-cache", true),
        ] {
            head.source.cache_control = Some(control.to_owned());
            assert_eq!(may_store(&head), wanted, "{control}");
        }
    }
}
