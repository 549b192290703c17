//! `cargo xtask test`: everything that CI runs; `cargo xtask check`: its quick part.

use std::path::Path;
use std::process::Command;
use std::time::Instant;

use anyhow::{Context as _, Result, ensure};

use crate::shell::{self, Package};
use crate::{compose, laravel, plugins, side_by_side, tidy};

/// What the integration tests start for real, and what shows them the system's calls and other times.
const SERVERS: [Package; 7] = [
    Package { name: "mosquitto", provides: "/usr/sbin/mosquitto" },
    Package { name: "mosquitto-clients", provides: "/usr/bin/mosquitto_pub" },
    Package { name: "mariadb-server", provides: "/usr/sbin/mariadbd" },
    Package { name: "redis-server", provides: "/usr/bin/redis-server" },
    Package { name: "redis-tools", provides: "/usr/bin/redis-cli" },
    Package { name: "strace", provides: "/usr/bin/strace" },
    // With the library that shows a process another time.
    Package { name: "faketime", provides: "/usr/bin/faketime" },
];

/// What a build is for.
#[derive(Clone, Copy)]
pub(crate) enum For {
    /// The tests, and what plays with them: they share what they build.
    Tests,
    /// What is measured and used.
    Release,
}

pub(crate) fn check(root: &Path) -> Result<()> {
    formatting(root)?;
    step("lints", || {
        shell::run(cargo(root).args(["clippy", "--workspace", "--all-targets", "--quiet", "--", "-D", "warnings"]))
    })?;
    step("house rules", || tidy::check(root))
}

fn formatting(root: &Path) -> Result<()> {
    step("formatting", || shell::run(cargo(root).args(["fmt", "--all", "--check"])))
}

pub(crate) fn test(root: &Path) -> Result<()> {
    step("servers for the tests", || shell::install(&SERVERS).and_then(|()| shell::install(&laravel::PACKAGES)))?;
    formatting(root)?;
    step("house rules", || tidy::check(root))?;
    step("advisories, licences, sources", || deny(root))?;
    step("compose file", || compose::check(root))?;
    step("plugins", || plugins::build(root, &[]).map(drop))?;
    step("lints, gateway and tests", || build(root, For::Tests))?;
    let began = Instant::now();
    println!("== tests");
    let (counts, tested) = side_by_side::run(root);
    println!("== tests: over ({:.0?})", began.elapsed());
    println!("tests: {} passed, {} failed", counts.passed, counts.failed);
    tested?;
    ensure!(counts.passed > 0, "no test ran");
    Ok(())
}

/// Servers, plugins and all programs, for the tasks that play with them.
pub(crate) fn prepare(root: &Path, what_for: For) -> Result<()> {
    shell::install(&SERVERS)?;
    plugins::build(root, &[])?;
    build(root, what_for)
}

/// All of the workspace together: built one after the other, the libraries would be built twice, with other features.
pub(crate) fn build(root: &Path, what_for: For) -> Result<()> {
    let (mut cargo, targets) = match what_for {
        For::Tests => (linted(root), &["--all-targets"][..]),
        For::Release => (cargo(root), &["--release", "--bins"][..]),
    };
    shell::run(cargo.args(["build", "--workspace", "--quiet"]).args(targets))
}

/// Clippy as the compiler of the workspace's own crates, so that one pass lints and builds them: `cargo clippy` beside `cargo build` compiles every dependency
/// twice, which is a quarter of what a fresh clone takes. For tests alone: it leaves out optimisations.
pub(crate) fn linted(root: &Path) -> Command {
    let mut cargo = cargo(root);
    cargo.env("RUSTC_WORKSPACE_WRAPPER", "clippy-driver").env("CLIPPY_ARGS", "-Dwarnings");
    cargo
}

pub(crate) fn cargo(root: &Path) -> Command {
    let mut cargo = Command::new(shell::cargo());
    cargo.current_dir(root);
    // What cargo tells this program of its own package: build scripts that look at it would run anew, and all that depends on them.
    for (name, _) in std::env::vars_os() {
        if name.to_str().is_some_and(|name| name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_")) {
            cargo.env_remove(name);
        }
    }
    cargo
}

fn step(name: &str, work: impl FnOnce() -> Result<()>) -> Result<()> {
    println!("== {name}");
    let began = Instant::now();
    work().with_context(|| format!("in step `{name}`"))?;
    println!("== {name}: good ({:.0?})", began.elapsed());
    Ok(())
}

fn deny(root: &Path) -> Result<()> {
    if !shell::quiet(Command::new("cargo-deny").arg("--version")) {
        println!("skipped: cargo-deny is not installed; `cargo install --locked cargo-deny` gets it");
        return Ok(());
    }
    let deny = || {
        let mut command = Command::new("cargo-deny");
        command.current_dir(root).arg("check");
        command
    };
    // Without its database it can judge everything but the advisories.
    if shell::quiet(Command::new("cargo-deny").current_dir(root).args(["fetch", "db"])) {
        return shell::run(deny().args(["advisories", "bans", "licenses", "sources"]));
    }
    println!("skipped: advisories, since their database cannot be reached");
    shell::run(deny().args(["bans", "licenses", "sources"]))
}

#[cfg(test)]
mod tests {
    /// Another version has other lints, and what the image builds is what CI tested.
    #[test]
    fn the_image_and_the_workspace_have_one_toolchain() {
        let read = |name: &str| std::fs::read_to_string(crate::root().join(name)).expect("a file of the root");
        let pinned = read("rust-toolchain.toml");
        let version = pinned.split("channel = \"").nth(1).and_then(|rest| rest.split('"').next()).expect("a channel");
        let dockerfile = read("Dockerfile");
        let rust = |line: &&str| line.starts_with("FROM rust:") || line.contains("RUSTUP_TOOLCHAIN=");
        let lines: Vec<&str> = dockerfile.lines().filter(rust).collect();
        assert_eq!(lines.len(), 4, "{lines:?}");
        assert!(lines.iter().all(|line| line.contains(version)), "{version}: {lines:?}");
    }

    /// Clippy reads the nearest file only.
    #[test]
    fn the_bans_of_the_host_hold_those_of_the_root() {
        let read = |name: &str| std::fs::read_to_string(crate::root().join(name)).expect("a file of bans");
        let (root, host) = (read("clippy.toml"), read("host/clippy.toml"));
        for ban in root.lines().filter(|line| line.contains("path = ")) {
            assert!(host.contains(ban), "{ban}");
        }
    }
}
