//! What one call sees of its plugin's state, and what it would change: nothing of it is anybody else's before the call has succeeded.
//! How it is kept is no matter of this file.

use std::time::Duration;

use bytes::Bytes;
use indexmap::IndexMap;

use crate::settings::ByteSize;

/// The longest key, in bytes.
pub const MAX_KEY: usize = 256;
/// Keys that one call may read or write.
pub const MAX_KEYS: usize = 100;
/// What one call may hold of them: keys, values that it read, values that it would write.
pub const MAX_BYTES: usize = 4 << 20;
/// The longest time to live.
pub const MAX_TTL: Duration = Duration::from_secs(365 * 86_400);

/// A limit that a call reached.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Limit {
    /// A key is empty or too long.
    #[error("the key has {0} bytes; it must be 1 to {MAX_KEY}")]
    Key(usize),
    /// A value is too long.
    #[error("the value has {size} bytes; {most} are the most (limits.state_value)")]
    Value {
        /// Its length.
        size: usize,
        /// The most.
        most: ByteSize,
    },
    /// Too many keys in one call.
    #[error("one call may read and write {MAX_KEYS} keys")]
    Keys,
    /// Too much in one call.
    #[error("what one call reads and writes may have 4 MiB together")]
    Bytes,
    /// A time to live that is none.
    #[error("a time to live is 1 ms to 365 days, not {0} ms")]
    Ttl(u64),
    /// It is to be added to what is no number.
    #[error("the key's value is no whole number of 64 bits, so nothing can be added to it")]
    NotANumber,
    /// The sum is none.
    #[error("the sum is beyond 64 bits")]
    Overflow,
    /// The plugin has as many keys as it may have.
    #[error("the plugin has {0} keys, which is the most (limits.state_keys)")]
    Full(u64),
}

/// A key of a call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// The plugin's name for it.
    pub key: String,
    /// The value that the call was told, where it was told one: what it answers holds as long as that is still so.
    pub seen: Option<Option<Bytes>>,
    /// What is to become of it.
    pub write: Option<Write>,
}

/// What became of a call's changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Committed {
    /// They are made.
    Done,
    /// Something that the call was told is not so any more; nothing was changed.
    Changed,
    /// The plugin would have more keys than it may; nothing was changed.
    Full,
}

/// What is to become of a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Write {
    /// This value, for so long.
    Set(Bytes, Option<Duration>),
    /// This value, for as long as the key has still to live.
    Keep(Bytes),
    /// Nothing.
    Delete,
}

impl Write {
    fn value(&self) -> Option<&Bytes> {
        match self {
            Self::Set(value, _) | Self::Keep(value) => Some(value),
            Self::Delete => None,
        }
    }
}

/// One call's.
#[derive(Debug)]
pub struct Call {
    keys: IndexMap<String, Touched>,
    bytes: usize,
    longest: ByteSize,
}

#[derive(Debug, Default)]
struct Touched {
    seen: Option<Option<Bytes>>,
    write: Option<Write>,
}

impl Touched {
    /// The value as the call sees it; the outer none: it was not asked for yet.
    fn value(&self) -> Option<Option<&Bytes>> {
        match (&self.write, &self.seen) {
            (Some(write), _) => Some(write.value()),
            (None, Some(seen)) => Some(seen.as_ref()),
            (None, None) => None,
        }
    }
}

impl Call {
    /// Nothing is known yet; a value may be so long.
    #[must_use]
    pub fn new(longest: ByteSize) -> Self {
        Self { keys: IndexMap::new(), bytes: 0, longest }
    }

    /// The value of a key as the call sees it; the outer none: it is to be asked for ([`Call::saw`]).
    ///
    /// # Errors
    /// [`Limit`], for a key that is none, or one too many.
    pub fn look(&self, key: &str) -> Result<Option<Option<&Bytes>>, Limit> {
        if key.is_empty() || key.len() > MAX_KEY {
            return Err(Limit::Key(key.len()));
        }
        match self.keys.get(key) {
            Some(touched) => Ok(touched.value()),
            None if self.keys.len() >= MAX_KEYS => Err(Limit::Keys),
            None => Ok(None),
        }
    }

    /// This is what a key has.
    ///
    /// # Errors
    /// [`Limit`], for a value that is longer than one may be, or too many of them.
    pub fn saw(&mut self, key: &str, value: Option<Bytes>) -> Result<(), Limit> {
        let size = value.as_ref().map_or(0, Bytes::len);
        self.fits(size)?;
        self.touch(key, size, 0)?.seen = Some(value);
        Ok(())
    }

    /// Sets a key, for so many milliseconds where given.
    ///
    /// # Errors
    /// [`Limit`].
    pub fn set(&mut self, key: &str, value: Vec<u8>, ttl_ms: Option<u64>) -> Result<(), Limit> {
        let (_, ttl) = (self.look(key)?, ttl(ttl_ms)?);
        self.fits(value.len())?;
        self.write(key, Write::Set(value.into(), ttl))
    }

