//! Test programs beside each other, since those with real servers wait for most of their time. What each prints stays together.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;

use anyhow::{Context as _, Result, anyhow, ensure};
use serde_json::Value;

use crate::{laravel, shell, test};

/// The longest of them, which have each a row of their own.
const LONGEST: [&str; 2] = ["gateway", "backend"];

#[derive(Default)]
pub(crate) struct Counts {
    pub(crate) passed: u64,
    pub(crate) failed: u64,
}

/// Runs all tests, and adds up what they say at their ends.
pub(crate) fn run(root: &Path) -> (Counts, Result<()>) {
    let ended = thread::scope(|scope| {
        let runs = [
            scope.spawn(|| cargo_test(root, &["--test", LONGEST[0]])),
            scope.spawn(|| cargo_test(root, &["--test", LONGEST[1]])),
            scope.spawn(|| the_others(root)),
            scope.spawn(|| laravel::test(root)),
        ];
        runs.map(|run| run.join().unwrap_or_else(|_| (Counts::default(), Err(anyhow!("it panicked")))))
    });
    let (mut counts, mut outcome) = (Counts::default(), Ok(()));
    for (counted, ended) in ended {
        counts.passed += counted.passed;
        counts.failed += counted.failed;
        // The first is told; the others were printed.
        outcome = outcome.and(ended);
    }
    (counts, outcome)
}

/// Every other program, and the examples in the documentation.
fn the_others(root: &Path) -> (Counts, Result<()>) {
    let mut arguments = vec!["--lib".to_owned(), "--bins".to_owned()];
    match programs(root) {
        Ok(programs) => {
            arguments.extend(
                programs
                    .into_iter()
                    .filter(|name| !LONGEST.contains(&name.as_str()))
                    .flat_map(|name| ["--test".to_owned(), name]),
            );
        }
        Err(error) => return (Counts::default(), Err(error)),
    }
    let (mut counts, ended) = cargo_test(root, &arguments.iter().map(String::as_str).collect::<Vec<_>>());
    let (documented, examples) = cargo_test(root, &["--doc"]);
    counts.passed += documented.passed;
    counts.failed += documented.failed;
    (counts, ended.and(examples))
}

/// The workspace's programs of integration tests.
fn programs(root: &Path) -> Result<Vec<String>> {
    let told = test::cargo(root).args(["metadata", "--no-deps", "--format-version", "1"]).output()?;
    let metadata: Value = serde_json::from_slice(&told.stdout).context("`cargo metadata` tells no JSON")?;
    let packages = metadata["packages"].as_array().into_iter().flatten();
    let targets = packages.flat_map(|package| package["targets"].as_array().into_iter().flatten());
    let tests = targets.filter(|target| target["kind"][0] == "test");
    let names: Vec<String> = tests.filter_map(|target| target["name"].as_str().map(str::to_owned)).collect();
    for longest in LONGEST {
        ensure!(names.iter().any(|name| name == longest), "`cargo metadata` names no test `{longest}`");
    }
    Ok(names)
}

fn cargo_test(root: &Path, which: &[&str]) -> (Counts, Result<()>) {
    let mut command = test::linted(root);
    shell::in_memory(command.args(["test", "--workspace", "--no-fail-fast"]).args(which));
    if std::env::var_os("RUST_TEST_THREADS").is_none() {
        let cores = thread::available_parallelism().map_or(1, std::num::NonZero::get);
        command.env("RUST_TEST_THREADS", (2 * cores).to_string());
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
