//! Commands about the connection and the server: those with which client libraries open a connection.

use bytes::Bytes;

use super::glob::matches;
use super::{Call, Info, NOT_AN_INTEGER, Refused, Reply, SYNTAX, number};
use crate::embedded::resp::MAX_CLIENTS;
use crate::embedded::resp::frame::{MAX_BULK, integer};
use crate::embedded::resp::store::{DATABASES, MAX_MEMORY, Place, Store};

/// The version whose commands these are: libraries choose what they send by it.
const VERSION: &str = "7.0.0";

pub(super) fn ping(_: &mut Call<'_>, arguments: &[Bytes]) -> Result<Reply, Refused> {
    match arguments {
        [] => Ok(Reply::Status("PONG")),
        [text] => Ok(Reply::Bulk(text.clone())),
        _ => Err(Refused::arity("ping")),
    }
}

pub(super) fn echo(_: &mut Call<'_>, arguments: &[Bytes]) -> Result<Reply, Refused> {
    Ok(Reply::Bulk(arguments[0].clone()))
}

/// As a Redis whose default user needs no password.
pub(super) fn auth(_: &mut Call<'_>, arguments: &[Bytes]) -> Result<Reply, Refused> {
    match arguments {
        [_] => Err(Refused::error(
            "AUTH <password> called without any password configured for the default user. Are you sure your configuration \
             is correct?",
        )),
        [user, _] => log_in(user),
        _ => Err(Refused::error(SYNTAX)),
    }
}

fn log_in(user: &[u8]) -> Result<Reply, Refused> {
    if user == b"default" {
        Ok(Reply::OK)
    } else {
        Err(Refused("WRONGPASS invalid username-password pair or user is disabled.".into()))
    }
}

/// RESP2 only: libraries that would rather have RESP3 go back to it when they hear so.
pub(super) fn hello(call: &mut Call<'_>, arguments: &[Bytes]) -> Result<Reply, Refused> {
    let mut name = None;
    if let [version, options @ ..] = arguments {
        let version = integer(version);
        let version = version.ok_or_else(|| Refused::error("Protocol version is not an integer or out of range"))?;
        if version != 2 {
            return Err(Refused("NOPROTO unsupported protocol version".into()));
        }
        let mut rest = options;
        while let [option, tail @ ..] = rest {
            match (option.to_ascii_uppercase().as_slice(), tail) {
                (b"AUTH", [user, _, tail @ ..]) => {
                    log_in(user)?;
                    rest = tail;
                }
                (b"SETNAME", [value, tail @ ..]) => {
                    name = Some(client_name(value)?);
                    rest = tail;
                }
                _ => {
                    let option = String::from_utf8_lossy(option).replace(['\r', '\n'], " ");
                    return Err(Refused::error(format!("Syntax error in HELLO option '{option}'")));
                }
            }
        }
    }
    if let Some(name) = name {
        call.session.name = name;
    }
    Ok(Reply::Array(vec![
        Reply::text("server"),
        Reply::text("redis"),
        Reply::text("version"),
        Reply::text(VERSION),
        Reply::text("proto"),
        Reply::Integer(2),
        Reply::text("id"),
        Reply::Integer(call.session.id),
        Reply::text("mode"),
        Reply::text("standalone"),
        Reply::text("role"),
        Reply::text("master"),
        Reply::text("modules"),
        Reply::Array(Vec::new()),
    ]))
}

fn client_name(name: &Bytes) -> Result<Bytes, Refused> {
    if name.iter().all(|byte| (b'!'..=b'~').contains(byte)) {
        Ok(Bytes::copy_from_slice(name))
    } else {
        Err(Refused::error("Client names cannot contain spaces, newlines or special characters."))
    }
}

pub(super) fn select(call: &mut Call<'_>, arguments: &[Bytes]) -> Result<Reply, Refused> {
    let index = number(&arguments[0])?;
    if i32::try_from(index).is_err() {
        return Err(Refused::error(NOT_AN_INTEGER));
    }
    let db = usize::try_from(index).ok().filter(|db| *db < DATABASES);
    call.session.db = db.ok_or_else(|| Refused::error("DB index is out of range"))?;
    Ok(Reply::OK)
}

pub(super) fn client(call: &mut Call<'_>, arguments: &[Bytes]) -> Result<Reply, Refused> {
    let (subcommand, rest) = (&arguments[0], &arguments[1..]);
    match (subcommand.to_ascii_lowercase().as_slice(), rest) {
        (b"setname", [name]) => {
            call.session.name = client_name(name)?;
            Ok(Reply::OK)
        }
        (b"getname", []) if call.session.name.is_empty() => Ok(Reply::Null),
        (b"getname", []) => Ok(Reply::Bulk(call.session.name.clone())),
        (b"id", []) => Ok(Reply::Integer(call.session.id)),
        // What library it is changes nothing here.
        (b"setinfo", [_, _]) => Ok(Reply::OK),
        (name @ (b"setname" | b"getname" | b"id" | b"setinfo"), _) => {
            Err(Refused::arity(&format!("client|{}", String::from_utf8_lossy(name))))
        }
        _ => Err(unknown_subcommand(subcommand, "CLIENT")),
    }
}

