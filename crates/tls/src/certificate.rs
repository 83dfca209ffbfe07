//! The few facts of a certificate that rustls does not tell: its time and its common name. A reader of DER without allocation, that
//! never looks past what it was given.

const SEQUENCE: u8 = 0x30;
const SET: u8 = 0x31;
const OBJECT_ID: u8 = 0x06;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;
/// UTF-8, printable, teletex and IA5 strings.
const STRINGS: [u8; 4] = [0x0c, 0x13, 0x14, 0x16];
/// `[0]` before the version, which the first version lacks.
const VERSION: u8 = 0xa0;
/// 2.5.4.3, the common name.
const COMMON_NAME: [u8; 3] = [0x55, 0x04, 0x03];

/// What [`Facts::read`] finds. Times are seconds since 1970.
#[derive(Debug, PartialEq, Eq)]
pub struct Facts {
    pub not_before: i64,
    pub not_after: i64,
    /// Of the subject; in practice one.
    pub common_names: Vec<String>,
}

impl Facts {
    /// Of a certificate in DER; `None` if it is none.
    pub fn read(certificate: &[u8]) -> Option<Facts> {
        let mut body = Der(Der(certificate).take(SEQUENCE)?);
        let mut fields = Der(body.take(SEQUENCE)?);
        let (first, _) = fields.next()?;
        if first == VERSION {
            fields.next()?; // serial number
        }
        fields.take(SEQUENCE)?; // algorithm of the signature
        fields.take(SEQUENCE)?; // issuer
        let mut validity = Der(fields.take(SEQUENCE)?);
        let (not_before, not_after) = (time(validity.next()?)?, time(validity.next()?)?);
        let common_names = common_names(fields.take(SEQUENCE)?);
        Some(Facts {
            not_before,
            not_after,
            common_names,
        })
    }
}

fn common_names(subject: &[u8]) -> Vec<String> {
    let mut found = Vec::new();
    let mut sets = Der(subject);
    while let Some(set) = sets.take(SET) {
        let mut pairs = Der(set);
        while let Some(pair) = pairs.take(SEQUENCE) {
            let mut pair = Der(pair);
            if pair.take(OBJECT_ID) == Some(&COMMON_NAME)
                && let Some((kind, value)) = pair.next()
                && STRINGS.contains(&kind)
                && let Ok(name) = std::str::from_utf8(value)
            {
                found.push(name.to_owned());
            }
        }
    }
    found
}

/// What is left to read.
struct Der<'a>(&'a [u8]);

impl<'a> Der<'a> {
    /// The next value with its tag.
    fn next(&mut self) -> Option<(u8, &'a [u8])> {
        let (&tag, rest) = self.0.split_first()?;
        let (&first, mut rest) = rest.split_first()?;
        let mut length = usize::from(first);
        if first & 0x80 != 0 {
            let count = usize::from(first & 0x7f);
            if !(1..=4).contains(&count) {
                return None;
            }
            let (bytes, after) = rest.split_at_checked(count)?;
            length = bytes.iter().fold(0, |length, &byte| length << 8 | usize::from(byte));
            rest = after;
        }
        let (value, rest) = rest.split_at_checked(length)?;
        self.0 = rest;
        Some((tag, value))
    }

    /// The next value, if it has this tag.
    fn take(&mut self, wanted: u8) -> Option<&'a [u8]> {
        self.next().filter(|(tag, _)| *tag == wanted).map(|(_, value)| value)
    }
}

/// `YYMMDDhhmmssZ`, or with all four digits of the year.
fn time((kind, text): (u8, &[u8])) -> Option<i64> {
    let (year_digits, text) = match kind {
        UTC_TIME => (2, text),
        GENERALIZED_TIME => (4, text),
        _ => return None,
    };
    let digits = text.strip_suffix(b"Z")?;
    if digits.len() != year_digits + 10 || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let number = |digits: &[u8]| {
        digits
            .iter()
            .fold(0_i64, |number, digit| number * 10 + i64::from(digit - b'0'))
    };
    let (year, rest) = digits.split_at_checked(year_digits)?;
    let year = match (year_digits, number(year)) {
        (2, year @ 50..) => 1900 + year,
        (2, year) => 2000 + year,
        (_, year) => year,
    };
    let parts: Vec<i64> = rest.chunks(2).map(number).collect();
    let &[month, day, hour, minute, second] = parts.as_slice() else {
        return None;
    };
    ((1..=12).contains(&month)).then(|| days(year, month, day) * 86_400 + hour * 3_600 + minute * 60 + second)
}

/// Days from 1970 to a date, by the calendar of today. Years are counted from March, so that the leap day is their last.
fn days(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    year * 365 + year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400) + day_of_year - 719_468
}

/// Seconds since 1970 for people: `2026-01-31 12:00:00 UTC`.
pub fn utc(seconds: i64) -> String {
    let (date, time) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
    // The year that is begun, found from below.
    let year = (1970 + date / 366 - 1..)
        .find(|&year| days(year + 1, 1, 1) > date)
        .unwrap_or(1970);
    let month = (1..12).find(|&month| days(year, month + 1, 1) > date).unwrap_or(12);
    let day = date - days(year, month, 1) + 1;
    let (hour, minute, second) = (time / 3_600, time / 60 % 60, time % 60);
    format!("{year}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02} UTC")
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, DnType, KeyPair, date_time_ymd};

    use super::*;

    fn certificate() -> Vec<u8> {
        let mut params = CertificateParams::new(vec!["localhost".to_owned()]).expect("a name");
        params.not_before = date_time_ymd(2024, 2, 29);
        params.not_after = date_time_ymd(2051, 12, 31);
        params.distinguished_name.push(DnType::OrganizationName, "Ferrite");
        params.distinguished_name.push(DnType::CommonName, "store-1");
        let key = KeyPair::generate().expect("a key");
        params.self_signed(&key).expect("signs").der().to_vec()
    }

    #[test]
    fn facts_are_read() {
        let facts = Facts::read(&certificate()).expect("a certificate");
        assert_eq!(facts.common_names, ["store-1"]);
        assert_eq!(utc(facts.not_before), "2024-02-29 00:00:00 UTC");
        assert_eq!(utc(facts.not_after), "2051-12-31 00:00:00 UTC");
    }

    #[test]
    fn what_is_cut_or_changed_never_panics() {
        let whole = certificate();
        for length in 0..whole.len() {
            assert_eq!(Facts::read(&whole[..length]), None, "cut at {length}");
        }
        for at in 0..whole.len() {
            for value in [0, 0x7f, 0x80, 0x84, 0xff] {
                let mut changed = whole.clone();
                changed[at] = value;
                let _any = Facts::read(&changed);
            }
        }
    }

    #[test]
    fn dates_are_those_of_the_calendar() {
        for (seconds, text) in [
            (0, "1970-01-01 00:00:00 UTC"),
            (951_782_400, "2000-02-29 00:00:00 UTC"),
            (1_709_251_199, "2024-02-29 23:59:59 UTC"),
            (1_735_689_600, "2025-01-01 00:00:00 UTC"),
            (4_107_542_400, "2100-03-01 00:00:00 UTC"),
        ] {
            assert_eq!(utc(seconds), text);
        }
        assert_eq!(time((UTC_TIME, b"240229235959Z")), Some(1_709_251_199));
        assert_eq!(time((GENERALIZED_TIME, b"21000301000000Z")), Some(4_107_542_400));
        assert_eq!(time((UTC_TIME, b"241329235959Z")), None);
        assert_eq!(time((UTC_TIME, b"2402292359Z")), None);
    }
}
