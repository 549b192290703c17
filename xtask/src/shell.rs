//! Commands, and the packages that they come from.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail, ensure};

/// A Debian package, and a path that is there when it is installed.
pub(crate) struct Package {
    pub(crate) name: &'static str,
    pub(crate) provides: &'static str,
}

/// The cargo that runs this.
pub(crate) fn cargo() -> OsString {
    std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into())
}

/// Where cargo builds, wherever the user's settings put it: this program lies two folders below.
pub(crate) fn target() -> Result<PathBuf> {
    let this = std::env::current_exe().context("where this program lies")?;
    let target = this.parent().and_then(Path::parent).context("this program lies in no folder of cargo's")?;
    Ok(target.to_owned())
}

/// Runs a command to its end; its output is the user's.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    let shown = show(command);
    let status = command.status().with_context(|| format!("starting `{shown}`"))?;
    ensure!(status.success(), "`{shown}` failed ({status})");
    Ok(())
}

/// Runs a command without output: whether it went well.
pub(crate) fn quiet(command: &mut Command) -> bool {
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}

/// As a person would type it.
pub(crate) fn show(command: &Command) -> String {
    let name = Path::new(command.get_program()).file_name().unwrap_or(command.get_program());
    let mut text = name.to_string_lossy().into_owned();
    for argument in command.get_args() {
        text.push(' ');
        text.push_str(&argument.to_string_lossy());
    }
    text
}

/// Installs what is missing, on Debian and Ubuntu, as root or with sudo without a password.
pub(crate) fn install(packages: &[Package]) -> Result<()> {
    let missing: Vec<&str> =
        packages.iter().filter(|package| !Path::new(package.provides).exists()).map(|package| package.name).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let typed = format!("apt-get install -y --no-install-recommends {}", missing.join(" "));
    if !Path::new("/usr/bin/apt-get").exists() {
        bail!("needed and not found: {}; on Debian and Ubuntu `sudo {typed}` installs them", missing.join(", "));
    }
    let root = quiet(Command::new("sh").args(["-c", "test $(id -u) = 0"]));
    if !root && !quiet(Command::new("sudo").args(["-n", "true"])) {
        bail!("needed and not found: {}; type `sudo {typed}` and try again", missing.join(", "));
    }
    println!("Installing {}", missing.join(", "));
    let apt = |arguments: &[&str]| {
        let mut command = if root { Command::new("apt-get") } else { Command::new("sudo") };
        if !root {
            command.args(["-n", "DEBIAN_FRONTEND=noninteractive", "apt-get"]);
        }
        command.args(["-qq", "-o", "Dpkg::Use-Pty=0"]).args(arguments).env("DEBIAN_FRONTEND", "noninteractive");
        command
    };
    // The first try may find no package list, or an old one.
    let mut arguments = vec!["install", "-y", "--no-install-recommends"];
    arguments.extend(&missing);
    if !quiet(&mut apt(&arguments)) {
        run(&mut apt(&["update"]))?;
        run(apt(&arguments).stdout(Stdio::null()))?;
    }
    Ok(())
}

/// What a command writes to the system's folder for such things stays in memory, where there is room for it: tests write tens of thousands of files, most
/// of them synced, which is what a disk is slow at. What they show does not depend on it: processes are killed there, not machines.
pub(crate) fn in_memory(command: &mut Command) {
    const FOLDER: &str = "/dev/shm";
    if std::env::var_os("TMPDIR").is_none() && free(FOLDER).is_some_and(|free| free >= 4 << 30) {
        command.env("TMPDIR", FOLDER);
    }
}

/// Bytes that are free in a folder.
fn free(folder: &str) -> Option<u64> {
    let told = Command::new("df").args(["--output=avail", "--block-size=1", folder]).output().ok()?;
    String::from_utf8(told.stdout).ok()?.lines().last()?.trim().parse().ok()
}
