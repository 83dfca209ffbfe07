//! What a failed handshake means, for people.

use std::error::Error;
use std::io;

use rustls::CertificateError;

/// Whether an error of a connection, or what caused it, is one of TLS: that is, of certificates or of a side that does not speak it.
/// Trying again with the same files does not help.
pub fn fault(error: &(dyn Error + 'static)) -> Option<String> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(found) = error.downcast_ref::<rustls::Error>() {
            return Some(told(found));
        }
        if let Some(broken) = error.downcast_ref::<io::Error>() {
            // Its source is that of what it holds, which itself would be missed.
            if let Some(found) = broken.get_ref().and_then(|held| fault(held)) {
                return Some(found);
            }
            // HTTP/2 keeps the text of an error alone.
            if let Some(alert) = broken.to_string().strip_prefix("received fatal alert: ") {
                return Some(refused(alert));
            }
        }
        next = error.source();
    }
    None
}

fn told(error: &rustls::Error) -> String {
    match error {
        rustls::Error::AlertReceived(alert) => refused(&format!("{alert:?}")),
        rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer | CertificateError::BadSignature) => {
            "the server's certificate is not of the given authority".to_owned()
        }
        rustls::Error::InvalidCertificate(reason) => format!("the server's certificate cannot be trusted: {reason}"),
        rustls::Error::InvalidMessage(_) => "the server does not speak TLS".to_owned(),
        other => other.to_string(),
    }
}

/// `alert` by its name in rustls.
fn refused(alert: &str) -> String {
    match alert {
        "CertificateRequired" => "the server wants a certificate of the client, and none was given".to_owned(),
        "UnknownCA" | "DecryptError" => {
            "the server does not take the client's certificate: it is not of the server's authority".to_owned()
        }
        "AccessDenied" | "CertificateUnknown" => {
            "the server does not take the client's certificate: it is of no name that may connect".to_owned()
        }
        other => format!("the server does not take the client's certificate or TLS ({other})"),
    }
}
