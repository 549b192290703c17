//! The page on a plugin's life shows what its commands print.

use std::fs;
use std::process::Command;

use sluicegate_guests::Guest;
use sluicegate_tests::gateway::{another_build, binary, component, root};
use sluicegate_tests::servers::free_port;
use sluicegate_tests::{Broker, Gateway, Machine, RedisServer, eventually};

/// Where the page says that the gateway is.
const ADDRESS: &str = "127.0.0.1:9090";
const FOLDER: &str = "/etc/sluicegate";

/// What differs from one run to the next: digests, keys, times, sizes, numbers of use.
fn steady(text: &str) -> String {
    let mut lines = Vec::new();
    let mut top = false;
    for line in text.lines() {
        top = if line.starts_with("$ ") { line.ends_with("plugin top") } else { top };
        // Columns are as wide as what stands in them.
        let words: Vec<&str> = line.split(' ').filter(|word| !word.is_empty()).collect();
        let steadied = words.iter().enumerate().map(|(place, word)| {
            let unit = words.get(place + 1).is_some_and(|next| next.starts_with("µs") || next.starts_with("bytes"));
            if unit && word.parse::<u64>().is_ok() { "N".to_owned() } else { steady_word(word, top) }
        });
        lines.push(steadied.collect::<Vec<_>>().join(" "));
    }
    lines.join("\n")
}

fn steady_word(word: &str, top: bool) -> String {
    let bare = word.trim_matches(|c: char| "(),:;\"[]".contains(c));
    let hex = |text: &str| text.bytes().all(|byte| byte.is_ascii_hexdigit());
    let digest = bare.trim_start_matches("sha256:");
    let found = match bare {
        _ if hex(digest) && (digest.len() == 64 || digest.len() == 12) => "DIGEST",
        _ if hex(bare) && bare.len() == 16 => "KEY",
        _ if bare.starts_with("RW") && bare.len() == 56 => "KEY",
        _ if bare.len() == 20 && bare.ends_with('Z') && bare.as_bytes()[10] == b'T' => "TIME",
        _ if top && (bare == "-" || bare.parse::<u64>().is_ok()) => "N",
        _ => return word.to_owned(),
    };
    word.replace(bare, found)
}

/// The stock plugins and routes, written out, so that the page can change them.
fn stock() -> String {
    let text = fs::read_to_string(root().join("config/sluicegate.toml")).expect("the built-in settings");
    let (from, to) = (text.find("[plugins.heartbeat]").expect("plugins"), text.find("\n[admin]").expect("the end"));
    text[from..to].to_owned()
}

/// Takes all that comes.
fn loose() -> Vec<u8> {
    let manifest = "name = \"heartbeat\"\nversion = \"0.2.0\"\ndescription = \"Takes all that comes.\"\n".to_owned();
    Guest { manifest, ..Guest::echo() }.handler()
}

/// What the page shows behind a line.
fn shown(page: &str, line: &str) -> String {
    let behind = page.lines().skip_while(|other| *other != line).skip(1);
    behind.take_while(|line| !line.starts_with("$ ") && *line != "```").map(|line| format!("{line}\n")).collect()
}

#[tokio::test]
async fn its_commands_print_what_it_shows() {
    let (broker, redis) = (Broker::start().await, RedisServer::start().await);
    let settings = Gateway::settings(broker.port, redis.port, &stock());
    let listen = format!("127.0.0.1:{}", free_port());
    let mut gateway = Gateway::with(&settings.replace("127.0.0.1:0", &listen));
    for (name, bytes) in [
        ("new.wasm", another_build("heartbeat", 7)),
        ("careful.wasm", another_build("heartbeat", 2)),
        ("loose.wasm", loose()),
        ("bad.wasm", component("error")),
    ] {
        fs::write(gateway.path(name), bytes).expect("written");
    }
    gateway.run().await;
    let machine = Machine::connect(broker.port, "M-001", None).await;
    for payload in [r#"{"current_page":1,"temperature":25.5}"#, r#"{"current_page":"one"}"#] {
        machine.publish("machine/M-001/heartbeat", payload).await;
    }
    gateway.counts(&[("received", 2), ("in_flight", 0)]).await;

    let path = root().join("docs/plugins/lifecycle.md");
    let page = fs::read_to_string(&path).expect("the page");
    let (mut real, mut printed, mut inside) = (String::new(), String::new(), false);
    let folder = binary().parent().expect("a folder").display().to_string();
    let places = format!("{folder}:{}", std::env::var("PATH").unwrap_or_default());
    let here = gateway.path("").display().to_string();
    let here = here.trim_end_matches('/');
    for line in page.lines() {
        inside = (inside || line == "```console") && line != "```";
        if inside && line.starts_with("$ ") {
            let typed = line[2..].replace(ADDRESS, &listen);
            let mut run = Command::new("sh");
            run.args(["-c", &format!("exec 2>&1; {typed}")])
                .current_dir(gateway.path(""))
                .env("PATH", &places)
                .env("SLUICEGATE_CONFIG", "sluicegate.toml")
                .env_remove("RUST_LOG");
            let output = run.output().expect("a shell");
            printed = String::from_utf8(output.stdout).expect("UTF-8");
            // The gateway looks after its file by itself, and may be faster than who tells it to.
            if let Some(now) = printed.strip_prefix("nothing changed; ") {
                let told = shown(&page, line);
                assert!(line.contains("config reload") && told.starts_with(now), "{now} {told}");
                printed = told;
            }
            real.push_str(&format!("{line}\n{}", printed.replace(here, FOLDER).replace(&listen, ADDRESS)));
            if line.contains("plugin load") && !line.contains("--wait") {
                eventually("what was put into its place is a canary", async || {
                    gateway.plugin("heartbeat").await?["canary"]["until"].is_string().then_some(())
                })
                .await;
            }
        } else if !inside || line == "```console" {
            real.push_str(&format!("{line}\n"));
        }
    }
    assert!(!printed.is_empty(), "the page has commands");
    for command in [
        "list", "load", "inspect", "test", "diff", "compile", "sign", "verify", "promote", "rollback", "history", "top",
    ] {
        assert!(page.contains(&format!("$ sluicegate plugin {command}")), "the page does not show `plugin {command}`");
    }
    if std::env::var_os("BLESS").is_some() {
        fs::write(&path, &real).expect("written");
    }
    let page = fs::read_to_string(&path).expect("the page");
    assert_eq!(steady(&real), steady(&page), "BLESS=1 writes it anew");
}
