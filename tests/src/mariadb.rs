//! The real MariaDB, on a port and in a folder of its own.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;
use tokio::net::TcpStream;

use crate::eventually;
use crate::servers::{end, free_port, signal};

/// The database that is there from the beginning, its user and the password.
const START: &str = "CREATE DATABASE IF NOT EXISTS sluicegate;\n\
    CREATE USER IF NOT EXISTS 'sluicegate'@'%' IDENTIFIED BY 'secret';\n\
    GRANT ALL ON *.* TO 'sluicegate'@'%';\n";

/// A MariaDB that syncs each commit to its disk.
pub struct MariaDb {
    folder: TempDir,
    /// Where it listens, the same after a restart.
    pub port: u16,
    child: Option<Child>,
}

impl MariaDb {
    /// Starts one, with an empty database.
    ///
    /// # Panics
    /// Where it does not start.
    pub async fn start() -> Self {
        let folder = TempDir::new().expect("a folder");
        let copied = Command::new("cp").arg("-a").arg(template()).arg(folder.path().join("data")).status().expect("cp");
        assert!(copied.success(), "the template is copied");
        fs::write(folder.path().join("start.sql"), START).expect("written");
        let mut server = Self { folder, port: free_port(), child: None };
        server.restart().await;
        server
    }

    /// Starts it again, on the same port, with what it kept.
    ///
    /// # Panics
    /// Where it does not start.
    pub async fn restart(&mut self) {
        let folder = self.folder.path();
        let log = fs::File::create(folder.join("log")).expect("a log file");
        let option = |name: &str, file: &str| option(folder, name, file);
        fs::create_dir_all(folder.join("tmp")).expect("a folder");
        let child = Command::new("mariadbd")
            .args(["--no-defaults", "--user=root", "--bind-address=127.0.0.1", "--skip-name-resolve"])
            .args([
                option("datadir", "data"),
                option("socket", "socket"),
                option("pid-file", "pid"),
                option("tmpdir", "tmp"),
            ])
            .args([option("init-file", "start.sql"), format!("--port={}", self.port)])
            .args(["--innodb-flush-log-at-trx-commit=1", "--innodb-log-file-size=8M", "--max-connections=200"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap_or_else(|error| panic!("mariadbd does not start ({error}); install the package mariadb-server"));
        self.child = Some(child);
        let port = self.port;
        eventually("mariadbd listens", async || TcpStream::connect(("127.0.0.1", port)).await.ok()).await;
    }

    /// Its address, with user, password and database.
    #[must_use]
    pub fn url(&self) -> String {
        format!("mysql://sluicegate:secret@127.0.0.1:{}/sluicegate", self.port)
    }

    /// Ends it at once (kill -9).
    pub fn kill(&mut self) {
        end(&mut self.child);
    }

    /// Stops it in its tracks: connections stand, nothing answers.
    ///
    /// # Panics
    /// Where it does not run.
    pub fn freeze(&self) {
        signal(self.child.as_ref().expect("a running server"), "STOP");
    }

    /// Lets it go on.
    ///
    /// # Panics
    /// Where it does not run.
    pub fn thaw(&self) {
        signal(self.child.as_ref().expect("a running server"), "CONT");
    }
}

impl Drop for MariaDb {
    fn drop(&mut self) {
        end(&mut self.child);
    }
}

/// An option whose value is a file or folder of the server's own.
fn option(folder: &Path, name: &str, file: &str) -> String {
    format!("--{name}={}", folder.join(file).display())
}

/// A folder as a new server has it. It takes seconds to make, so it is made once and copied: it lies beside the tests that cargo built.
fn template() -> PathBuf {
    let this = std::env::current_exe().expect("this program's path");
    let beside = this.parent().expect("a folder");
    let template = beside.join("mariadb-template");
    // The tests of one program are threads of it, and another program may run beside it: the file is locked for both.
    let lock = fs::File::create(beside.join("mariadb-template.lock")).expect("a file to lock");
    lock.lock().expect("a lock");
    if !template.is_dir() {
        let made = TempDir::new_in(beside).expect("a folder");
        make(made.path());
        fs::rename(made.path().join("data"), &template).expect("the template is put in its place");
    }
    template
}

/// A server deletes at its start every `#sql…` in its folder for temporary tables, so none shares its own with another (`tmpdir`).
fn make(folder: &Path) {
    fs::create_dir(folder.join("tmp")).expect("a folder");
    let option = |name: &str, file: &str| option(folder, name, file);
    let made = Command::new("mariadb-install-db")
        .args(["--no-defaults", "--user=root", "--auth-root-authentication-method=normal", "--skip-test-db"])
        .args(["--innodb-log-file-size=8M".to_owned(), option("datadir", "data"), option("tmpdir", "tmp")])
        .stdin(Stdio::null())
        .output()
        .unwrap_or_else(|error| {
            panic!("mariadb-install-db does not run ({error}); install the package mariadb-server")
        });
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
}
