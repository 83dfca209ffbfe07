//! Signatures of URLs: HMAC-SHA256 with a salt, as imgproxy computes them.

use base64::Engine as _;
use base64::engine::general_purpose::{URL_SAFE, URL_SAFE_NO_PAD};
use hmac::{Hmac, Mac as _};
use sha2::Sha256;

/// Bytes of a whole signature.
pub const SIZE_MAX: usize = 32;

/// Who may ask for what: key and salt pairs, all valid at once so that they can be rotated.
#[derive(Clone, Debug)]
pub struct Signer {
    pairs: Vec<(Vec<u8>, Vec<u8>)>,
    size: usize,
    trusted: Vec<String>,
}

impl Signer {
    /// `keys` and `salts` are hexadecimal, as many of one as of the other; `size` bytes of a signature count.
    pub fn new(keys: &[String], salts: &[String], size: usize, trusted: &[String]) -> Result<Signer, String> {
        if keys.len() != salts.len() {
            return Err(format!(
                "{} keys and {} salts: wanted a salt for each key",
                keys.len(),
                salts.len()
            ));
        }
        if !(1..=SIZE_MAX).contains(&size) {
            return Err(format!("a signature of {size} bytes: wanted 1 to {SIZE_MAX}"));
        }
        let mut pairs = Vec::with_capacity(keys.len());
        for (number, (key, salt)) in keys.iter().zip(salts).enumerate() {
            let part =
                |text: &str, what: &str| from_hex(text).ok_or_else(|| format!("{what} {number}: wanted hexadecimal digits"));
            let (key, salt) = (part(key, "key")?, part(salt, "salt")?);
            if key.is_empty() {
                return Err(format!("key {number} is empty: anybody could sign"));
            }
            pairs.push((key, salt));
        }
        Ok(Signer {
            pairs,
            size,
            trusted: trusted.to_vec(),
        })
    }

    /// Whether URLs go unsigned, for want of keys.
    pub fn is_open(&self) -> bool {
        self.pairs.is_empty() && self.trusted.is_empty()
    }

    /// Whether `signature` is one of `path`, which begins with the `/` behind it.
    pub fn verify(&self, signature: &str, path: &str) -> bool {
        if self.is_open() {
            return true;
        }
        // A name that an operator chose to trust, in place of a signature; compared as a whole, in the same time wherever it differs.
        if self
            .trusted
            .iter()
            .any(|trusted| same(trusted.as_bytes(), signature.as_bytes()))
        {
            return true;
        }
        let Ok(given) = decode(signature) else { return false };
        if given.len() != self.size {
            return false;
        }
        // Every pair is tried, so that time does not tell which one matched.
        self.pairs.iter().fold(false, |found, (key, salt)| {
            let digest = digest(key, salt, path);
            found | same(&digest[..self.size], &given)
        })
    }

    /// The signature of `path` by the first pair; empty where there is none.
    pub fn sign(&self, path: &str) -> String {
        match self.pairs.first() {
            Some((key, salt)) => URL_SAFE_NO_PAD.encode(&digest(key, salt, path)[..self.size]),
            None => String::new(),
        }
    }
}

fn decode(signature: &str) -> Result<Vec<u8>, base64::DecodeError> {
    match signature.ends_with('=') {
        true => URL_SAFE.decode(signature),
        false => URL_SAFE_NO_PAD.decode(signature),
    }
}

fn digest(key: &[u8], salt: &[u8], path: &str) -> [u8; SIZE_MAX] {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("HMAC takes keys of every length");
    mac.update(salt);
    mac.update(path.as_bytes());
    mac.finalize().into_bytes().into()
}

/// Equality whose time depends on the lengths alone.
fn same(left: &[u8], right: &[u8]) -> bool {
    left.len() == right.len() && left.iter().zip(right).fold(0, |sum, (l, r)| sum | (l ^ r)) == 0
}

/// Bytes of hexadecimal digits.
pub fn from_hex(text: &str) -> Option<Vec<u8>> {
    let digits: Option<Vec<u8>> = text
        .chars()
        .map(|digit| digit.to_digit(16).map(|value| value as u8))
        .collect();
    let digits = digits?;
    let pairs = digits.chunks_exact(2);
    pairs
        .remainder()
        .is_empty()
        .then(|| pairs.map(|pair| pair[0] << 4 | pair[1]).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn signer(size: usize) -> Signer {
        // The pair of imgproxy's documentation: "secret" and "hello".
        Signer::new(&["736563726574".into()], &["68656C6C6F".into()], size, &[]).expect("valid")
    }

    #[test]
    fn the_documented_vector_of_imgproxy_verifies() {
        let path = "/rs:fill:300:400:0/g:sm/aHR0cDovL2V4YW1w/bGUuY29tL2ltYWdl/cy9jdXJpb3NpdHku/anBn.png";
        let signature = "oKfUtW34Dvo2BGQehJFR4Nr0_rIjOtdtzJ3QFsUcXH8";
        assert!(signer(32).verify(signature, path));
        assert_eq!(signer(32).sign(path), signature);
        assert!(!signer(32).verify(signature, &path.replace("300", "301")));
        assert!(!signer(32).verify("", path));
        assert!(!signer(32).verify("@@", path));
    }

    #[test]
    fn truncated_signatures_have_exactly_their_size() {
        let short = signer(8);
        let signature = short.sign("/x");
        assert!(short.verify(&signature, "/x"));
        assert!(short.verify(&format!("{signature}="), "/x"), "padding is taken");
        assert!(!short.verify(&signer(32).sign("/x"), "/x"));
        assert!(!signer(32).verify(&signature, "/x"));
    }

    #[test]
    fn any_pair_and_trusted_names_are_valid() {
        let keys = ["aa".to_owned(), "bb".to_owned()];
        let salts = ["".to_owned(), "cc".to_owned()];
        let both = Signer::new(&keys, &salts, 32, &["let-me-in".to_owned()]).expect("valid");
        for number in 0..2 {
            let one = Signer::new(&keys[number..=number], &salts[number..=number], 32, &[]).expect("valid");
            assert!(both.verify(&one.sign("/p"), "/p"));
        }
        assert!(both.verify("let-me-in", "/p"));
        assert!(!both.verify("let-me-i", "/p"));
        assert!(!both.verify("unsafe", "/p"));
    }

    #[test]
    fn faults_are_told() {
        assert!(Signer::new(&["aa".into()], &[], 32, &[]).is_err());
        assert!(Signer::new(&["a".into()], &["".into()], 32, &[]).is_err());
        assert!(Signer::new(&["".into()], &["".into()], 32, &[]).is_err());
        assert!(Signer::new(&["aa".into()], &["zz".into()], 32, &[]).is_err());
        assert!(Signer::new(&["aa".into()], &["aa".into()], 0, &[]).is_err());
    }
}
