//! What is on the disk and is not what this program's compiler wrote never runs.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};

use sluicegate_guests::Guest;
use tempfile::TempDir;

use super::super::inspect;
use super::super::tests::sandbox;
use super::*;

struct Kept {
    state: TempDir,
    compiled: Compiled,
}

impl Kept {
    fn new() -> Self {
        let state = TempDir::new().expect("a folder");
        let cache = Cache::make(state.path()).expect("a cache");
        Self { compiled: Compiled::new(Compiler::Here, Some(cache)), state }
    }

    #[track_caller]
    fn origin(&self, bytes: &[u8]) -> Origin {
        let compiled = self.compiled.component(sandbox().engine(), &inspect::digest(bytes), bytes, &Claim::default());
        compiled.expect("it compiles").1
    }

    /// The files but the key, by name.
    fn files(&self) -> Vec<std::path::PathBuf> {
        let mut files: Vec<_> = fs::read_dir(self.state.path().join("compiled"))
            .expect("the folder")
            .map(|entry| entry.expect("an entry").path())
            .filter(|path| path.file_name().is_some_and(|name| name != "key"))
            .collect();
        files.sort();
        files
    }
}

fn component(manifest: &str) -> Vec<u8> {
    let manifest = format!("name = \"{manifest}\"\nversion = \"1\"\ndescription = \"\"\n");
    Guest { manifest, ..Guest::echo() }.handler()
}

#[test]
fn what_was_compiled_once_is_found_after_a_restart() {
    let kept = Kept::new();
    assert_eq!(kept.origin(&component("a")), Origin::Compiler);
    assert_eq!(kept.origin(&component("b")), Origin::Compiler);
    assert_eq!(kept.origin(&component("a")), Origin::Cache);
    let again = Cache::open(kept.state.path()).expect("a cache").expect("it is there");
    let again = Kept { compiled: Compiled::new(Compiler::Here, Some(again)), state: kept.state };
    assert_eq!(again.origin(&component("b")), Origin::Cache);
    let mode = |path: &str| fs::metadata(again.state.path().join(path)).expect("there").permissions().mode() & 0o777;
    assert_eq!((mode("compiled"), mode("compiled/key")), (0o700, 0o600));
    let file = again.files()[0].clone();
    assert_eq!(fs::metadata(file).expect("there").permissions().mode() & 0o777, 0o600);
}

#[test]
fn what_was_altered_or_cut_short_is_compiled_anew() {
    type Spoil = fn(&mut Vec<u8>);
    let spoil: [Spoil; 7] = [
        |bytes| bytes[0] ^= 1,
        |bytes| bytes[32] ^= 1,
        |bytes| *bytes.last_mut().expect("bytes") ^= 0x80,
        |bytes| bytes.truncate(bytes.len() - 1),
        |bytes| bytes.truncate(31),
        |bytes| bytes.clear(),
        |bytes| bytes.push(0),
    ];
    for spoil in spoil {
        let kept = Kept::new();
        assert_eq!(kept.origin(&component("a")), Origin::Compiler);
        let file = &kept.files()[0];
        let mut bytes = fs::read(file).expect("it is there");
        spoil(&mut bytes);
        fs::write(file, &bytes).expect("spoiled");
        assert_eq!(kept.origin(&component("a")), Origin::Compiler);
        // It was replaced by a good one.
        assert_eq!(kept.origin(&component("a")), Origin::Cache);
    }
}

