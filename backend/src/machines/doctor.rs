//! Whether Redis has, for the broker, what the database says; and all keys in another format.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::Serialize;
use sluicegate_core::topic::check_target;

use super::token::from_hex;
use super::{Machines, TokenError};
use crate::database::fault::Fault;
use crate::database::statements::machines;
use crate::redis::auth::{Auth, End, Entry, Kept};
use crate::redis::connect::RedisFault;
use crate::settings::AuthFormat;

/// Machines in one look.
const PAGE: i64 = 1_000;

/// What is wrong with a key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// The machine; a name that is not UTF-8, with its bytes escaped.
    pub serial_no: String,
    /// What it is.
    pub problem: Problem,
}

/// What may be wrong with a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Problem {
    /// The machine has a token, and Redis has no key: it cannot log in.
    Missing,
    /// The key has the other format: the broker does not read it.
    OtherFormat,
    /// The key holds another hash than the database: an older token is good, and the machine's is not.
    OtherHash,
    /// The key holds no SHA-256.
    NoHash,
    /// The key is neither a string nor a hash: the broker does not read it, and it may be somebody else's. A repair leaves it.
    OtherType,
    /// The key has a time to live: then the machine cannot log in.
    Ends,
    /// The key makes its machine a superuser, whom no rule binds.
    Superuser,
    /// There is a key, and the machine has no token, or there is no such machine: whoever knows the secret can log in.
    Stale,
    /// The serial number is no level of a topic: its machine could reach others'.
    SerialNo,
    /// The name is the gateway's own at the broker.
    Reserved,
    /// The name is not UTF-8: no client can have it, so it may be somebody else's key. A repair leaves it.
    NoText,
}

impl Problem {
    /// Whether a repair touches such a key.
    #[must_use]
    pub fn is_repaired(self) -> bool {
        !matches!(self, Self::OtherType | Self::NoText)
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Missing => "it has a token, and Redis has no key: it cannot log in",
            Self::OtherFormat => "the key has the other format (machines.auth_format): the broker does not read it",
            Self::OtherHash => {
                "the key holds another hash than the database: an older token is good, and its own is not"
            }
            Self::NoHash => "the key holds no SHA-256 in 64 hexadecimal digits",
            Self::OtherType => {
                "the key is neither a string nor a hash: the broker does not read it; no repair touches it, since it may be another \
                 program's (DEL it, or choose another machines.auth_key)"
            }
            Self::Ends => "the key has a time to live, after which it cannot log in",
            Self::Superuser => "the key makes it a superuser, whom no rule binds",
            Self::Stale => "there is a key, and the database has no token for it: whoever knows its secret can log in",
            Self::SerialNo => "the serial number is no level of a topic: it could reach other machines' topics",
            Self::Reserved => {
                "the name is the gateway's own at the broker (machines.reserved): it could take over its session"
            }
            Self::NoText => {
                "the key's name is not UTF-8: no machine can have it; no repair touches it, since it may be another program's (DEL it, or \
                 choose another machines.auth_key)"
            }
        })
    }
}

/// What is wrong with one key, if anything. `expected` is the hash that the database has; `format` is that of the settings.
#[must_use]
pub fn judge(serial_no: &str, expected: Option<&str>, kept: &Kept, format: AuthFormat) -> Option<Problem> {
    let hash = match (&kept.entry, format) {
        (Entry::None, _) => return expected.map(|_| Problem::Missing),
        (Entry::Other(_), _) => return Some(Problem::OtherType),
        _ if expected.is_none() => return Some(Problem::Stale),
        _ if check_target(serial_no).is_err() => return Some(Problem::SerialNo),
        (Entry::Hash(_, true), _) => return Some(Problem::Superuser),
        (Entry::String(hash), AuthFormat::String) | (Entry::Hash(Some(hash), false), AuthFormat::Hash) => hash,
        (Entry::Hash(None, false), AuthFormat::Hash) => return Some(Problem::NoHash),
        (Entry::String(_) | Entry::Hash(..), _) => return Some(Problem::OtherFormat),
    };
    match (from_hex(hash), expected) {
        (None, _) => Some(Problem::NoHash),
        // EMQX compares the digits: in upper case nobody gets in.
        (Some(_), Some(expected)) if hash != expected => Some(Problem::OtherHash),
        (Some(_), _) => kept.ends.then_some(Problem::Ends),
    }
}

