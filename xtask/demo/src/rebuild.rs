//! A plugin is built when its source is saved.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Result;
use notify::{RecursiveMode, Watcher as _};
use tokio::process::Command;
use tokio::sync::mpsc;

/// Rebuilds a plugin when its source is saved; the gateway reloads it by itself.
pub(crate) async fn run(root: PathBuf, sources: PathBuf) -> Result<()> {
    // One save is a few events; what does not fit is of the same save.
    let (sender, mut changed) = mpsc::channel(64);
    let folder = sources.clone();
    let mut watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
        let Ok(event) = event else { return };
        if event.kind.is_access() {
            return;
        }
        for path in event.paths {
            if let Some(plugin) = path.strip_prefix(&folder).ok().and_then(|path| path.iter().next()) {
                let _ = sender.try_send(plugin.to_string_lossy().into_owned());
            }
        }
    })?;
    watcher.watch(&sources, RecursiveMode::Recursive)?;
    while let Some(first) = changed.recv().await {
        tokio::time::sleep(Duration::from_millis(200)).await;
        let mut names = BTreeSet::from([first]);
        while let Ok(name) = changed.try_recv() {
            names.insert(name);
        }
        let names: Vec<String> =
            names.into_iter().filter(|name| sources.join(name).join("Cargo.toml").is_file()).collect();
        if names.is_empty() {
            continue;
        }
        println!("{:>12}  {}", "building", names.join(", "));
        // Where it is not built it says why, and the old build goes on.
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        Command::new(cargo)
            .kill_on_drop(true)
            .current_dir(&root)
            .args(["xtask", "plugins"])
            .args(names)
            .status()
            .await?;
    }
    Ok(())
}
