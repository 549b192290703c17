//! Commands and their replies, without a socket and with a time that the test sets; and that no command panics.

use bytes::{Bytes, BytesMut};
use proptest::prelude::*;

use super::{COMMANDS, Effect, Info, Session, Wait, execute};
use crate::embedded::resp::store::{MAX_MEMORY, Millis, Place, Store};

/// A server without sockets, and one client of it.
#[derive(Default)]
struct Bench {
    store: Store,
    session: Session,
    now: Millis,
}

impl Bench {
    fn run(&mut self, words: Vec<Bytes>) -> Effect {
        let info = Info { port: 6379, clients: 1 };
        let effect = execute(&mut self.session, &mut self.store, self.now, &info, words);
        self.store.serve(self.now);
        effect
    }

    fn effect(&mut self, line: &str) -> Effect {
        self.run(line.split(' ').map(|word| Bytes::from(word.to_owned())).collect())
    }

    fn ask(&mut self, line: &str) -> String {
        match self.effect(line) {
            Effect::Reply(reply) | Effect::Close(reply) => {
                let mut output = BytesMut::new();
                reply.encode(&mut output);
                String::from_utf8_lossy(&output).replace("\r\n", " ").trim_end().to_owned()
            }
            Effect::Wait(_) => "(waits)".to_owned(),
        }
    }

    fn wait(&mut self, line: &str) -> Wait {
        match self.effect(line) {
            Effect::Wait(wait) => wait,
            other => panic!("{line} does not wait: {other:?}"),
        }
    }

    #[track_caller]
    fn check(&mut self, table: &[(&str, &str)]) {
        for (line, expected) in table {
            assert_eq!(self.ask(line), *expected, "{line}");
        }
    }
}

#[test]
fn keys_expire_when_their_time_has_come() {
    let mut bench = Bench::default();
    bench.check(&[
        ("SET k v PX 1500", "+OK"),
        ("PTTL k", ":1500"),
        ("TTL k", ":2"),
        ("RPUSH l a", ":1"),
        ("EXPIRE l 1", ":1"),
    ]);
    bench.now = 999;
    bench.check(&[("GET k", "$1 v"), ("LLEN l", ":1"), ("DBSIZE", ":2"), ("TTL k", ":1")]);
    bench.now = 1000;
    bench.check(&[("LLEN l", ":0"), ("RPUSH l b", ":1"), ("TTL l", ":-1"), ("DEL l", ":1")]);
    bench.now = 1500;
    bench.check(&[("GET k", "$-1"), ("DEL k", ":0"), ("DBSIZE", ":0"), ("TTL k", ":-2")]);
    assert_eq!(bench.store.used(), 0);
}

#[test]
fn expired_keys_that_nobody_asks_for_are_not_counted_or_listed() {
    let mut bench = Bench::default();
    bench.check(&[("SET a 1 PX 10", "+OK"), ("SET b 1", "+OK")]);
    bench.now = 10;
    bench.check(&[("KEYS *", "*1 $1 b"), ("DBSIZE", ":1"), ("SCAN 0", "*2 $1 0 *1 $1 b")]);
}

