//! Who may do what: callers without credentials, users with a password, a token or a certificate.

use std::sync::Arc;

use ::http::{HeaderMap, header};
use base64::Engine as _;
use blob_store::Key;

use crate::config::{Config, Role, User};
use crate::error::Error;

/// Somebody who calls, and what they may.
#[derive(Clone, Debug)]
pub struct Caller(Arc<Known>);

#[derive(Debug)]
struct Known {
    name: String,
    role: Role,
    instances: Vec<String>,
}

impl Caller {
    fn new(name: &str, role: Role, instances: &[String]) -> Caller {
        Caller(Arc::new(Known {
            name: name.to_owned(),
            role,
            instances: instances.to_vec(),
        }))
    }

    /// For the access log; empty for anonymous callers.
    pub fn name(&self) -> &str {
        &self.0.name
    }

    pub fn check_read(&self) -> Result<(), Error> {
        self.check(Role::Read, "read")
    }

    pub fn check_admin(&self) -> Result<(), Error> {
        self.check(Role::Admin, "purge")
    }

    pub fn check_write(&self, instance: &str) -> Result<(), Error> {
        self.check(Role::Write, "write")?;
        let allowed = &self.0.instances;
        match allowed.is_empty() || allowed.iter().any(|pattern| matches(pattern, instance)) {
            true => Ok(()),
            false => Err(Error::Forbidden("write")),
        }
    }

    /// Whether uploads to `instance` are allowed.
    pub fn may_write(&self, instance: &str) -> bool {
        self.check_write(instance).is_ok()
    }

    fn check(&self, role: Role, act: &'static str) -> Result<(), Error> {
        match self.0.role >= role {
            true => Ok(()),
            // Without a name there is something to be done about it: say who you are.
            false if self.0.name.is_empty() => Err(Error::Unauthenticated),
            false => Err(Error::Forbidden(act)),
        }
    }
}

/// `ci/main` is that instance, `ci/*` all that start with `ci/`.
fn matches(pattern: &str, instance: &str) -> bool {
    match pattern.strip_suffix('*') {
        Some(start) => instance.starts_with(start),
        None => pattern == instance,
    }
}

/// The rules.
pub struct Access {
    anonymous: Caller,
    certified: Caller,
    users: Vec<Entry>,
}

/// Credentials are kept and compared as digests, which takes the same time whatever is wrong.
struct Entry {
    basic: Option<Key>,
    token: Option<Key>,
    certificate: Option<Key>,
    caller: Caller,
}

impl Access {
    pub fn new(config: &Config) -> Access {
        Access {
            anonymous: Caller::new("", config.access.anonymous, &[]),
            certified: Caller::new("certified", config.tls.client_role, &[]),
            users: config.access.users.iter().map(Entry::new).collect(),
        }
    }

    /// Who sent these headers over a connection with this certificate (its SHA-256), if any. Credentials that nobody has are an
    /// error, unless there are no users at all: some tools always send a token.
    pub fn identify(&self, headers: &HeaderMap, certificate: Option<Key>) -> Result<Caller, Error> {
        let given = headers.get(header::AUTHORIZATION);
        if let Some(value) = given.filter(|_| !self.users.is_empty()) {
            let value = value.to_str().map_err(|_| Error::Unauthenticated)?;
            return self.by_header(value);
        }
        let Some(certificate) = certificate else {
            return Ok(self.anonymous.clone());
        };
        let user = self.users.iter().find(|user| user.certificate == Some(certificate));
        Ok(user.map_or(&self.certified, |user| &user.caller).clone())
    }

    fn by_header(&self, value: &str) -> Result<Caller, Error> {
        let (scheme, rest) = value.split_once(' ').ok_or(Error::Unauthenticated)?;
        let rest = rest.trim();
        let found = if scheme.eq_ignore_ascii_case("bearer") {
            let token = Key::sha256(rest.as_bytes());
            self.users.iter().find(|user| user.token == Some(token))
        } else if scheme.eq_ignore_ascii_case("basic") {
            let decoded = base64::engine::general_purpose::STANDARD.decode(rest);
            let basic = Key::sha256(&decoded.map_err(|_| Error::Unauthenticated)?);
            self.users.iter().find(|user| user.basic == Some(basic))
        } else {
            None
        };
        found.map(|user| user.caller.clone()).ok_or(Error::Unauthenticated)
    }
}

impl Entry {
    fn new(user: &User) -> Entry {
        let digest = |text: &str| (!text.is_empty()).then(|| Key::sha256(text.as_bytes()));
        Entry {
            basic: digest(&user.password).map(|_| Key::sha256(format!("{}:{}", user.name, user.password).as_bytes())),
            token: digest(&user.token),
            certificate: Key::from_hex(&user.certificate),
            caller: Caller::new(
                if user.name.is_empty() { "user" } else { &user.name },
                user.role,
                &user.instances,
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn access() -> Access {
        let text = "[access]\nanonymous = \"read\"\n\
                    [[access.users]]\nname = \"ci\"\npassword = \"a:b\"\nrole = \"write\"\ninstances = [\"ci/*\", \"main\"]\n\
                    [[access.users]]\nname = \"boss\"\ntoken = \"t\"\nrole = \"admin\"\n";
        Access::new(&toml::from_str(text).expect("reads"))
    }

    fn call(authorization: Option<&str>) -> Result<Caller, Error> {
        let mut headers = HeaderMap::new();
        if let Some(value) = authorization {
            headers.insert(header::AUTHORIZATION, value.parse().expect("a value"));
        }
        access().identify(&headers, None)
    }

    #[test]
    fn rights_are_by_role_and_instance() {
        let anonymous = call(None).expect("anybody");
        assert!(anonymous.check_read().is_ok());
        assert!(matches!(anonymous.check_write("main"), Err(Error::Unauthenticated)));
        let ci = call(Some("Basic Y2k6YTpi")).expect("known");
        assert!(ci.may_write("main") && ci.may_write("ci/x"));
        assert!(matches!(ci.check_write("release"), Err(Error::Forbidden(_))));
        assert!(ci.check_admin().is_err());
        let boss = call(Some("bearer t")).expect("known");
        assert!(boss.may_write("release") && boss.check_admin().is_ok());
    }

    #[test]
    fn wrong_credentials_are_not_anonymous() {
        for value in ["Basic Y2k6YTpj", "Basic ???", "Bearer x", "Digest t", "t", "Bearer"] {
            assert!(matches!(call(Some(value)), Err(Error::Unauthenticated)), "{value}");
        }
    }
}
