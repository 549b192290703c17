//! Test programs beside each other, since those with real servers wait for most of their time. What each prints stays together.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;

use anyhow::{Context as _, Result, anyhow, ensure};
use serde_json::Value;

use crate::{laravel, shell, test};

/// Programs that have rows of their own.
const GATEWAY: &str = "gateway";
const BACK_END: [&str; 2] = ["backend", "demo"];
/// Tests of the gateway at once for each core: more than of others, since they wait for servers most of the time.
const GATEWAYS: usize = 3;
/// The same of all others.
const OTHERS: usize = 2;

#[derive(Default)]
pub(crate) struct Counts {
    pub(crate) passed: u64,
    pub(crate) failed: u64,
}

type Ran = (Counts, Result<()>);

/// Runs all tests, and adds up what they say at their ends.
pub(crate) fn run(root: &Path) -> Ran {
    thread::scope(|scope| {
        let rows = [
            scope.spawn(|| cargo_test(root, &["--test", GATEWAY], GATEWAYS)),
            scope.spawn(|| {
                let [backend, demo] = BACK_END;
                let tested = cargo_test(root, &["--test", backend, "--test", demo], OTHERS);
                // The examples in the documentation.
                both(tested, cargo_test(root, &["--doc"], OTHERS))
            }),
            scope.spawn(|| the_others(root)),
            scope.spawn(|| laravel::test(root)),
        ];
        let ended = rows.map(|row| row.join().unwrap_or_else(|_| (Counts::default(), Err(anyhow!("it panicked")))));
        ended.into_iter().fold((Counts::default(), Ok(())), both)
    })
}

/// Of two mistakes the first is told; both were printed.
fn both((counts, outcome): Ran, (more, then): Ran) -> Ran {
    (Counts { passed: counts.passed + more.passed, failed: counts.failed + more.failed }, outcome.and(then))
}

/// Every program that has no row of its own.
fn the_others(root: &Path) -> Ran {
    let programs = match programs(root) {
        Ok(programs) => programs,
        Err(error) => return (Counts::default(), Err(error)),
    };
    let others = programs.iter().map(String::as_str).filter(|name| *name != GATEWAY && !BACK_END.contains(name));
    let arguments: Vec<&str> =
        ["--lib", "--bins"].into_iter().chain(others.flat_map(|name| ["--test", name])).collect();
    cargo_test(root, &arguments, OTHERS)
}

/// The workspace's programs of integration tests.
fn programs(root: &Path) -> Result<Vec<String>> {
    let told = test::cargo(root).args(["metadata", "--no-deps", "--format-version", "1"]).output()?;
    let metadata: Value = serde_json::from_slice(&told.stdout).context("`cargo metadata` tells no JSON")?;
    let packages = metadata["packages"].as_array().into_iter().flatten();
    let targets = packages.flat_map(|package| package["targets"].as_array().into_iter().flatten());
    let tests = targets.filter(|target| target["kind"][0] == "test");
    let names: Vec<String> = tests.filter_map(|target| target["name"].as_str().map(str::to_owned)).collect();
    for row in BACK_END.into_iter().chain([GATEWAY]) {
        ensure!(names.iter().any(|name| name == row), "`cargo metadata` names no test `{row}`");
    }
    Ok(names)
}

fn cargo_test(root: &Path, which: &[&str], of_a_core: usize) -> Ran {
    let mut command = test::linted(root);
    command.args(["test", "--workspace", "--no-fail-fast"]).args(which);
    // Those of the documentation are built there, too, and memory may be no place for programs.
    if which != ["--doc"] {
        shell::in_memory(&mut command);
    }
    if std::env::var_os("RUST_TEST_THREADS").is_none() {
        let cores = thread::available_parallelism().map_or(1, std::num::NonZero::get);
        command.env("RUST_TEST_THREADS", (of_a_core * cores).to_string());
    }
    let mut counts = Counts::default();
    let ended = lines(command, |line, block| {
        let Some((passed, failed)) = result(line) else { return false };
        counts.passed += passed;
        counts.failed += failed;
        // A program without tests says nothing that is worth a line.
        if passed + failed == 0 {
            block.clear();
        }
        true
    });
    let ended = ended.and_then(|good| {
        ensure!(
            good,
            "`cargo test --workspace {}` failed; `cargo test -p PACKAGE NAME` runs one alone",
            which.join(" ")
        );
        Ok(())
    });
    (counts, ended)
}

/// Shows what a command prints: each test as it ends, the rest in pieces that belong together. `is_last` says whether a line is the last of one, and may
/// take away what is not worth showing. Gives whether the command succeeded.
pub(crate) fn lines(mut command: Command, mut is_last: impl FnMut(&str, &mut Vec<String>) -> bool) -> Result<bool> {
    let mut child =
        command.stdout(Stdio::piped()).spawn().with_context(|| format!("starting {:?}", command.get_program()))?;
    let output = child.stdout.take().context("it has no output")?;
    let mut block = Vec::new();
    for line in BufReader::new(output).lines() {
        let line = line?;
        if line.starts_with("test ") && !line.starts_with("test result: ") {
            println!("{line}");
            continue;
        }
        block.push(line);
        let last = block.last().cloned().unwrap_or_default();
        if is_last(&last, &mut block) {
            show(&mut block);
        }
    }
    show(&mut block);
    Ok(child.wait()?.success())
}

fn show(block: &mut Vec<String>) {
    let text: String = block.drain(..).map(|line| line + "\n").collect();
    // One call: what others print stands before or after it.
    print!("{text}");
}

/// `test result: ok. 3 passed; 0 failed; …`
fn result(line: &str) -> Option<(u64, u64)> {
    let rest = line.strip_prefix("test result: ")?.split_once(". ")?.1;
    let mut numbers = rest.split("; ").filter_map(|part| part.split_once(' ')?.0.parse().ok());
    Some((numbers.next()?, numbers.next()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn adds_up_what_cargo_says() {
        let line =
            "test result: FAILED. 17 passed; 2 failed; 0 ignored; 0 measured; 17 filtered out; finished in 0.26s";
        assert_eq!(result(line), Some((17, 2)));
        assert_eq!(result("test a ... ok"), None);
    }

    #[test]
    fn no_program_of_tests_is_forgotten() {
        let programs = programs(&crate::root()).expect("cargo tells");
        for program in ["backend", "demo", "gateway", "hostile"] {
            assert!(programs.iter().any(|name| name == program), "{program} in {programs:?}");
        }
    }
}
