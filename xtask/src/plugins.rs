//! `cargo xtask plugins`: every folder in `plugins/` becomes a component in `config/plugins/`, with its manifest and its
//! samples inside it.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail, ensure};

use crate::shell::{self, Package};

const TARGET: &str = "wasm32-unknown-unknown";
/// What builds the guests where rustup cannot fetch the target: Debian's compiler builds the target's library from source.
const DEBIAN_RUSTC: &str = "/usr/bin/rustc";
const DEBIAN_PACKAGES: [Package; 3] = [
    Package { name: "rustc-web", provides: "/usr/bin/rustc" },
    Package { name: "rust-web-src", provides: "/usr/src/rustc-web" },
    Package { name: "lld-19", provides: "/usr/bin/wasm-ld-19" },
];

/// One plugin's component.
pub(crate) struct Built {
    pub(crate) path: PathBuf,
    pub(crate) bytes: usize,
    pub(crate) samples: usize,
    pub(crate) changed: bool,
}

/// Builds all plugins, or those that are named.
pub(crate) fn build(root: &Path, only: &[String]) -> Result<Vec<Built>> {
    let all = names(root)?;
    for name in only {
        ensure!(all.contains(name), "there is no plugin `{name}`; the folders in plugins/ are {}", all.join(", "));
    }
    let wanted: Vec<String> = all.into_iter().filter(|name| only.is_empty() || only.contains(name)).collect();
    compile(root, &wanted)?;
    wanted.iter().map(|name| place(root, name)).collect()
}

fn names(root: &Path) -> Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(root.join("plugins")).context("reading plugins/")? {
        let entry = entry?;
        if entry.path().join("Cargo.toml").is_file() {
            names.push(entry.file_name().to_string_lossy().into_owned());
        }
    }
    names.sort();
    Ok(names)
}

fn target_folder() -> Result<PathBuf> {
    // A folder of its own: building plugins never waits for a build of the host, nor the other way round.
    Ok(shell::target()?.join("guest"))
}

fn compile(root: &Path, plugins: &[String]) -> Result<()> {
    let mut cargo = Command::new(shell::cargo());
    cargo.current_dir(root).args(["build", "--profile", "guest", "--target", TARGET, "--target-dir"]);
    cargo.arg(target_folder()?);
    for name in plugins {
        cargo.args(["--package", &format!("sluicegate-plugin-{name}")]);
    }
    if !target_is_installed() && !shell::quiet(Command::new("rustup").args(["target", "add", TARGET])) {
        shell::install(&DEBIAN_PACKAGES).with_context(|| {
            format!("the target {TARGET} is missing; type `rustup target add {TARGET}` and try again")
        })?;
        let linker = format!("target.{TARGET}.linker=\"wasm-ld-19\"");
        cargo.args(["-Zbuild-std=std,panic_abort", "--config", &linker]);
        // Debian's compiler is a stable one; building the library needs the switch that its own build uses.
        cargo.env("RUSTC", DEBIAN_RUSTC).env("RUSTC_BOOTSTRAP", "1");
    }
    // The caller's flags are for the host's compiler.
    cargo.env_remove("RUSTFLAGS").env_remove("CARGO_ENCODED_RUSTFLAGS");
    shell::run(&mut cargo).context("building the plugins")
}

fn target_is_installed() -> bool {
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| OsStr::new("rustc").to_owned());
    let Ok(output) = Command::new(rustc).args(["--print", "target-libdir", "--target", TARGET]).output() else {
        return false;
    };
    output.status.success() && Path::new(String::from_utf8_lossy(&output.stdout).trim()).is_dir()
}

fn place(root: &Path, name: &str) -> Result<Built> {
    let crate_name = format!("sluicegate_plugin_{}", name.replace('-', "_"));
    let module = target_folder()?.join(TARGET).join("guest").join(format!("{crate_name}.wasm"));
    let module = fs::read(&module).with_context(|| format!("reading {}", module.display()))?;
    let source = root.join("plugins").join(name);
    let manifest = source.join("plugin.toml");
    let manifest = fs::read(&manifest).with_context(|| format!("reading {}", manifest.display()))?;
    let (section, samples) = samples(&source.join("samples"))?;
    let mut component = wit_component::ComponentEncoder::default()
        .validate(true)
        .module(&module)
        .and_then(|mut encoder| encoder.encode())
        .with_context(|| format!("making a component of plugin `{name}`"))?;
    append_section(&mut component, "sluicegate:manifest", &manifest);
    append_section(&mut component, "sluicegate:samples", &section);

    let folder = root.join("config").join("plugins");
    fs::create_dir_all(&folder)?;
    let path = folder.join(format!("{name}.wasm"));
    let changed = fs::read(&path).ok().as_deref() != Some(component.as_slice());
    if changed {
        // A rename is atomic: whoever watches sees the old file or the new one, whole.
        let beside = folder.join(format!(".{name}.wasm.new"));
        fs::write(&beside, &component)?;
        fs::rename(&beside, &path)?;
    }
    Ok(Built { path, bytes: component.len(), samples, changed })
}

/// All sample files as one JSON array, each with its name, in the files' order.
fn samples(folder: &Path) -> Result<(Vec<u8>, usize)> {
    let mut files = Vec::new();
    if folder.is_dir() {
        for entry in fs::read_dir(folder)? {
            files.push(entry?.path());
        }
    }
    files.sort();
    let mut all = Vec::new();
    for file in files.iter().filter(|file| file.extension() == Some(OsStr::new("json"))) {
        let name = file.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let bytes = fs::read(file)?;
        sluicegate_samples::parse_file(&name, &bytes).with_context(|| format!("{}", file.display()))?;
        let mut sample: serde_json::Value = serde_json::from_slice(&bytes)?;
        match sample.as_object_mut() {
            Some(fields) => fields.insert("name".to_owned(), name.into()),
            None => bail!("{}: must be a JSON object", file.display()),
        };
        all.push(sample);
    }
    Ok((serde_json::to_vec(&all)?, all.len()))
}

/// A custom section: id 0, its size, its name's size, its name, its bytes (WebAssembly core specification, 5.5.3).
fn append_section(component: &mut Vec<u8>, name: &str, bytes: &[u8]) {
    let mut content = Vec::with_capacity(name.len() + bytes.len() + 5);
    leb128(&mut content, name.len());
    content.extend_from_slice(name.as_bytes());
    content.extend_from_slice(bytes);
    component.push(0);
    leb128(component, content.len());
    component.extend_from_slice(&content);
}

fn leb128(out: &mut Vec<u8>, mut value: usize) {
    loop {
        let byte = u8::try_from(value & 0x7f).unwrap_or(0);
        value >>= 7;
        if value == 0 {
            return out.push(byte);
        }
        out.push(byte | 0x80);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_section_is_as_the_specification_says() {
        let mut component = Vec::new();
        append_section(&mut component, "ab", &[7; 300]);
        assert_eq!(component[..6], [0, 0xaf, 0x02, 2, b'a', b'b']);
        assert_eq!(component.len(), 1 + 2 + 303);
    }
}
