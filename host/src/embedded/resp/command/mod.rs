//! What a command does: the table of commands, the checks that Redis makes before it carries one out, and transactions.
//! Texts are Redis 7's, word for word, since client libraries look at them.

mod glob;
mod hashes;
mod keys;
mod lists;
mod scripts;
mod server;
mod sets;
mod strings;
#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::LazyLock;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::oneshot;

use super::frame::{Reply, integer};
use super::store::{Millis, Place, Store, WrongType};
use super::waiting::{Served, Want};

pub(super) const WRONG_TYPE: &str = "WRONGTYPE Operation against a key holding the wrong kind of value";
const OUT_OF_MEMORY: &str = "OOM command not allowed when used memory > 'maxmemory'.";
const SYNTAX: &str = "syntax error";
const NOT_AN_INTEGER: &str = "value is not an integer or out of range";
/// The longest that a key may have left: Redis adds about now, in milliseconds since 1970, and beyond this its numbers would overflow.
const LATEST: Millis = i64::MAX - (1 << 41);
/// What the commands of one transaction may take until they are carried out.
const MAX_QUEUED: usize = 64 << 20;

/// A refusal, with its code.
#[derive(Debug)]
struct Refused(Cow<'static, str>);

impl Refused {
    fn error(text: impl AsRef<str>) -> Self {
        Self(format!("ERR {}", text.as_ref()).into())
    }

    fn arity(name: &str) -> Self {
        Self::error(format!("wrong number of arguments for '{name}' command"))
    }
}

impl From<WrongType> for Refused {
    fn from(WrongType: WrongType) -> Self {
        Self(WRONG_TYPE.into())
    }
}

/// What the server tells about itself.
pub(super) struct Info {
    pub port: u16,
    pub clients: usize,
}

/// What a client set for its connection.
#[derive(Debug, Default)]
pub(super) struct Session {
    id: i64,
    name: Bytes,
    db: usize,
    transaction: Option<Transaction>,
}

/// Commands between MULTI and EXEC.
#[derive(Debug, Default)]
struct Transaction {
    commands: Vec<Vec<Bytes>>,
    size: usize,
    /// One of them was refused, so EXEC will be.
    spoilt: bool,
}

impl Session {
    pub(super) fn new(id: i64) -> Self {
        Self { id, ..Self::default() }
    }

    fn spoil(&mut self) {
        if let Some(transaction) = &mut self.transaction {
            transaction.spoilt = true;
        }
    }
}

/// What the connection is to do.
#[derive(Debug)]
pub(super) enum Effect {
    /// Tell this.
    Reply(Reply),
    /// Tell this, and close.
    Close(Reply),
    /// Wait for an element.
    Wait(Wait),
}

/// A client's place among those who wait.
#[derive(Debug)]
pub(super) struct Wait {
    pub number: u64,
    pub served: oneshot::Receiver<Served>,
    /// Without one it waits for ever.
    pub timeout: Option<Duration>,
}

/// A command at work.
struct Call<'a> {
    session: &'a mut Session,
    store: &'a mut Store,
    now: Millis,
    info: &'a Info,
    /// Set by a blocking command that found nothing. Its reply then counts only in a transaction, where nothing waits.
    wait: Option<(Want, Option<Duration>)>,
}

impl Call<'_> {
    fn at(&self) -> Place {
        Place { db: self.session.db, now: self.now }
    }
}

/// Gets the arguments behind the command's name; their number has been checked.
type Run = fn(&mut Call<'_>, &[Bytes]) -> Result<Reply, Refused>;

struct Command {
    name: &'static str,
    /// With the name; negative: at least so many.
    arity: i32,
    need: Need,
    run: Run,
}

/// What it takes to carry a command out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Need {
    Nothing,
    /// It writes, and needs no memory for that.
    Write,
    /// It is refused where there is no memory.
    Room,
}

const fn reads(name: &'static str, arity: i32, run: Run) -> Command {
    Command { name, arity, need: Need::Nothing, run }
}