    /// Removes a key.
    ///
    /// # Errors
    /// [`Limit`].
    pub fn delete(&mut self, key: &str) -> Result<(), Limit> {
        self.look(key)?;
        self.write(key, Write::Delete)
    }

    /// Adds to a key's number, and gives the sum. The key must be known ([`Call::look`]); one that is not counts as one that is not there.
    ///
    /// # Errors
    /// [`Limit`].
    pub fn add(&mut self, key: &str, by: i64, ttl_ms: Option<u64>) -> Result<i64, Limit> {
        let (value, ttl) = (self.look(key)?.flatten().map(|value| number(value)), ttl(ttl_ms)?);
        let (before, is_there) = match value {
            Some(number) => (number.ok_or(Limit::NotANumber)?, true),
            None => (0, false),
        };
        let sum = before.checked_add(by).ok_or(Limit::Overflow)?;
        let text = Bytes::from(sum.to_string());
        let write = match self.keys.get(key).and_then(|touched| touched.write.as_ref()) {
            Some(Write::Set(_, ttl)) => Write::Set(text, *ttl),
            _ if is_there => Write::Keep(text),
            _ => Write::Set(text, ttl),
        };
        self.write(key, write)?;
        Ok(sum)
    }

    /// Whether it changes anything.
    #[must_use]
    pub fn writes(&self) -> bool {
        self.keys.values().any(|touched| touched.write.is_some())
    }

    /// What is to be done once the call has succeeded, and what must still be so; nothing, where it changes nothing.
    #[must_use]
    pub fn changes(self) -> Option<Vec<Change>> {
        let change = |(key, Touched { seen, write })| Change { key, seen, write };
        self.writes().then(|| self.keys.into_iter().map(change).collect())
    }

    fn fits(&self, size: usize) -> Result<(), Limit> {
        if size as u64 > self.longest.0 { Err(Limit::Value { size, most: self.longest }) } else { Ok(()) }
    }

    fn write(&mut self, key: &str, write: Write) -> Result<(), Limit> {
        let before = self.keys.get(key).and_then(|touched| touched.write.as_ref()?.value()).map_or(0, Bytes::len);
        let after = write.value().map_or(0, Bytes::len);
        self.touch(key, after, before)?.write = Some(write);
        Ok(())
    }

    /// A key, where there is room for so many bytes more, and so many less.
    fn touch(&mut self, key: &str, more: usize, less: usize) -> Result<&mut Touched, Limit> {
        let new = if self.keys.contains_key(key) { 0 } else { key.len() };
        let bytes = self.bytes - less + more + new;
        if bytes > MAX_BYTES {
            return Err(Limit::Bytes);
        }
        self.bytes = bytes;
        Ok(self.keys.entry(key.to_owned()).or_default())
    }
}

fn ttl(millis: Option<u64>) -> Result<Option<Duration>, Limit> {
    let Some(millis) = millis else { return Ok(None) };
    let ttl = Duration::from_millis(millis);
    if ttl.is_zero() || ttl > MAX_TTL { Err(Limit::Ttl(millis)) } else { Ok(Some(ttl)) }
}