#[test]
fn waiting_clients_are_served_in_the_order_of_their_arrival() {
    let mut bench = Bench::default();
    let mut first = bench.wait("BLPOP k 0").served;
    let mut second = bench.wait("BRPOP other k 0").served;
    let mut third = bench.wait("BLMOVE k done LEFT RIGHT 0").served;
    assert_eq!(bench.ask("RPUSH k a b c d"), ":4");
    let reply = |served: &mut tokio::sync::oneshot::Receiver<_>| -> String {
        let served: crate::embedded::resp::waiting::Served = served.try_recv().expect("was served");
        format!("{:?}", served.reply)
    };
    assert_eq!(reply(&mut first), r#"Array([Bulk(b"k"), Bulk(b"a")])"#);
    assert_eq!(reply(&mut second), r#"Array([Bulk(b"k"), Bulk(b"d")])"#);
    assert_eq!(reply(&mut third), r#"Bulk(b"b")"#);
    bench.check(&[
        ("LRANGE k 0 -1", "*1 $1 c"),
        ("LRANGE done 0 -1", "*1 $1 b"),
        ("RPUSH other x", ":1"),
        ("LLEN other", ":1"),
    ]);
}

#[test]
fn a_client_that_is_gone_gets_nothing() {
    let mut bench = Bench::default();
    drop(bench.wait("BLPOP k 0").served);
    let forgotten = bench.wait("BLPOP k 0");
    assert!(bench.store.waiting.forget(forgotten.number));
    let mut there = bench.wait("BLPOP k 0").served;
    bench.check(&[("RPUSH k a b", ":2"), ("LRANGE k 0 -1", "*1 $1 b")]);
    let served = there.try_recv().expect("was served");
    // It turns out to be gone while its reply is written.
    bench.store.put_back(served.taken.expect("an element was taken"), 0);
    bench.check(&[("LRANGE k 0 -1", "*2 $1 a $1 b")]);
    assert_eq!(bench.store.waiting.count(), 0);
}

#[test]
fn a_transaction_is_over_before_anybody_is_served() {
    let mut bench = Bench::default();
    let mut served = bench.wait("BLPOP k 0").served;
    bench.check(&[
        ("MULTI", "+OK"),
        ("RPUSH k a", "+QUEUED"),
        ("LPOP k", "+QUEUED"),
        ("RPUSH k b", "+QUEUED"),
        ("BLPOP nothing 0", "+QUEUED"),
        ("EXEC", "*4 :1 $1 a :1 *-1"),
    ]);
    let served = served.try_recv().expect("was served");
    assert_eq!(format!("{:?}", served.reply), r#"Array([Bulk(b"k"), Bulk(b"b")])"#);
}

#[test]
fn a_move_that_serves_one_client_serves_the_next() {
    let mut bench = Bench::default();
    let mut moves = bench.wait("BLMOVE a b LEFT RIGHT 0").served;
    let mut pops = bench.wait("BLPOP b 0").served;
    assert_eq!(bench.ask("RPUSH a x"), ":1");
    assert!(moves.try_recv().is_ok() && pops.try_recv().is_ok());
    assert_eq!(bench.ask("EXISTS a b"), ":0");
}

#[test]
fn a_list_that_is_turned_within_itself_keeps_its_expiry() {
    let mut bench = Bench::default();
    bench.check(&[("RPUSH l a", ":1"), ("EXPIRE l 100", ":1"), ("LMOVE l l LEFT RIGHT", "$1 a"), ("TTL l", ":100")]);
}

#[test]
fn writes_are_refused_where_there_is_no_memory() {
    let mut bench = Bench::default();
    let big = Bytes::from(vec![b'x'; 60 << 20]);
    let refused = "-OOM command not allowed when used memory > 'maxmemory'.";
    for key in ["a", "b", "c", "d"] {
        bench.run(vec![Bytes::from("SET"), Bytes::from(key), big.clone(), Bytes::from("PX"), Bytes::from("1000")]);
    }
    bench.check(&[("DBSIZE", ":4"), ("LLEN l", ":0")]);
    assert!(matches!(
        bench.run(vec![Bytes::from("RPUSH"), Bytes::from("l"), big.clone()]),
        Effect::Reply(crate::embedded::resp::frame::Reply::Error(text)) if format!("-{text}") == refused
    ));
    assert!(bench.store.used() <= MAX_MEMORY);
    bench.check(&[("RPUSH l small", ":1"), ("DEL a", ":1")]);
    // What has expired makes room, though nobody asked for it.
    bench.now = 1000;
    bench.run(vec![Bytes::from("RPUSH"), Bytes::from("l"), big]);
    bench.check(&[("LLEN l", ":2"), ("DBSIZE", ":1"), ("FLUSHALL", "+OK")]);
    assert_eq!(bench.store.used(), 0);
}

#[test]
fn a_blocking_time_out_may_be_a_fraction_or_none() {
    let mut bench = Bench::default();
    let timeout = |bench: &mut Bench, line| bench.wait(line).timeout.map(|timeout| timeout.as_millis());
    assert_eq!(timeout(&mut bench, "BLPOP k 0"), None);
    assert_eq!(timeout(&mut bench, "BLPOP k 0.25"), Some(250));
    assert_eq!(timeout(&mut bench, "BLPOP k 0.0001"), Some(1));
    assert_eq!(timeout(&mut bench, "BLMOVE k l LEFT LEFT 5"), Some(5000));
}

#[test]
fn a_hello_tells_what_libraries_look_for() {
    let mut bench = Bench::default();
    let told = bench.ask("HELLO 2 AUTH default any SETNAME me");
    assert!(told.starts_with("*14 $6 server $5 redis $7 version $5 7.0.0 $5 proto :2 $2 id :"), "{told}");
    bench.check(&[
        ("CLIENT GETNAME", "$2 me"),
        ("HELLO 3", "-NOPROTO unsupported protocol version"),
        ("CLIENT SETINFO LIB-NAME x", "+OK"),
    ]);
}

#[test]
fn a_place_in_a_list_is_replaced_and_a_set_has_each_member_once() {
    let mut bench = Bench::default();
    bench.check(&[
        ("LSET l 0 x", "-ERR no such key"),
        ("RPUSH l a b", ":2"),
        ("LSET l -1 longer", "+OK"),
        ("LSET l 2 x", "-ERR index out of range"),
        ("LRANGE l 0 -1", "*2 $1 a $6 longer"),
        ("SADD s a b a", ":2"),
        ("SADD s b", ":0"),
        ("SMEMBERS s", "*2 $1 a $1 b"),
        ("TYPE s", "+set"),
        ("SADD l a", "-WRONGTYPE Operation against a key holding the wrong kind of value"),
        ("SREM s a b c", ":2"),
        ("EXISTS s", ":0"),
        ("DEL l", ":1"),
    ]);
    assert_eq!(bench.store.used(), 0);
}

impl Bench {
    fn eval(&mut self, script: &str, keys: usize, rest: &[&str]) -> String {
        let keys = keys.to_string();
        let words = ["EVAL", script, &keys].into_iter().chain(rest.iter().copied());
        match self.run(words.map(|word| Bytes::from(word.to_owned())).collect()) {
            Effect::Reply(reply) => {
                let mut output = BytesMut::new();
                reply.encode(&mut output);
                String::from_utf8_lossy(&output).replace("\r\n", " ").trim_end().to_owned()
            }
            other => panic!("{script}: {other:?}"),
        }
    }
}

#[test]
fn a_lease_goes_its_way() {
    use sluicegate_core::lease::scripts::{RELEASE, RENEW, START, SUCCEED};
    let mut bench = Bench::default();
    let keys = ["lease", "starts", "all"];
    let start = |bench: &mut Bench| bench.eval(START, 3, &[keys[0], keys[1], keys[2], "1000", "me"]);
    let renew = |bench: &mut Bench, number: &str| bench.eval(RENEW, 2, &[keys[0], keys[1], number, "1000"]);
    let succeed =
        |bench: &mut Bench, before: &str| bench.eval(SUCCEED, 3, &[keys[0], keys[1], keys[2], "1000", "me", before]);
    assert_eq!(bench.ask("EVALSHA abc 0"), "-NOSCRIPT No matching script. Please use EVAL.");
    assert_eq!(start(&mut bench), ":1");
    bench.check(&[("SMEMBERS all", "*1 $2 me"), ("PTTL lease", ":1000")]);
    bench.now = 900;
    assert_eq!(renew(&mut bench, "1"), ":1");
    bench.check(&[("PTTL lease", ":1000")]);
    // It ran out, and is held again under another number; asked twice, nothing has changed.
    bench.now = 2000;
    assert_eq!(renew(&mut bench, "1"), ":-1");
    assert_eq!(renew(&mut bench, "1"), ":-1");
    assert_eq!(succeed(&mut bench, "1"), ":2");
    // A newer process has it.
    assert_eq!(start(&mut bench), ":3");
    assert_eq!(renew(&mut bench, "2"), ":0");
    assert_eq!(succeed(&mut bench, "2"), ":0");
    assert_eq!(bench.eval(RELEASE, 1, &["lease", "2"]), ":1");
    bench.check(&[("EXISTS lease", ":1")]);
    assert_eq!(bench.eval(RELEASE, 1, &["lease", "3"]), ":1");
    bench.check(&[("EXISTS lease", ":0")]);
    assert_eq!(succeed(&mut bench, "2"), ":4");
    // Whatever Redis has forgotten: numbers only grow.
    assert_eq!(bench.eval(RELEASE, 1, &["lease", "4"]), ":1");
    bench.ask("DEL starts");
    assert_eq!(succeed(&mut bench, "4"), ":5");
}

#[test]
fn a_script_knows_the_size_of_a_text_and_answers_with_a_list() {
    let mut bench = Bench::default();
    bench.check(&[("RPUSH l a bc", ":2")]);
    let size = "local last = redis.call('LINDEX', KEYS[1], 1) return #last";
    assert_eq!(bench.eval(size, 1, &["l"]), ":2");
    assert_eq!(bench.eval("return redis.call('LRANGE', KEYS[1], 0, 0 - 1)", 1, &["l"]), "*2 $1 a $2 bc");
    assert_eq!(bench.eval("return redis.call('LRANGE', KEYS[1], 1, 0)", 1, &["l"]), "*0");
    let number = "local one = 1 return #one";
    assert!(bench.eval(number, 0, &[]).contains("`#` is of a text"));
}

#[test]
fn what_a_script_may_not_do_is_said_and_what_it_did_stands() {
    let mut bench = Bench::default();
    let check =
        |bench: &mut Bench, script: &str, expected: &str| assert_eq!(bench.eval(script, 0, &[]), expected, "{script}");
    for (script, why) in [
        ("return redis.call('BLPOP', 'k', '0')", "$-1"),
        ("return redis.call('MULTI')", "-ERR This Redis command is not allowed from script"),
        ("return redis.call('NONE')", "-ERR unknown command 'NONE', with args beginning with: "),
        ("return redis.call('INCR', 'l')", "-WRONGTYPE Operation against a key holding the wrong kind of value"),
        ("return 1 .. 2", "-ERR the embedded Redis knows only a part of Lua; in this script, `..` is not known here"),
        (
            "x = 1",
            "-ERR the embedded Redis knows only a part of Lua; in this script, `x` is no local; scripts have no globals",
        ),
        (
            "while 1 do local x = 2 end",
            "-ERR the embedded Redis knows only a part of Lua; in this script, it takes too many steps",
        ),
    ] {
        bench.check(&[("RPUSH l a", ":1")]);
        check(&mut bench, script, why.trim_end());
        bench.check(&[("DEL l", ":1")]);
    }
    let deep = format!("return {}1{}", "(".repeat(10_000), ")".repeat(10_000));
    assert!(bench.eval(&deep, 0, &[]).ends_with("it is too deep"));
    let many = format!("return {}1", "- ".repeat(10_000));
    assert!(bench.eval(&many, 0, &[]).ends_with("it is too deep"));
    // Blocks have names of their own, and loops end.
    let script = "local x, = 1";
    assert!(bench.eval(script, 0, &[]).starts_with("-ERR"));
    let script =
        "local x = 1 for i = 1, #ARGV do local x = tonumber(ARGV[i]) redis.call('RPUSH', 'l', x + x) end return x";
    assert_eq!(bench.eval(script, 0, &["1", "2"]), ":1");
    bench.check(&[("LRANGE l 0 -1", "*2 $1 2 $1 4")]);
    assert_eq!(bench.eval("redis.call('DEL', 'l') return redis.call('INCR', KEYS[1]) - 3", 1, &["n"]), ":-2");
    assert_eq!(
        bench.eval("if redis.call('GET', 'n') == '1' and not_there then return 1 end", 0, &[]).split(' ').next(),
        Some("-ERR")
    );
}

fn word() -> impl Strategy<Value = Bytes> {
    let names: Vec<&'static str> = COMMANDS.iter().map(|command| command.name).collect();
    let likely = [
        "k",
        "l",
        "h",
        "0",
        "1",
        "-1",
        "2",
        "-9223372036854775808",
        "9223372036854775807",
        "0.1",
        "left",
        "right",
        "ex",
        "px",
        "nx",
        "xx",
        "get",
        "match",
        "*",
        "[a-",
        "count",
        "setname",
        "1e300",
        "nan",
        "inf",
        "",
    ];
    prop_oneof![
        3 => proptest::sample::select(names).prop_map(Bytes::from),
        10 => proptest::sample::select(likely.to_vec()).prop_map(Bytes::from),
        1 => proptest::collection::vec(any::<u8>(), 0..20).prop_map(Bytes::from),
    ]
}

fn command() -> impl Strategy<Value = Vec<Bytes>> {
    let names: Vec<&'static str> = COMMANDS.iter().map(|command| command.name).collect();
    (proptest::sample::select(names), proptest::collection::vec(word(), 0..6))
        .prop_map(|(name, rest)| std::iter::once(Bytes::from(name)).chain(rest).collect())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    /// No text is too odd for a script.
    #[test]
    fn any_script_is_survived(words in proptest::collection::vec(proptest::sample::select(vec![
        "local", "if", "then", "end", "while", "do", "for", "return", "x", "=", "==", "~=", "1", "2", "'k'", "KEYS", "ARGV", "[", "]",
        "(", ")", "#", "-", "+", "or", "and", "redis.call", "tonumber", ",", "nil", "'GET'", "'SET'", "true", ">",
    ]), 0..40)) {
        let mut bench = Bench::default();
        bench.eval(&words.join(" "), 1, &["k", "v"]);
    }

    /// Whatever is asked, nothing panics, and the memory is counted right: an empty server takes none.
    #[test]
    fn any_commands_are_survived(commands in proptest::collection::vec((command(), 0_i64..2000), 0..60)) {
        let mut bench = Bench::default();
        let mut waiting = Vec::new();
        for (command, later) in commands {
            bench.now += later;
            if let Effect::Wait(wait) = bench.run(command) {
                waiting.push(wait);
            }
        }
        for db in 0..16 {
            bench.store.counts(Place { db, now: bench.now });
        }
        prop_assert!(bench.store.used() <= MAX_MEMORY);
        bench.session = Session::default();
        bench.ask("FLUSHALL");
        prop_assert_eq!(bench.store.used(), 0);
        for wait in waiting {
            bench.store.waiting.forget(wait.number);
        }
        prop_assert_eq!(bench.store.waiting.count(), 0);
    }
}
