//! What is no component, and what is no file.

use std::ffi::CString;
use std::fs;
use std::io::{Seek as _, Write as _};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use sluicegate::sandbox::Step;
use sluicegate::sandbox::inspect::MAX_FILE_BYTES;
use sluicegate_guests::Guest;

use crate::case::{Case, Must, refused, refused_or_harmless};

/// Text of a component, with a good manifest.
pub(super) fn described(text: &str) -> Vec<u8> {
    let mut component = wat::parse_str(text).expect("a component");
    Guest::echo().describe(&mut component);
    component
}

/// Bytes that nobody chose, the same each time (xorshift).
fn noise(length: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()[3]
    };
    (0..length).map(|_| next()).collect()
}

/// So long that it changes several times while it is read once; its size tells where its time is too coarse.
const START: u64 = 4 << 20;

/// Writes to a file until it is dropped; then it holds no component.
struct Writer {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Writer {
    fn start(path: &Path) -> Self {
        let mut file = fs::File::create(path).expect("a file");
        let mut length = START;
        file.set_len(length).expect("a long file");
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let thread = std::thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                length += 1;
                file.rewind().and_then(|()| file.write_all(&length.to_le_bytes())).expect("written");
                file.set_len(length).expect("a longer file");
            }
        });
        while fs::metadata(path).is_ok_and(|data| data.len() == START) {
            std::thread::yield_now();
        }
        Self { stop, thread: Some(thread) }
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // It ends at once, and its panic is the test's.
            thread.join().expect("a writer to its end");
        }
    }
}

fn fifo(path: &Path) {
    let path = CString::new(path.as_os_str().as_bytes()).expect("a path");
    let status = std::process::Command::new("mkfifo").arg(std::ffi::OsStr::from_bytes(path.as_bytes())).status();
    assert!(status.expect("mkfifo").success());
}

fn linked(name: &str, made_of: &str, target: &'static str, words: &str) -> Case {
    Case::place(name, made_of, refused(Step::Found, words), move |path| {
        symlink(target, path).expect("a link");
        None
    })
}

