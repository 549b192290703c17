//! The page on a plugin's life shows what its commands print.

use std::fs;
use std::process::Command;

use sluicegate_tests::gateway::{another_build, binary, component, root};
use sluicegate_tests::servers::free_port;
use sluicegate_tests::{Broker, Gateway, RedisServer};

/// What differs from one run to the next: digests, keys, times, numbers of use.
fn steady(text: &str) -> String {
    let mut lines = Vec::new();
    let mut top = false;
    for line in text.lines() {
        top = if line.starts_with("$ ") { line.ends_with("plugin top") } else { top };
        let words: Vec<String> = line.split(' ').map(|word| steady_word(word, top)).collect();
        // Columns are as wide as what stands in them.
        let line = words.into_iter().filter(|word| !word.is_empty()).collect::<Vec<_>>().join(" ");
        lines.push(line);
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

#[tokio::test]
async fn its_commands_print_what_it_shows() {
    let (broker, redis) = (Broker::start().await, RedisServer::start().await);
    let settings = Gateway::settings(broker.port, redis.port, "");
    let listen = format!("127.0.0.1:{}", free_port());
    let mut gateway = Gateway::with(&settings.replace("127.0.0.1:0", &listen));
    fs::write(gateway.path("new.wasm"), another_build("heartbeat", 1)).expect("written");
    fs::write(gateway.path("bad.wasm"), component("error")).expect("written");
    gateway.run().await;

    let path = root().join("docs/plugins/lifecycle.md");
    let page = fs::read_to_string(&path).expect("the page");
    let (mut real, mut printed, mut inside) = (String::new(), String::new(), false);
    let folder = binary().parent().expect("a folder").display().to_string();
    let places = format!("{folder}:{}", std::env::var("PATH").unwrap_or_default());
    for line in page.lines() {
        inside = (inside || line == "```console") && line != "```";
        if inside && line.starts_with("$ ") {
            let mut run = Command::new("sh");
            run.args(["-c", &format!("exec 2>&1; {}", &line[2..])])
                .current_dir(gateway.path(""))
                .env("PATH", &places)
                .env_remove("RUST_LOG");
            let output = run.output().expect("a shell");
            printed = String::from_utf8(output.stdout).expect("UTF-8");
            real.push_str(&format!("{line}\n{printed}"));
        } else if !inside || line == "```console" {
            real.push_str(&format!("{line}\n"));
        }
    }
    assert!(!printed.is_empty(), "the page has commands");
    if std::env::var_os("BLESS").is_some() {
        fs::write(&path, &real).expect("written");
    }
    let page = fs::read_to_string(&path).expect("the page");
    assert_eq!(steady(&real), steady(&page), "BLESS=1 writes it anew");
}
