//! The Laravel package: its style, and its tests with a real Laravel between the real servers and the gateway that was just built.

use std::path::Path;
use std::process::Command;

use anyhow::{Result, ensure};

use crate::shell::{self, Package};
use crate::side_by_side::{self, Counts};

/// Debian's Laravel and what it needs, beside the servers that all tests need. The metapackages have no file of their own but in dpkg's
/// list.
pub(crate) const PACKAGES: [Package; 7] = [
    Package { name: "php-cli", provides: "/usr/bin/php" },
    Package { name: "php-laravel-framework", provides: "/usr/share/php/Illuminate/autoload.php" },
    Package { name: "php-redis", provides: "/var/lib/dpkg/info/php-redis.list" },
    Package { name: "php-nrk-predis", provides: "/usr/share/php/Predis/autoload.php" },
    Package { name: "php-mysql", provides: "/var/lib/dpkg/info/php-mysql.list" },
    Package { name: "phpunit", provides: "/usr/bin/phpunit" },
    Package { name: "php-codesniffer", provides: "/usr/bin/phpcs" },
];

/// Runs its tests.
pub(crate) fn test(root: &Path) -> (Counts, Result<()>) {
    let mut counts = Counts::default();
    let outcome = run(root, &mut counts);
    (counts, outcome)
}

fn run(root: &Path, counts: &mut Counts) -> Result<()> {
    let package = root.join("integrations/laravel");
    // Only errors: where a line is best broken is nobody's fault.
    shell::run(Command::new("phpcs").current_dir(&package).args(["-q", "-n"]))?;
    let mut phpunit = Command::new("phpunit");
    phpunit.current_dir(&package).env("SLUICEGATE_BIN", shell::target()?.join("debug/sluicegate"));
    shell::in_memory(&mut phpunit);
    let good = side_by_side::lines(phpunit, |line, _| {
        counts.passed = result(line).unwrap_or(counts.passed);
        false
    })?;
    ensure!(
        good && counts.passed > 0,
        "the Laravel package's tests failed; `phpunit --filter NAME` in integrations/laravel runs one alone"
    );
    Ok(())
}

/// `OK (60 tests, 267 assertions)`
fn result(line: &str) -> Option<u64> {
    line.strip_prefix("OK (")?.split_once(' ')?.0.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_phpunit_says() {
        assert_eq!(result("OK (60 tests, 267 assertions)"), Some(60));
        assert_eq!(result("OK (1 test, 2 assertions)"), Some(1));
        assert_eq!(result("Tests: 60, Assertions: 267, Failures: 1."), None);
    }
}