const fn writes(name: &'static str, arity: i32, run: Run) -> Command {
    Command { name, arity, need: Need::Write, run }
}

const fn grows(name: &'static str, arity: i32, run: Run) -> Command {
    Command { name, arity, need: Need::Room, run }
}

static COMMANDS: &[Command] = &[
    grows("lpush", -3, lists::lpush),
    grows("rpush", -3, lists::rpush),
    writes("lpop", -2, lists::lpop),
    writes("rpop", -2, lists::rpop),
    reads("llen", 2, lists::llen),
    reads("lrange", 4, lists::lrange),
    reads("lindex", 3, lists::lindex),
    writes("lrem", 4, lists::lrem),
    writes("ltrim", 4, lists::ltrim),
    grows("lset", 4, lists::lset),
    grows("lmove", 5, lists::lmove),
    grows("blmove", 6, lists::blmove),
    writes("blpop", -3, lists::blpop),
    writes("brpop", -3, lists::brpop),
    grows("set", -3, strings::set),
    reads("get", 2, strings::get),
    grows("incr", 2, strings::incr),
    writes("del", -2, keys::del),
    writes("unlink", -2, keys::del),
    reads("exists", -2, keys::exists),
    writes("expire", -3, keys::expire),
    writes("pexpire", -3, keys::pexpire),
    reads("ttl", 2, keys::ttl),
    reads("pttl", 2, keys::pttl),
    writes("persist", 2, keys::persist),
    reads("type", 2, keys::kind),
    reads("keys", 2, keys::keys),
    reads("scan", -2, keys::scan),
    reads("dbsize", 1, keys::dbsize),
    writes("flushdb", -1, keys::flushdb),
    writes("flushall", -1, keys::flushall),
    grows("hset", -4, hashes::hset),
    grows("hmset", -4, hashes::hmset),
    reads("hget", 3, hashes::hget),
    reads("hmget", -3, hashes::hmget),
    reads("hgetall", 2, hashes::hgetall),
    writes("hdel", -3, hashes::hdel),
    grows("sadd", -3, sets::sadd),
    writes("srem", -3, sets::srem),
    reads("smembers", 2, sets::smembers),
    reads("eval", -3, scripts::eval),
    reads("evalsha", -3, scripts::evalsha),
    reads("ping", -1, server::ping),
    reads("echo", 2, server::echo),
    reads("auth", -2, server::auth),
    reads("hello", -1, server::hello),
    reads("info", -1, server::info),
    reads("select", 2, server::select),
    reads("client", -2, server::client),
    reads("command", -1, server::command),
    reads("config", -2, server::config),
    reads("wait", 3, server::wait),
    reads("multi", 1, multi),
    reads("exec", 1, exec),
    reads("discard", 1, discard),
    // Its connection is closed in `execute`, before the number of arguments matters.
    reads("quit", -1, |_, _| Ok(Reply::OK)),
];

static BY_NAME: LazyLock<HashMap<&'static [u8], &'static Command>> =
    LazyLock::new(|| COMMANDS.iter().map(|command| (command.name.as_bytes(), command)).collect());

fn lookup(name: &[u8]) -> Option<&'static Command> {
    let mut lower = [0; 16];
    let lower = lower.get_mut(..name.len())?;
    lower.copy_from_slice(name);
    lower.make_ascii_lowercase();
    BY_NAME.get(&*lower).copied()
}

fn admit(store: &mut Store, at: Place, command: &[Bytes]) -> Result<&'static Command, Refused> {
    let found = known(command)?;
    if found.need == Need::Room && !store.has_room(at, &command[1..]) {
        return Err(Refused(OUT_OF_MEMORY.into()));
    }
    Ok(found)
}

fn known(command: &[Bytes]) -> Result<&'static Command, Refused> {
    let (name, arguments) = command.split_first().ok_or_else(|| unknown(&Bytes::new(), &[]))?;
    let found = lookup(name).ok_or_else(|| unknown(name, arguments))?;
    let given = i32::try_from(command.len()).unwrap_or(i32::MAX);
    let fits = if found.arity < 0 { given >= -found.arity } else { given == found.arity };
    if !fits {
        return Err(Refused::arity(found.name));
    }
    Ok(found)
}