/// Whether somebody can log in by what stands under a key, and not by `due`, what a repair leaves there.
fn ends_a_login(due: Option<&str>, entry: &Entry) -> bool {
    match entry {
        // Upper case lets nobody in; a repair lets them.
        Entry::String(hash) | Entry::Hash(Some(hash), _) => {
            from_hex(hash).is_some() && !due.is_some_and(|due| due.eq_ignore_ascii_case(hash))
        }
        Entry::None | Entry::Hash(None, _) | Entry::Other(_) => false,
    }
}

/// Why the keys are not looked at to their end.
#[derive(Debug, thiserror::Error)]
pub enum DoctorError {
    /// A repair that is refused: most who can log in could not any more. Nothing is done.
    #[error(
        "a repair would end {ended} of {logins} logins, since the database has another token for these machines, or none: it may be the \
         wrong database (database.url), or an empty one; nothing is done"
    )]
    WouldLockOut {
        /// Logins that it would end.
        ended: usize,
        /// All that there are.
        logins: usize,
    },
    /// What was repaired by then stays so.
    #[error(transparent)]
    Token(#[from] TokenError),
}

impl From<Fault> for DoctorError {
    fn from(fault: Fault) -> Self {
        Self::Token(fault.into())
    }
}

impl From<RedisFault> for DoctorError {
    fn from(fault: RedisFault) -> Self {
        Self::Token(fault.into())
    }
}

/// How Redis is given what the database has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Repair {
    /// Not where it would end more than half of all logins: it may be the wrong database, or an empty one.
    Careful,
    /// Whatever it ends.
    Forced,
}

impl Machines {
    /// Looks at every key and every machine with a token. With a `repair`, Redis gets what the database has.
    ///
    /// # Errors
    /// [`DoctorError`]
    pub async fn doctor(&self, format: AuthFormat, repair: Option<Repair>) -> Result<Vec<Finding>, DoctorError> {
        let mut auth = self.auth.lock().await;
        let expected = self.expected().await?;
        let found = auth.all().await?;
        let keys: BTreeSet<String> = found.serial_nos.into_iter().chain(expected.keys().cloned()).collect();
        let all: Vec<&str> = keys.iter().map(String::as_str).collect();
        let entries = auth.read(&all).await?;
        let hash_of = |serial_no: &str| expected.get(serial_no).map(String::as_str);
        if repair == Some(Repair::Careful) {
            let logins = entries.iter().filter(|kept| ends_a_login(None, &kept.entry)).count();
            let ended = all
                .iter()
                .zip(&entries)
                .filter(|(name, kept)| ends_a_login(self.due(name, hash_of(name)), &kept.entry))
                .count();
            if ended * 2 > logins {
                return Err(DoctorError::WouldLockOut { ended, logins });
            }
        }
        let mut findings = Vec::new();
        for (serial_no, kept) in all.iter().zip(&entries) {
            let Some(problem) = self.judge(serial_no, hash_of(serial_no), kept, format) else { continue };
            // What was read of all may be long over: a token that was revoked since must not be good again.
            let problem =
                if repair.is_some() { self.repair(&mut auth, serial_no, format).await? } else { Some(problem) };
            findings.extend(problem.map(|problem| Finding { serial_no: (*serial_no).to_owned(), problem }));
        }
        let no_text = found.no_text.iter().map(|name| name.escape_ascii().to_string());
        findings.extend(no_text.map(|serial_no| Finding { serial_no, problem: Problem::NoText }));
        Ok(findings)
    }

