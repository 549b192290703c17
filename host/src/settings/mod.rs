//! The settings' edge: which file, the environment, other files. What they mean is the core's.
//!
//! - [`propose`]: the file is read again when it changes, or somebody asks; what it says is proposed to the gateway.
//! - [`desk`]: which settings are in force, and how to ask.

pub mod desk;
pub mod propose;

use std::env::VarError;
use std::fs;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use sluicegate_core::settings::interpolate::Sources;
use sluicegate_core::settings::{Outside, Place, Resolved, SettingsError, SettingsErrors, read};

/// The largest file that `${file:…}` takes, and the largest settings file.
const MAX_FILE: u64 = 1 << 20;
/// Where a person's own settings file lies, unless another is named.
const DEFAULT_FILE: &str = "sluicegate.toml";
/// Where the plugins of the built-in settings are looked for.
const PLUGIN_FOLDERS: [&str; 2] = ["plugins", "/usr/share/sluicegate/plugins"];

/// The file that settings are read from: the one that is named, or `./sluicegate.toml` where it exists; else none.
#[must_use]
pub fn file(named: Option<&Path>) -> Option<PathBuf> {
    match named {
        Some(file) => Some(file.to_owned()),
        None => Some(PathBuf::from(DEFAULT_FILE)).filter(|file| file.is_file()),
    }
}

/// The settings in force: those of a file, of `./sluicegate.toml` where it exists, else the built-in ones with the
/// environment.
///
/// # Errors
/// [`SettingsErrors`] holds every mistake that was found.
pub fn load(named: Option<&Path>) -> Result<Resolved, SettingsErrors> {
    let file = file(named);
    let base = file.as_deref().and_then(Path::parent).unwrap_or(Path::new("")).to_owned();
    let name = file.as_ref().map(|file| file.display().to_string());
    let text = file.as_deref().map(read_text).transpose().map_err(|reason| {
        let place = name.clone().map(|file| Place { file, line: 1, column: 1 });
        mistake(place, format!("cannot read the settings file: {reason}"))
    })?;
    let variable = |name: &str| match std::env::var(name) {
        Ok(value) => Ok(Some(value)),
        Err(VarError::NotPresent) => Ok(None),
        Err(VarError::NotUnicode(_)) => Err("it is not UTF-8".to_owned()),
    };
    let from_file = |path: &str| read_text(&base.join(path));
    let outside = Outside {
        sources: Sources { variable: &variable, file: &from_file },
        base: &base,
        built_in_plugin: &built_in_plugin,
    };
    read(name.as_deref().zip(text.as_deref()), &outside)
}

fn mistake(place: Option<Place>, message: String) -> SettingsErrors {
    SettingsErrors(vec![SettingsError { place, from: Vec::new(), key: String::new(), message }])
}

fn read_text(path: &Path) -> Result<String, String> {
    let metadata = fs::metadata(path).map_err(|error| error.to_string())?;
    // Everything else is taken: a secret may be a symlink to a file, and `--config <(…)` of a shell is a pipe.
    if metadata.is_dir() {
        return Err("it is a folder".to_owned());
    }
    let mut text = String::new();
    let file = fs::File::open(path).map_err(|error| error.to_string())?;
    file.take(MAX_FILE + 1).read_to_string(&mut text).map_err(|error| error.to_string())?;
    if text.len() as u64 > MAX_FILE {
        return Err(format!("it is larger than {MAX_FILE} bytes"));
    }
    Ok(text)
}

fn built_in_plugin(name: &str) -> PathBuf {
    let file = format!("{name}.wasm");
    let candidates = PLUGIN_FOLDERS.map(|folder| Path::new(folder).join(&file));
    // Where it is in neither, the message that it is missing names the folder that a person would put it into.
    candidates.iter().find(|path| path.exists()).unwrap_or(&candidates[0]).clone()
}
