//! An authority for one playground: made at its start, its key forgotten at once, so that nobody else is ever vouched for.

use std::net::{IpAddr, Ipv4Addr};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::Context;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, SanType};
use serde::Serialize;

use crate::config::SecurityConfig;

/// Files that clients of a playground need.
#[derive(Clone, Debug, Serialize)]
pub struct ClientFiles {
    pub ca: PathBuf,
    pub cert: PathBuf,
    pub key: PathBuf,
}

/// Makes an authority and, of it, a certificate for the playground's processes and one for clients, in `dir`. One made before is replaced.
pub fn make(dir: &Path) -> anyhow::Result<(SecurityConfig, ClientFiles)> {
    std::fs::create_dir_all(dir).with_context(|| format!("make directory {}", dir.display()))?;
    let mut params = CertificateParams::new(Vec::new())?;
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.distinguished_name.push(DnType::CommonName, "ferrite playground");
    let authority = CertifiedIssuer::self_signed(params, KeyPair::generate()?)?;
    let ca = write(dir, "ca.pem", &authority.pem())?;
    let issue = |name: &str| -> anyhow::Result<(PathBuf, PathBuf)> {
        let mut params = CertificateParams::new(vec!["localhost".to_owned()])?;
        params
            .subject_alt_names
            .push(SanType::IpAddress(IpAddr::V4(Ipv4Addr::LOCALHOST)));
        params.distinguished_name.push(DnType::CommonName, name);
        let key = KeyPair::generate()?;
        let certificate = params.signed_by(&key, &authority)?;
        Ok((
            write(dir, &format!("{name}.pem"), &certificate.pem())?,
            write(dir, &format!("{name}.key"), &key.serialize_pem())?,
        ))
    };
    let (cert_path, key_path) = issue("server")?;
    let (cert, key) = issue("client")?;
    let security = SecurityConfig {
        ca_path: ca.clone(),
        cert_path,
        key_path,
        ..SecurityConfig::default()
    };
    Ok((security, ClientFiles { ca, cert, key }))
}

/// For the eyes of its owner alone.
fn write(dir: &Path, name: &str, text: &str) -> anyhow::Result<PathBuf> {
    let path = dir.join(name);
    let mut options = std::fs::OpenOptions::new();
    let open = options.write(true).create(true).truncate(true).mode(0o600).open(&path);
    open.and_then(|mut file| std::io::Write::write_all(&mut file, text.as_bytes()))
        .with_context(|| format!("write {}", path.display()))?;
    Ok(path)
}
