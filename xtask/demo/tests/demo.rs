//! What `cargo xtask run` shows, from its start to Ctrl-C.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use tempfile::TempDir;

/// Ends it, and with it what it started, where a test fails.
struct Demo(Child);

impl Drop for Demo {
    fn drop(&mut self) {
        let _ = Command::new("kill").args(["-TERM", &self.0.id().to_string()]).stderr(Stdio::null()).status();
        let _ = self.0.wait();
    }
}

#[test]
fn what_machines_say_becomes_rows_a_command_is_acknowledged_and_nothing_is_left_running() {
    let program = Path::new(env!("CARGO_BIN_EXE_sluicegate-demo"));
    let programs = program.parent().expect("a folder");
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).expect("the root");
    let folder = TempDir::new().expect("a folder");
    let mut demo = Command::new(program);
    demo.arg(root).arg(programs).arg(folder.path()).arg("2").stdout(Stdio::piped());
    let mut demo = Demo(demo.spawn().expect("it starts"));
    let output = BufReader::new(demo.0.stdout.take().expect("its output"));
    let (sender, lines) = mpsc::channel();
    let reader =
        std::thread::spawn(move || output.lines().map_while(Result::ok).for_each(|line| drop(sender.send(line))));

    let mut wanted = vec![
        "row in machines: last_heard_at ",
        "row 1 in transactions: DEMO-00",
        "stock of slot 5 now 999",
        "unlock queued → sent → acknowledged",
        "mosquitto_pub -p ",
        "in machine_logs: warning E042, slot jam",
    ];
    let (began, mut shown) = (Instant::now(), String::new());
    while !wanted.is_empty() {
        let left = Duration::from_secs(120).saturating_sub(began.elapsed());
        let line = lines.recv_timeout(left).unwrap_or_else(|_| panic!("{wanted:?} is missing in:\n{shown}"));
        wanted.retain(|part| !line.contains(part));
        shown = shown + &line + "\n";
    }
    assert!(Command::new("kill").args(["-INT", &demo.0.id().to_string()]).status().expect("kill").success());
    let status = demo.0.wait().expect("it ends");
    assert!(status.success(), "{status}: {shown}");
    reader.join().expect("its output has an end");
    let folder = folder.path().to_string_lossy().into_owned();
    for process in fs::read_dir("/proc").expect("the processes").flatten() {
        let command = fs::read(process.path().join("cmdline")).unwrap_or_default();
        let command = String::from_utf8_lossy(&command).replace('\0', " ");
        assert!(!command.contains(&folder), "still there: {command}");
    }
}
