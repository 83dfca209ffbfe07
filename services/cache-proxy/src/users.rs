//! Who may what: users with hashed passwords, commands and prefixes of keys.

use sha2::{Digest as _, Sha256};

use crate::command::Table;
use crate::config::UserConfig;

/// Times that a password goes through the hash: some milliseconds of work for who guesses, once per connection for who knows.
const ROUNDS: u32 = 4096;

/// A password as the configuration holds it: salted and hashed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Secret {
    salt: String,
    digest: [u8; 32],
}

impl Secret {
    /// Of `password` with `salt`, hexadecimal digits.
    pub fn new(password: &[u8], salt: &str) -> Secret {
        Secret {
            salt: salt.into(),
            digest: digest(password, salt),
        }
    }

    /// Reads `sha256:SALT:DIGEST`.
    pub fn parse(text: &str) -> Option<Secret> {
        let (salt, digest) = text.strip_prefix("sha256:")?.split_once(':')?;
        let is_hex = |text: &str| text.bytes().all(|byte| byte.is_ascii_hexdigit());
        if digest.len() != 64 || salt.is_empty() || !is_hex(salt) || !is_hex(digest) {
            return None;
        }
        let mut bytes = [0u8; 32];
        for (at, byte) in bytes.iter_mut().enumerate() {
            *byte = u8::from_str_radix(digest.get(2 * at..2 * at + 2)?, 16).ok()?;
        }
        Some(Secret {
            salt: salt.into(),
            digest: bytes,
        })
    }

    /// Whether `password` is the one, in time that does not tell how near it comes.
    pub fn is(&self, password: &[u8]) -> bool {
        let given = digest(password, &self.salt);
        given.iter().zip(&self.digest).fold(0, |differs, (a, b)| differs | (a ^ b)) == 0
    }
}

impl std::fmt::Display for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "sha256:{}:", self.salt)?;
        self.digest.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

fn digest(password: &[u8], salt: &str) -> [u8; 32] {
    let mut digest: [u8; 32] = Sha256::new().chain_update(salt).chain_update(password).finalize().into();
    for _ in 1..ROUNDS {
        digest = Sha256::new().chain_update(digest).chain_update(password).finalize().into();
    }
    digest
}

/// Whether `word` names a command or, with `@`, a group.
pub fn is_known(table: &Table, word: &str) -> bool {
    match word.strip_prefix('@') {
        Some("read" | "write") => true,
        Some(group) => table
            .commands()
            .iter()
            .any(|command| command.groups.split(',').any(|known| known == group)),
        None => table.named(word).is_some(),
    }
}

/// A user, ready for checks.
#[derive(Clone, Debug)]
pub struct User {
    pub name: String,
    secret: Option<Secret>,
    /// By index of command; `None`: all.
    commands: Option<Vec<bool>>,
    prefixes: Vec<Vec<u8>>,
    /// Requests a second; 0: not limited.
    pub rate: u32,
}

impl User {
    /// From its configuration, which was validated.
    pub fn new(config: &UserConfig, table: &Table) -> User {
        let is_named = |command: &crate::command::Command| {
            config.commands.iter().any(|word| match word.strip_prefix('@') {
                Some("read") => command.is_readonly(),
                Some("write") => command.is_write,
                Some(group) => command.groups.split(',').any(|known| known == group),
                None => {
                    let parent = command.name.split('|').next();
                    command.name.eq_ignore_ascii_case(word) || parent.is_some_and(|parent| parent.eq_ignore_ascii_case(word))
                }
            })
        };
        User {
            name: config.name.clone(),
            secret: Secret::parse(&config.password),
            commands: (!config.commands.is_empty()).then(|| table.commands().iter().map(is_named).collect()),
            prefixes: config.keys.iter().map(|prefix| prefix.clone().into_bytes()).collect(),
            rate: config.rate,
        }
    }

    /// Whether this is the user's password; one without takes any.
    pub fn accepts(&self, password: &[u8]) -> bool {
        self.secret.as_ref().is_none_or(|secret| secret.is(password))
    }

    /// Whether it is asked for a password.
    pub fn has_secret(&self) -> bool {
        self.secret.is_some()
    }

    /// Whether the command of this index is allowed.
    pub fn may_run(&self, command: u16) -> bool {
        match &self.commands {
            Some(allowed) => allowed.get(usize::from(command)).copied().unwrap_or(false),
            None => true,
        }
    }

    /// Whether `key` is within its prefixes.
    pub fn may_touch(&self, key: &[u8]) -> bool {
        self.prefixes.is_empty() || self.prefixes.iter().any(|prefix| key.starts_with(prefix))
    }

    /// Whether only some keys are allowed.
    pub fn has_prefixes(&self) -> bool {
        !self.prefixes.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_are_known_by_their_hash() {
        let secret = Secret::new(b"open sesame", "00ff");
        let read = Secret::parse(&secret.to_string()).expect("reads what it prints");
        assert!(read.is(b"open sesame"));
        assert!(!read.is(b"open"));
        for bad in ["", "secret", "sha256:00", "sha256::00", "sha256:00:zz"] {
            assert_eq!(Secret::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_user_may_what_it_was_given() {
        let table = Table::redis();
        let config = UserConfig {
            name: "reader".into(),
            commands: vec!["@read".into(), "set".into(), "client".into()],
            keys: vec!["app:".into()],
            ..Default::default()
        };
        let user = User::new(&config, &table);
        let may = |name| user.may_run(table.named(name).expect("is known").0);
        assert!(may("get") && may("mget") && may("set") && may("client|list"));
        assert!(!may("del") && !may("hset"));
        assert!(user.may_touch(b"app:1") && !user.may_touch(b"other"));
    }
}
