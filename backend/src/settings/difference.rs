//! What an edit of the settings changes, and whether it can be put in force while the program runs.

use super::Settings;

/// An edit, compared with what is in force.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Edit {
    /// Nothing is changed.
    None,
    /// It applies once the batches that are under way are committed.
    Live,
    /// These keys or sections need a restart; the whole edit is refused.
    Restart(Vec<&'static str>),
}

/// What an edit needs.
#[must_use]
pub fn compare(now: &Settings, wanted: &Settings) -> Edit {
    if now == wanted {
        return Edit::None;
    }
    // All that is not named here applies live: `[listener]` else, `[types]` and `[alerts]`.
    let restart: Vec<&'static str> = [
        ("listener.instance", now.listener.instance != wanted.listener.instance),
        ("listener.shutdown_timeout", now.listener.shutdown_timeout != wanted.listener.shutdown_timeout),
        ("[redis]", now.redis != wanted.redis),
        ("[queues]", now.queues != wanted.queues),
        ("[database]", now.database != wanted.database),
        ("[commands]", now.commands != wanted.commands),
        ("[api]", now.api != wanted.api),
        ("[machines]", now.machines != wanted.machines),
    ]
    .into_iter()
    .filter_map(|(key, changed)| changed.then_some(key))
    .collect();
    if restart.is_empty() { Edit::Live } else { Edit::Restart(restart) }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use sluicegate_core::settings::interpolate::Sources;

    use super::*;

    #[test]
    fn each_key_applies_as_docs_backend_says() {
        let settings = |text: &str| {
            let sources = Sources { variable: &|_| Ok(None), file: &|_| Err("none".to_owned()) };
            super::super::read("b.toml", text, Path::new("/"), &sources).expect("good").settings
        };
        let now = settings("");
        let edit = |text: &str| compare(&now, &settings(text));
        assert_eq!(edit("[listener]\nbatch = 500"), Edit::None, "what it was before");
        for live in [
            "[listener]\nbatch = 10",
            "[listener]\nworkers = 2",
            "[listener]\nattempts = 5",
            "[listener]\nunknown_types = \"create\"",
            "[listener]\nunknown_machines = \"dead-letter\"",
            "[listener]\nalert_levels = []",
            "[listener]\nkeeps_stock = [\"failed\"]",
            "[types]\nheartbeat = \"beat\"",
            "[alerts]\nwindow = \"1m\"",
            "[alerts]\nattempts = 3",
            "[alerts]\noffline_after = \"1m\"",
            "[alerts]\noffline_every = \"1m\"",
            "[alerts]\nwebhook = \"https://x/\"\nsecret = \"s\"",
        ] {
            assert_eq!(edit(live), Edit::Live, "{live}");
        }
        for (restart, key) in [
            ("[listener]\ninstance = \"b2\"", "listener.instance"),
            ("[listener]\nshutdown_timeout = \"1s\"", "listener.shutdown_timeout"),
            ("[redis]\nkey_prefix = \"x\"", "[redis]"),
            ("[queues]\nincoming = \"x\"", "[queues]"),
            ("[database]\ntimeout = \"1s\"", "[database]"),
            ("[commands]\nexpiry = \"1s\"", "[commands]"),
            ("[api]\nlisten = \"127.0.0.1:1\"", "[api]"),
            ("[machines]\nauth_key = \"x\"", "[machines]"),
        ] {
            assert_eq!(edit(&format!("{restart}\n[alerts]\nattempts = 3")), Edit::Restart(vec![key]), "{restart}");
        }
    }
}