fn unknown_subcommand(subcommand: &[u8], command: &str) -> Refused {
    let shown = String::from_utf8_lossy(&subcommand[..subcommand.len().min(128)]).replace(['\r', '\n'], " ");
    Refused::error(format!("unknown subcommand '{shown}'. Try {command} HELP."))
}

/// Nothing is told of the commands: clients do without.
pub(super) fn command(_: &mut Call<'_>, arguments: &[Bytes]) -> Result<Reply, Refused> {
    match arguments.first().map(|subcommand| subcommand.to_ascii_lowercase()).as_deref() {
        None | Some(b"docs" | b"info" | b"list") => Ok(Reply::Array(Vec::new())),
        Some(b"count") if arguments.len() == 1 => Ok(Reply::count(super::COMMANDS.len())),
        Some(b"count") => Err(Refused::arity("command|count")),
        Some(_) => Err(unknown_subcommand(&arguments[0], "COMMAND")),
    }
}

pub(super) fn config(_: &mut Call<'_>, arguments: &[Bytes]) -> Result<Reply, Refused> {
    let (subcommand, patterns) = (&arguments[0], &arguments[1..]);
    if !subcommand.eq_ignore_ascii_case(b"get") {
        return Err(unknown_subcommand(subcommand, "CONFIG"));
    }
    if patterns.is_empty() {
        return Err(Refused::arity("config|get"));
    }
    let settings = [
        ("appendonly", "no".to_owned()),
        ("databases", DATABASES.to_string()),
        ("maxclients", MAX_CLIENTS.to_string()),
        ("maxmemory", MAX_MEMORY.to_string()),
        ("maxmemory-policy", "noeviction".to_owned()),
        ("proto-max-bulk-len", MAX_BULK.to_string()),
        ("save", String::new()),
        ("timeout", "0".to_owned()),
    ];
    let asked = |name: &str| patterns.iter().any(|pattern| matches(&pattern.to_ascii_lowercase(), name.as_bytes()));
    let found = settings.into_iter().filter(|(name, _)| asked(name));
    Ok(Reply::Array(found.flat_map(|(name, value)| [Reply::text(name), Reply::text(value)]).collect()))
}

/// There are no replicas, so none will ever have it.
pub(super) fn wait(_: &mut Call<'_>, arguments: &[Bytes]) -> Result<Reply, Refused> {
    number(&arguments[0])?;
    match integer(&arguments[1]) {
        None => Err(Refused::error("timeout is not an integer or out of range")),
        Some(timeout) if timeout < 0 => Err(Refused::error("timeout is negative")),
        Some(_) => Ok(Reply::Integer(0)),
    }
}

pub(super) fn info(call: &mut Call<'_>, arguments: &[Bytes]) -> Result<Reply, Refused> {
    type Section = fn(&Info, &mut Store, Place) -> String;
    let every: [(&str, Section); 6] = [
        ("Server", |info, _, at| {
            format!(
                "redis_version:{VERSION}\r\nredis_mode:standalone\r\nprocess_id:{}\r\ntcp_port:{}\r\n\
                 uptime_in_seconds:{}\r\nserver_name:sluicegate embedded\r\n",
                std::process::id(),
                info.port,
                at.now / 1000
            )
        }),
        ("Clients", |info, store, _| {
            format!(
                "connected_clients:{}\r\nmaxclients:{MAX_CLIENTS}\r\nblocked_clients:{}\r\n",
                info.clients,
                store.waiting.count()
            )
        }),
        ("Memory", |_, store, _| {
            format!("used_memory:{}\r\nmaxmemory:{MAX_MEMORY}\r\nmaxmemory_policy:noeviction\r\n", store.used())
        }),
        ("Persistence", |_, _, _| "loading:0\r\naof_enabled:0\r\n".to_owned()),
        ("Replication", |_, _, _| "role:master\r\nconnected_slaves:0\r\n".to_owned()),
        ("Keyspace", |_, store, at| {
            let mut lines = String::new();
            for db in 0..DATABASES {
                let (keys, expires) = store.counts(Place { db, ..at });
                if keys > 0 {
                    lines.push_str(&format!("db{db}:keys={keys},expires={expires},avg_ttl=0\r\n"));
                }
            }
            lines
        }),
    ];
    let all =
        |name: &Bytes| ["all", "default", "everything"].iter().any(|all| name.eq_ignore_ascii_case(all.as_bytes()));
    let asked = |section: &str| {
        arguments.is_empty() || arguments.iter().any(|name| all(name) || name.eq_ignore_ascii_case(section.as_bytes()))
    };
    let at = call.at();
    let told = every.into_iter().filter(|(section, _)| asked(section));
    let told: Vec<_> =
        told.map(|(section, tell)| format!("# {section}\r\n{}", tell(call.info, call.store, at))).collect();
    Ok(Reply::text(told.join("\r\n")))
}
