//! Certificates and keys as their users have them: in files, or as text.

use std::fmt;
use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use base::WallTime;
use rustls::RootCertStore;
use rustls::pki_types::pem::{self, PemObject as _};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use crate::Error;
use crate::certificate::{Facts, utc};

/// Chains of public authorities are a quarter of this.
const FILE_MAX: u64 = 1 << 20;

/// PEM, in a file or as text. `Debug` and `Display` never tell the text.
#[derive(Clone, PartialEq, Eq)]
pub enum Pem {
    /// Read again when it changes.
    File(PathBuf),
    /// Stays as it is.
    Text(Arc<[u8]>),
}

impl Pem {
    /// As options have it: text if it begins as PEM does, else the path of a file.
    pub fn of_option(value: &str) -> Pem {
        match value.trim_start().starts_with("-----BEGIN") {
            true => Pem::Text(value.as_bytes().into()),
            false => Pem::File(value.into()),
        }
    }

    pub(crate) fn path(&self) -> Option<&Path> {
        match self {
            Pem::File(path) => Some(path),
            Pem::Text(_) => None,
        }
    }

    fn read(&self) -> Result<Arc<[u8]>, Error> {
        let path = match self {
            Pem::Text(text) => return Ok(text.clone()),
            Pem::File(path) => path,
        };
        let file = path.display().to_string();
        let mut bytes = Vec::new();
        let read = File::open(path).and_then(|open| open.take(FILE_MAX + 1).read_to_end(&mut bytes));
        match read {
            Err(source) => Err(Error::Read { file, source }),
            Ok(length) if length as u64 > FILE_MAX => Err(Error::TooLarge { file }),
            Ok(_) => Ok(bytes.into()),
        }
    }

    /// All certificates; at least one.
    fn certificates(&self) -> Result<Vec<CertificateDer<'static>>, Error> {
        let bytes = self.read()?;
        let read: Result<Vec<_>, pem::Error> = CertificateDer::pem_slice_iter(&bytes).collect();
        let all = read.map_err(|error| self.not_pem(&error))?;
        match all.is_empty() {
            true => Err(Error::NoCertificate { file: self.to_string() }),
            false => Ok(all),
        }
    }

    /// A certificate with those above it, which is valid now.
    pub(crate) fn chain(&self) -> Result<Vec<CertificateDer<'static>>, Error> {
        let chain = self.certificates()?;
        let now = WallTime::now().seconds() as i64;
        // What cannot be read here is for rustls to judge.
        if let Some(facts) = chain.first().and_then(|first| Facts::read(first)) {
            let file = self.to_string();
            if facts.not_after < now {
                return Err(Error::Expired {
                    file,
                    at: utc(facts.not_after),
                });
            }
            if facts.not_before > now {
                return Err(Error::NotYet {
                    file,
                    at: utc(facts.not_before),
                });
            }
        }
        Ok(chain)
    }

    pub(crate) fn key(&self) -> Result<PrivateKeyDer<'static>, Error> {
        let bytes = self.read()?;
        PrivateKeyDer::from_pem_slice(&bytes).map_err(|error| match error {
            pem::Error::NoItemsFound => Error::NoKey { file: self.to_string() },
            error => self.not_pem(&error),
        })
    }

    /// Authorities; those that are not valid now are left out, as a file may hold the last beside the next.
    pub(crate) fn authorities(&self) -> Result<RootCertStore, Error> {
        let now = WallTime::now().seconds() as i64;
        let mut roots = RootCertStore::empty();
        let mut reason = String::new();
        for certificate in self.certificates()? {
            match Facts::read(&certificate) {
                Some(facts) if facts.not_after < now => reason = format!("expired at {}", utc(facts.not_after)),
                _ => {
                    if let Err(error) = roots.add(certificate) {
                        reason = error.to_string();
                    }
                }
            }
        }
        match roots.is_empty() {
            true => Err(Error::Authority {
                file: self.to_string(),
                reason,
            }),
            false => Ok(roots),
        }
    }

    /// Tells where PEM is broken, without a byte of what stands there: it may be a key.
    fn not_pem(&self, error: &pem::Error) -> Error {
        let reason = match error {
            pem::Error::MissingSectionEnd { .. } => "a section without end",
            pem::Error::IllegalSectionStart { .. } => "a section that begins wrongly",
            pem::Error::Base64Decode(_) => "what stands between begin and end is not base64",
            _ => "it cannot be read",
        };
        Error::NotPem {
            file: self.to_string(),
            reason: reason.to_owned(),
        }
    }
}

impl From<PathBuf> for Pem {
    fn from(path: PathBuf) -> Pem {
        Pem::File(path)
    }
}

impl From<&Path> for Pem {
    fn from(path: &Path) -> Pem {
        Pem::File(path.to_owned())
    }
}

impl fmt::Display for Pem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Pem::File(path) => write!(f, "{}", path.display()),
            Pem::Text(_) => f.write_str("the given text"),
        }
    }
}

impl fmt::Debug for Pem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Pem::File(path) => write!(f, "{path:?}"),
            Pem::Text(text) => write!(f, "text({} bytes)", text.len()),
        }
    }
}