#[test]
fn what_is_of_another_file_another_engine_or_another_key_is_compiled_anew() {
    let kept = Kept::new();
    let (a, b) = (component("a"), component("b"));
    assert_eq!((kept.origin(&a), kept.origin(&b)), (Origin::Compiler, Origin::Compiler));
    let files = kept.files();
    fs::copy(&files[0], &files[1]).expect("copied");
    let both = [kept.origin(&a), kept.origin(&b)];
    assert_eq!(both.iter().filter(|origin| **origin == Origin::Compiler).count(), 1, "{both:?}");

    // Another engine's code, by the right key, under the name of this one's.
    let other = Engine::new(wasmtime::Config::new().epoch_interruption(false)).expect("an engine");
    let artefact = Artefact::compile(&other, &a).expect("code");
    let cache = kept.compiled.cache.as_ref().expect("a cache");
    cache.put(&other, &inspect::digest(&a), &artefact).expect("kept");
    let foreign = kept.files().into_iter().find(|file| !files.contains(file)).expect("one more");
    let digest = inspect::digest(&a).to_string().replace("sha256:", "");
    let ours = files.iter().find(|file| file.to_string_lossy().contains(&digest)).expect("it is one of the two");
    fs::rename(foreign, ours).expect("renamed");
    assert_eq!(kept.origin(&a), Origin::Compiler);
    // Even with a good MAC the engine refuses it.
    cache.put(sandbox().engine(), &inspect::digest(&a), &artefact).expect("kept");
    assert_eq!(kept.origin(&a), Origin::Compiler);

    // A folder of another key.
    let elsewhere = Kept::new();
    elsewhere.origin(&a);
    fs::copy(&elsewhere.files()[0], ours).expect("copied");
    assert_eq!(kept.origin(&a), Origin::Compiler);
    fs::remove_file(kept.state.path().join("compiled/key")).expect("removed");
    let again = Cache::make(kept.state.path()).expect("a cache");
    let again = Kept { compiled: Compiled::new(Compiler::Here, Some(again)), state: kept.state };
    assert_eq!((again.origin(&a), again.origin(&a)), (Origin::Compiler, Origin::Cache));
}

#[test]
fn a_file_that_others_may_write_or_that_is_a_link_is_compiled_anew() {
    let kept = Kept::new();
    let a = component("a");
    kept.origin(&a);
    let file = kept.files()[0].clone();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o620)).expect("changed");
    assert_eq!((kept.origin(&a), kept.origin(&a)), (Origin::Compiler, Origin::Cache));
    let away = kept.state.path().join("away");
    fs::rename(&file, &away).expect("moved");
    symlink(&away, &file).expect("a link");
    assert_eq!((kept.origin(&a), kept.origin(&a)), (Origin::Compiler, Origin::Cache));
}

#[test]
fn a_folder_that_is_not_this_users_alone_is_not_used() {
    let state = TempDir::new().expect("a folder");
    assert!(Cache::open(state.path()).expect("nothing is wrong").is_none(), "looking makes nothing");
    let path = state.path().join("compiled");
    for mode in [0o770, 0o707, 0o750] {
        fs::create_dir_all(&path).expect("made");
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).expect("changed");
        let error = Cache::make(state.path()).err().expect("refused").to_string();
        assert!(error.contains("is not this user's alone") && error.contains("chmod 700"), "{error}");
    }
    fs::remove_dir(&path).expect("removed");
    let other = TempDir::new().expect("a folder");
    symlink(other.path(), &path).expect("a link");
    assert!(Cache::make(state.path()).is_err());
    fs::remove_file(&path).expect("removed");
    fs::write(&path, "").expect("a file");
    assert!(Cache::make(state.path()).is_err());
}

#[test]
fn the_key_is_made_anew_where_it_is_none() {
    let kept = Kept::new();
    let a = component("a");
    kept.origin(&a);
    let key = kept.state.path().join("compiled/key");
    fs::write(&key, "short").expect("written");
    let again = Cache::make(kept.state.path()).expect("a cache");
    assert_eq!(fs::read(&key).expect("there").len(), 32);
    let again = Kept { compiled: Compiled::new(Compiler::Here, Some(again)), state: kept.state };
    assert_eq!(again.origin(&a), Origin::Compiler);
}

#[test]
fn the_cache_is_bounded_and_the_oldest_goes() {
    let kept = Kept::new();
    let a = component("a");
    let sandbox = sandbox();
    let engine = sandbox.engine();
    let artefact = Artefact::compile(engine, &a).expect("code");
    let cache = kept.compiled.cache.as_ref().expect("a cache");
    let digest = |number: u32| inspect::digest(&number.to_le_bytes());
    for number in 0..64 {
        cache.put(engine, &digest(number), &artefact).expect("kept");
    }
    // Used just now: the second is the oldest.
    assert!(cache.get(engine, &digest(0)).expect("read").is_some());
    for number in 64..70 {
        cache.put(engine, &digest(number), &artefact).expect("kept");
    }
    assert_eq!(kept.files().len(), 64);
    assert!(cache.get(engine, &digest(0)).expect("read").is_some());
    assert!(cache.get(engine, &digest(1)).expect("read").is_none());
    assert!(cache.get(engine, &digest(69)).expect("read").is_some());
}