    /// What a repair leaves under a machine's key: nothing where it may have no token.
    fn due<'h>(&self, serial_no: &str, hash: Option<&'h str>) -> Option<&'h str> {
        hash.filter(|_| check_target(serial_no).is_ok() && !self.reserved.contains(serial_no))
    }

    fn judge(&self, serial_no: &str, expected: Option<&str>, kept: &Kept, format: AuthFormat) -> Option<Problem> {
        match &kept.entry {
            Entry::String(_) | Entry::Hash(..) if self.reserved.contains(serial_no) => Some(Problem::Reserved),
            Entry::None if self.reserved.contains(serial_no) => None,
            _ => judge(serial_no, expected, kept, format),
        }
    }

    /// Gives Redis what the database has of one machine; what was wrong with its key, if it still was. Whoever issues, rotates or revokes holds the
    /// machine's row until Redis has the same; where there is no row yet, what is written now is not taken away.
    async fn repair(
        &self,
        auth: &mut Auth,
        serial_no: &str,
        format: AuthFormat,
    ) -> Result<Option<Problem>, TokenError> {
        let reading = async {
            let mut session = self.database.begin().await?;
            let rows = session.rows(&machines::token_of(self.database.tongue(), serial_no)).await?;
            let mut hash = None;
            for row in &rows {
                // A collation may take another machine's name for the same.
                if row.must_text(1)? == serial_no {
                    hash = row.text(0)?.filter(|hash| !hash.is_empty());
                }
            }
            Ok((session, hash))
        };
        let (session, hash) = self.database.within(reading).await?;
        let due = self.due(serial_no, hash.as_deref());
        let problem = loop {
            let kept = auth.look(serial_no).await?;
            let problem = self.judge(serial_no, hash.as_deref(), &kept, format);
            // Where another has changed it in between it is looked at again.
            if !problem.is_some_and(Problem::is_repaired)
                || auth.replace(serial_no, &kept.entry, due, format, End::Never).await?
            {
                break problem;
            }
        };
        // It wrote nothing: this lets go of the row.
        self.database.within(session.commit()).await?;
        Ok(problem)
    }

    /// The hash of each machine that has a token.
    async fn expected(&self) -> Result<BTreeMap<String, String>, TokenError> {
        if !self.database.names().keeps("machines", "api_token_hash") {
            return Err(TokenError::NotKept);
        }
        let mut expected = BTreeMap::new();
        let mut behind = String::new();
        loop {
            let statement = machines::tokens(self.database.tongue(), &behind, PAGE);
            let reading = async {
                let mut session = self.database.read().await?;
                let rows = session.rows(&statement).await?;
                session.commit().await?;
                rows.iter().map(|row| Ok((row.must_text(0)?, row.must_text(1)?))).collect::<Result<Vec<_>, Fault>>()
            };
            let page = self.database.within(reading).await?;
            let Some((last, _)) = page.last() else { return Ok(expected) };
            behind.clone_from(last);
            expected.extend(page.into_iter().filter(|(_, hash)| !hash.is_empty()));
        }
    }
}

/// What a conversion did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Converted {
    /// Keys that have the new format now.
    pub converted: usize,
    /// Keys that had it already.
    pub unchanged: usize,
    /// Keys that hold no SHA-256, or whose name is not UTF-8: they are as they were.
    pub left: usize,
}