pub(super) fn cases() -> Vec<Case> {
    let no = |part: &str| refused(Step::Verified, &format!("not a WebAssembly component: {part}"));
    let none = || no("");
    let bytes = |name: &str, made_of: &str, must: Must, bytes: fn() -> Vec<u8>| Case::file(name, made_of, must, bytes);
    let mut cases = vec![
        bytes("empty", "no bytes", none(), Vec::new),
        bytes("one-byte", "the byte 0", none(), || vec![0]),
        bytes("zeroes", "a megabyte of zeroes", none(), || vec![0; 1 << 20]),
        bytes("noise", "64 KiB that nobody chose", none(), || noise(64 << 10)),
        bytes("noise-behind-a-good-head", "a component's head, then noise", none(), || {
            [b"\0asm\x0d\0\x01\0".to_vec(), noise(64 << 10)].concat()
        }),
        bytes("a-script", "a shell script", none(), || b"#!/bin/sh\nrm -rf /\n".to_vec()),
        bytes("a-program", "the head of an ELF program", none(), || b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0".to_vec()),
        bytes("text-of-a-component", "WebAssembly's text, which the engine is built without", none(), || {
            b"(component)".to_vec()
        }),
        bytes("core-module", "a core module", refused(Step::Verified, "a core WebAssembly module"), || {
            wat::parse_str("(module (func (export \"handle\")))").expect("a module")
        }),
        bytes("layer-of-no-kind", "a head of another layer", none(), || b"\0asm\x0d\0\x02\0".to_vec()),
        bytes("version-to-come", "a head of a version to come", none(), || b"\0asm\x0e\0\x01\0".to_vec()),
        bytes("good-and-more", "a good plugin and a byte", none(), || [Guest::echo().handler(), vec![0]].concat()),
        bytes("twice", "two good plugins in one file", none(), || {
            [Guest::echo().handler(), Guest::echo().handler()].concat()
        }),
        bytes("section-of-4-gb", "a section that says it has 4,294,967,295 bytes", none(), || {
            [b"\0asm\x0d\0\x01\0\x07".to_vec(), vec![0xff, 0xff, 0xff, 0xff, 0x0f]].concat()
        }),
        bytes("number-without-end", "a section whose length is a number that never ends", none(), || {
            [b"\0asm\x0d\0\x01\0\x07".to_vec(), vec![0x80; 4_096]].concat()
        }),
        bytes(
            "types-four-billion",
            "a section that says it has 4,294,967,295 types",
            refused(Step::Verified, "4294967"),
            || {
                let mut component = Guest::echo().handler();
                sluicegate_guests::section(&mut component, 7, &[0xff, 0xff, 0xff, 0xff, 0x0f]);
                component
            },
        ),
        bytes("larger-than-may-be", "32 MiB and a byte", refused(Step::Found, "a plugin may have 33554432"), || {
            vec![0; usize::try_from(MAX_FILE_BYTES + 1).expect("small")]
        }),
    ];
    for part in [4_usize, 8, 9, 25, 50, 75, 99] {
        cases.push(Case::file(
            &format!("cut-at-{part}-percent"),
            "a good plugin, cut",
            refused(Step::Verified, ""),
            move || {
                let whole = Guest::echo().handler();
                whole[..whole.len() * part / 100].to_vec()
            },
        ));
    }
    cases.push(bytes("cut-by-a-byte", "a good plugin but for its last byte", none(), || {
        let mut whole = Guest::echo().handler();
        whole.pop();
        whole
    }));
    cases.extend(places());
    cases
}

/// What is no regular file, or none that can be read.
fn places() -> Vec<Case> {
    let not_a_file = || refused(Step::Found, "not a regular file");
    vec![
        Case::place("a-folder", "a folder", not_a_file(), |path| {
            fs::create_dir(path).expect("a folder");
            None
        }),
        Case::place("a-fifo", "a FIFO that nobody writes to", not_a_file(), |path| {
            fifo(path);
            None
        }),
        Case::place("a-socket", "a socket", not_a_file(), |path| {
            // It stays when the listener goes.
            drop(UnixListener::bind(path).expect("a socket"));
            None
        }),
        linked("a-device-without-end", "a link to /dev/zero", "/dev/zero", "not a regular file"),
        linked("a-terminal", "a link to /dev/tty", "/dev/tty", "not a regular file"),
        linked("a-process-memory", "a link to the gateway's own memory", "/proc/self/mem", ""),
        Case::place("a-circle-of-links", "two links to each other", refused(Step::Found, "symbolic links"), |path| {
            let folder = path.parent().expect("a folder");
            let other = folder.join("other-end");
            if other.symlink_metadata().is_err() {
                // Wherever the first one is renamed to, this leads back to it.
                symlink("other-end", &other).expect("a link");
            }
            symlink("other-end", path).expect("a link");
            None
        }),
        Case::place(
            "a-hole-of-2-gib",
            "a sparse file of 2 GiB",
            refused(Step::Found, "2147483648 bytes; a plugin may have"),
            |path| {
                fs::File::create(path).and_then(|file| file.set_len(2 << 30)).expect("a sparse file");
                None
            },
        ),
        Case::place(
            "unreadable",
            "a file of mode 000; root reads it all the same, the gateway runs without that right",
            refused_or_harmless(Step::Found, "ermission denied"),
            |path| {
                fs::write(path, Guest::echo().handler()).expect("written");
                fs::set_permissions(path, fs::Permissions::from_mode(0o000)).expect("its mode");
                None
            },
        )
        .in_gateway(refused(Step::Found, "ermission denied")),
        // A gateway does not read what changes all the time; it waits until it stays as it is, and then it is no component.
        Case::place(
            "changes-while-it-is-read",
            "a file that is written to all the time: read in a pause or not, it is no component",
            Must::NotLive,
            |path| Some(Box::new(Writer::start(path))),
        )
        .in_gateway(refused(Step::Verified, "not a WebAssembly component")),
    ]
}