fn unknown(name: &Bytes, arguments: &[Bytes]) -> Refused {
    const MOST: usize = 128;
    let shown = |bytes: &[u8], most: usize| String::from_utf8_lossy(&bytes[..bytes.len().min(most)]).into_owned();
    let mut list = String::new();
    for argument in arguments {
        if list.len() >= MOST {
            break;
        }
        list.push_str(&format!("'{}' ", shown(argument, MOST - list.len())));
    }
    let text = format!("unknown command '{}', with args beginning with: {list}", shown(name, MOST));
    // An error is one line.
    Refused::error(text.replace(['\r', '\n'], " "))
}

/// Carries one command out.
pub(super) fn execute(
    session: &mut Session,
    store: &mut Store,
    now: Millis,
    info: &Info,
    command: Vec<Bytes>,
) -> Effect {
    if command.first().is_some_and(|name| name.eq_ignore_ascii_case(b"quit")) {
        return Effect::Close(Reply::OK);
    }
    let at = Place { db: session.db, now };
    let found = match admit(store, at, &command) {
        Ok(found) => found,
        Err(Refused(text)) => {
            session.spoil();
            return Effect::Reply(Reply::Error(text));
        }
    };
    if let Some(transaction) = &mut session.transaction
        && !["multi", "exec", "discard"].contains(&found.name)
    {
        return Effect::Reply(transaction.queue(command));
    }
    let mut call = Call { session, store, now, info, wait: None };
    let reply = run(found, &mut call, &command);
    match (call.wait, &reply) {
        (Some((want, timeout)), Reply::Null | Reply::NullArray) => {
            let (number, served) = store.waiting.wait(at.db, want);
            Effect::Wait(Wait { number, served, timeout })
        }
        _ => Effect::Reply(reply),
    }
}

fn run(found: &Command, call: &mut Call<'_>, command: &[Bytes]) -> Reply {
    (found.run)(call, &command[1..]).unwrap_or_else(|Refused(text)| Reply::Error(text))
}

impl Transaction {
    fn queue(&mut self, command: Vec<Bytes>) -> Reply {
        self.size += command.iter().map(|argument| argument.len() + size_of::<Bytes>()).sum::<usize>();
        if self.size > MAX_QUEUED {
            self.commands.clear();
            self.spoilt = true;
            return Reply::Error(OUT_OF_MEMORY.into());
        }
        self.commands.push(command);
        Reply::Status("QUEUED")
    }
}

fn multi(call: &mut Call<'_>, _: &[Bytes]) -> Result<Reply, Refused> {
    if call.session.transaction.is_some() {
        return Err(Refused::error("MULTI calls can not be nested"));
    }
    call.session.transaction = Some(Transaction::default());
    Ok(Reply::OK)
}

fn discard(call: &mut Call<'_>, _: &[Bytes]) -> Result<Reply, Refused> {
    match call.session.transaction.take() {
        Some(_) => Ok(Reply::OK),
        None => Err(Refused::error("DISCARD without MULTI")),
    }
}

fn exec(call: &mut Call<'_>, _: &[Bytes]) -> Result<Reply, Refused> {
    let transaction = call.session.transaction.take().ok_or_else(|| Refused::error("EXEC without MULTI"))?;
    if transaction.spoilt {
        return Err(Refused("EXECABORT Transaction discarded because of previous errors.".into()));
    }
    let mut replies = Vec::with_capacity(transaction.commands.len());
    for command in &transaction.commands {
        let at = call.at();
        // Again: what went before it may have taken the memory.
        let reply = match admit(call.store, at, command) {
            Ok(found) => run(found, call, command),
            Err(Refused(text)) => Reply::Error(text),
        };
        replies.push(reply);
    }
    call.wait = None;
    Ok(Reply::Array(replies))
}

fn number(argument: &[u8]) -> Result<i64, Refused> {
    integer(argument).ok_or_else(|| Refused::error(NOT_AN_INTEGER))
}