/// As Redis counts.
fn number(value: &[u8]) -> Option<i64> {
    let text = std::str::from_utf8(value).ok()?;
    text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'-').then(|| text.parse().ok())?
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use std::collections::HashMap;

    use super::*;

    const LONGEST: ByteSize = ByteSize(1_000);

    fn call() -> Call {
        Call::new(LONGEST)
    }

    fn text(text: &str) -> Bytes {
        Bytes::copy_from_slice(text.as_bytes())
    }

    #[test]
    fn a_call_sees_what_it_wrote_and_nobody_is_told_before_its_end() {
        let mut call = call();
        assert_eq!(call.look("a"), Ok(None));
        call.saw("a", Some(text("1"))).expect("fits");
        assert_eq!(call.look("a"), Ok(Some(Some(&text("1")))));
        call.set("a", b"2".to_vec(), Some(5)).expect("fits");
        assert_eq!(call.look("a"), Ok(Some(Some(&text("2")))));
        call.delete("b").expect("fits");
        assert_eq!(call.look("b"), Ok(Some(None)));
        let changes = call.changes().expect("changes");
        let ttl = Some(Duration::from_millis(5));
        assert_eq!(
            changes,
            [
                Change { key: "a".to_owned(), seen: Some(Some(text("1"))), write: Some(Write::Set(text("2"), ttl)) },
                Change { key: "b".to_owned(), seen: None, write: Some(Write::Delete) },
            ]
        );
    }

    #[test]
    fn a_call_that_only_reads_changes_nothing() {
        let mut call = call();
        call.saw("a", None).expect("fits");
        assert_eq!(call.changes(), None);
    }

    #[test]
    fn the_time_to_live_counts_from_the_first_increment() {
        let mut call = call();
        call.saw("new", None).expect("fits");
        call.saw("old", Some(text("-5"))).expect("fits");
        assert_eq!(call.add("new", 1, Some(1_000)), Ok(1));
        assert_eq!(call.add("new", 2, Some(9_000)), Ok(3));
        assert_eq!(call.add("old", 3, Some(1_000)), Ok(-2));
        call.set("set", b"7".to_vec(), None).expect("fits");
        assert_eq!(call.add("set", 1, Some(1_000)), Ok(8));
        call.delete("old").expect("fits");
        assert_eq!(call.add("old", 4, Some(2_000)), Ok(4));
        let writes: Vec<_> = call.changes().expect("changes").into_iter().filter_map(|change| change.write).collect();
        let ms = |millis| Some(Duration::from_millis(millis));
        assert_eq!(
            writes,
            [Write::Set(text("3"), ms(1_000)), Write::Set(text("4"), ms(2_000)), Write::Set(text("8"), None)]
        );
    }

    #[test]
    fn what_is_no_number_is_not_added_to() {
        for (value, by, limit) in [
            ("", 1, Limit::NotANumber),
            ("+1", 1, Limit::NotANumber),
            (" 1", 1, Limit::NotANumber),
            ("1.5", 1, Limit::NotANumber),
            ("9223372036854775808", 1, Limit::NotANumber),
            ("9223372036854775807", 1, Limit::Overflow),
            ("-9223372036854775808", -1, Limit::Overflow),
        ] {
            let mut call = call();
            call.saw("a", Some(text(value))).expect("fits");
            assert_eq!(call.add("a", by, None), Err(limit), "{value}");
            assert_eq!(call.changes(), None);
        }
    }

    #[test]
    fn a_call_is_bounded() {
        let mut call = call();
        assert_eq!(call.set("", Vec::new(), None), Err(Limit::Key(0)));
        assert_eq!(call.look(&"k".repeat(257)), Err(Limit::Key(257)));
        assert_eq!(call.set("a", vec![0; 1_001], None), Err(Limit::Value { size: 1_001, most: LONGEST }));
        assert_eq!(call.saw("a", Some(vec![0; 1_001].into())), Err(Limit::Value { size: 1_001, most: LONGEST }));
        for ttl in [0, 365 * 86_400_000 + 1, u64::MAX] {
            assert_eq!(call.set("a", Vec::new(), Some(ttl)), Err(Limit::Ttl(ttl)));
        }
        // One key as often as one likes: it is held once.
        (0..100_000).for_each(|_| call.set("a", vec![0; 1_000], None).expect("fits"));
        for key in 1..MAX_KEYS {
            call.set(&key.to_string(), vec![0; 1_000], None).expect("fits");
        }
        assert_eq!(call.delete("one more"), Err(Limit::Keys));
        let mut call = Call::new(ByteSize(u64::MAX));
        call.set("a", vec![0; MAX_BYTES - 1], None).expect("fits");
        assert_eq!(call.set("b", Vec::new(), None), Err(Limit::Bytes));
        call.delete("a").expect("fits");
        call.set("b", Vec::new(), None).expect("fits");
    }

    proptest! {
        /// Whatever a call does: it sees what a plain map would show, and its changes make of what was there what it saw last.
        #[test]
        fn a_call_is_a_map(
            stored in prop::collection::hash_map("[ab]", "[0-9]{1,3}", 0..3),
            steps in prop::collection::vec(("[abc]", 0_u8..4, -5_i64..5), 0..20),
        ) {
            let mut model = stored.clone();
            let mut call = call();
            for (key, what, number) in steps {
                if call.look(&key).expect("a key").is_none() {
                    call.saw(&key, stored.get(&key).map(|value| text(value))).expect("fits");
                }
                match what {
                    0 => {
                        call.set(&key, number.to_string().into_bytes(), None).expect("fits");
                        model.insert(key, number.to_string());
                    }
                    1 => {
                        call.delete(&key).expect("fits");
                        model.remove(&key);
                    }
                    2 => {
                        let sum = model.get(&key).map_or(0, |value| value.parse().expect("a number")) + number;
                        prop_assert_eq!(call.add(&key, number, None), Ok(sum));
                        model.insert(key, sum.to_string());
                    }
                    _ => {
                        let seen = call.look(&key).expect("a key").expect("known");
                        prop_assert_eq!(seen.cloned(), model.get(&key).map(|value| text(value)));
                    }
                }
            }
            let mut after: HashMap<String, String> = stored.clone();
            for Change { key, seen, write } in call.changes().unwrap_or_default() {
                if let Some(seen) = seen {
                    prop_assert_eq!(seen, stored.get(&key).map(|value| text(value)));
                }
                match write.as_ref().map(|write| write.value()) {
                    Some(Some(value)) => drop(after.insert(key, String::from_utf8_lossy(value).into_owned())),
                    Some(None) => drop(after.remove(&key)),
                    None => {}
                }
            }
            prop_assert_eq!(after, model);
        }
    }
}