/// Gives every key the format of `auth`, whatever the database says: the hashes stay what they are.
///
/// # Errors
/// [`RedisFault`]: what was converted by then stays so, and the rest may be asked for again.
pub async fn convert(auth: &mut Auth, format: AuthFormat) -> Result<Converted, RedisFault> {
    let found = auth.all().await?;
    let all: Vec<&str> = found.serial_nos.iter().map(String::as_str).collect();
    let mut done = Converted { left: found.no_text.len(), ..Converted::default() };
    for (serial_no, mut kept) in all.iter().zip(auth.read(&all).await?) {
        loop {
            let (hash, had) = match &kept.entry {
                // It was revoked since.
                Entry::None => break,
                Entry::String(hash) => (hash, AuthFormat::String),
                Entry::Hash(Some(hash), _) => (hash, AuthFormat::Hash),
                Entry::Hash(None, _) | Entry::Other(_) => {
                    done.left += 1;
                    break;
                }
            };
            if from_hex(hash).is_none() {
                done.left += 1;
                break;
            }
            if had == format {
                done.unchanged += 1;
                break;
            }
            if auth.replace(serial_no, &kept.entry, Some(&hash.to_lowercase()), format, End::AsBefore).await? {
                done.converted += 1;
                break;
            }
            // Another has changed it in between.
            kept = auth.look(serial_no).await?;
        }
    }
    Ok(done)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machines::token::{sha256, to_hex};

    #[test]
    fn each_way_to_be_wrong_has_its_name() {
        let (hash, other) = (to_hex(&sha256("a")), to_hex(&sha256("b")));
        let lasting = |entry| Kept { entry, ends: false };
        let string = |text: &str| lasting(Entry::String(text.to_owned()));
        let field = |text: &str, superuser| lasting(Entry::Hash(Some(text.to_owned()), superuser));
        let with = |kept: &Kept, format| judge("M-1", Some(&hash), kept, format);
        assert_eq!(with(&string(&hash), AuthFormat::String), None);
        assert_eq!(with(&field(&hash, false), AuthFormat::Hash), None);
        assert_eq!(with(&lasting(Entry::None), AuthFormat::Hash), Some(Problem::Missing));
        assert_eq!(with(&Kept { ends: true, ..string(&hash) }, AuthFormat::String), Some(Problem::Ends));
        assert_eq!(with(&string(&hash), AuthFormat::Hash), Some(Problem::OtherFormat));
        assert_eq!(with(&field(&hash, false), AuthFormat::String), Some(Problem::OtherFormat));
        let list = lasting(Entry::Other("list".to_owned()));
        assert_eq!(with(&list, AuthFormat::String), Some(Problem::OtherType));
        assert_eq!(judge("M-1", None, &list, AuthFormat::String), Some(Problem::OtherType));
        assert_eq!(with(&string(&other), AuthFormat::String), Some(Problem::OtherHash));
        assert_eq!(with(&string(&hash.to_uppercase()), AuthFormat::String), Some(Problem::OtherHash));
        assert_eq!(with(&string("secret"), AuthFormat::String), Some(Problem::NoHash));
        assert_eq!(with(&lasting(Entry::Hash(None, false)), AuthFormat::Hash), Some(Problem::NoHash));
        assert_eq!(with(&field(&hash, true), AuthFormat::Hash), Some(Problem::Superuser));
        assert_eq!(judge("M-1", None, &string(&hash), AuthFormat::String), Some(Problem::Stale));
        assert_eq!(judge("M-1", None, &lasting(Entry::None), AuthFormat::String), None);
        assert_eq!(judge("a/+", Some(&hash), &string(&hash), AuthFormat::String), Some(Problem::SerialNo));
    }

    #[test]
    fn a_login_ends_where_a_good_hash_goes() {
        let (hash, other) = (to_hex(&sha256("a")), to_hex(&sha256("b")));
        let string = |text: &str| Entry::String(text.to_owned());
        for (due, entry, ends) in [
            (Some(&hash), string(&hash), false),
            (Some(&hash), string(&hash.to_uppercase()), false),
            (Some(&hash), string(&other), true),
            (None, string(&hash), true),
            (None, Entry::Hash(Some(hash.clone()), true), true),
            (None, string("no hash"), false),
            (None, Entry::Hash(None, false), false),
            (None, Entry::Other("list".to_owned()), false),
            (None, Entry::None, false),
        ] {
            assert_eq!(ends_a_login(due.map(String::as_str), &entry), ends, "{due:?} {entry:?}");
        }
    }
}
