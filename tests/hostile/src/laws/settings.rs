//! Settings: a file is taken or refused with places in it; what is in force is said so that it can be read again.

use std::path::{Path, PathBuf};

use sluicegate_core::settings::interpolate::Sources;
use sluicegate_core::settings::{Outside, Resolved, SettingsErrors, read, to_toml};

fn resolve(text: &str) -> Result<Resolved, SettingsErrors> {
    let outside = Outside {
        sources: Sources { variable: &|_| Ok(None), file: &|_| Err("there is none".to_owned()) },
        base: Path::new("/etc/sluicegate"),
        built_in_plugin: &|name| PathBuf::from(format!("/plugins/{name}.wasm")),
    };
    read(Some(("fuzzed.toml", text)), &outside)
}

/// # Panics
/// Where a mistake stands outside the file, or what is in force is no TOML.
pub fn settings(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    match resolve(text) {
        Err(errors) => {
            assert!(!errors.0.is_empty(), "it is refused for a reason");
            let lines = text.split('\n').count();
            for place in errors.0.iter().filter_map(|error| error.place.as_ref()) {
                let inside = place.file != "fuzzed.toml" || (1..=lines).contains(&place.line);
                assert!(inside && place.column >= 1, "{place:?} of {lines} lines");
            }
        }
        Ok(resolved) => {
            let again = resolve(text).expect("the same text gives the same settings");
            let shown = to_toml(&resolved.effective);
            assert_eq!(shown, to_toml(&again.effective));
            assert!(shown.parse::<toml::Table>().is_ok(), "{shown}");
        }
    }
}
