//! Whose builds are taken.

use minisign::{KeyPair, PublicKey};
use sluicegate_core::trust::{Distrust, SECTION, TrustedKey, embed, split};
use wasmparser::{Parser, Payload};

use super::*;
use crate::sandbox::inspect::digest;

fn keys() -> (KeyPair, TrustedKey) {
    let pair = KeyPair::generate_unencrypted_keypair().expect("a key");
    let key = TrustedKey::parse(&pair.pk.to_base64()).expect("a key");
    (pair, key)
}

fn sign(pair: &KeyPair, bytes: &[u8]) -> String {
    let public = PublicKey::from_secret_key(&pair.sk).expect("a key");
    minisign::sign(Some(&public), &pair.sk, bytes, None, None).expect("a signature").into_string()
}

#[test]
fn a_signature_beside_the_file_is_looked_at_when_it_changes() {
    run(async {
        let (ours, key) = keys();
        let (theirs, _) = keys();
        let trust = Trust { keys: vec![key], required: true, ..Trust::default() };
        let folder = tempfile::tempdir().expect("a folder");
        put(&folder.path().join("guest.wasm"), &guest(1));
        let said = Said { trust, ..Said::default() };
        let mut stage = Stage::start_in(Arc::new(folder), "guest.wasm", said.clone());
        assert!(stage.refused("verified").await.1.contains("trust.required"));
        fs::write(stage.path("guest.wasm.minisig"), sign(&theirs, &guest(1))).expect("written");
        stage.until(|stage| stage.refusal().filter(|refusal| refusal.1.contains("none of trust.keys"))).await;
        fs::write(stage.path("guest.wasm.minisig"), sign(&ours, &guest(2))).expect("written");
        stage.until(|stage| stage.refusal().filter(|refusal| refusal.1.contains("did not sign these bytes"))).await;
        put(&stage.path("guest.wasm.minisig"), sign(&ours, &guest(1)).as_bytes());
        stage.live(1, 1).await;
        // The new signature first, then the file: nothing is refused in between.
        let refusal = stage.refusal();
        put(&stage.path("guest.wasm.minisig"), sign(&ours, &guest(2)).as_bytes());
        stage.nothing().await;
        put(&stage.path("guest.wasm"), &guest(2));
        stage.live(2, 2).await;
        assert_eq!(stage.refusal(), refusal);
        // What is kept is kept with its own signature.
        let desk = stage.desk.clone();
        let (source, rolled) = tokio::join!(stage.live(1, 3), desk.roll_back("guest", None));
        assert_eq!((source, rolled.map(|rolled| rolled.to)), (Source::Fallback, Ok(digest(&guest(1)))));
        put(&stage.path("guest.wasm.minisig"), sign(&ours, &guest(4)).as_bytes());
        put(&stage.path("guest.wasm"), &guest(4));
        stage.live(4, 4).await;
        put(&stage.path("guest.wasm"), b"garbage");
        let mut stage = stage.again(said).await;
        assert_eq!(stage.live(4, 1).await, Source::Fallback);
        stage.end().await;
    });
}

#[test]
fn a_signature_inside_the_file_goes_with_it() {
    run(async {
        let (ours, key) = keys();
        let signed = |version| embed(&guest(version), &sign(&ours, &guest(version))).expect("signed");
        let folder = tempfile::tempdir().expect("a folder");
        put(&folder.path().join("guest.wasm"), &signed(1));
        let trust = Trust { keys: vec![key], required: true, ..Trust::default() };
        let mut stage = Stage::start_in(Arc::new(folder), "guest.wasm", Said { trust, ..Said::default() });
        stage.live(1, 1).await;
        // Another build's signature.
        put(&stage.path("guest.wasm"), &embed(&guest(2), &sign(&ours, &guest(1))).expect("signed"));
        assert!(stage.refused("verified").await.1.contains("did not sign these bytes"));
        put(&stage.path("guest.wasm"), &signed(2));
        stage.live(2, 2).await;
        stage.end().await;
    });
}

/// Wherever the section stands: each other byte of the file is signed, and the parser sees the section where we do.
#[test]
fn no_byte_outside_the_section_is_uncovered() {
    let (ours, key) = keys();
    let trust = Trust { keys: vec![key], required: true, ..Trust::default() };
    let plain = guest(1);
    let ends: Vec<usize> =
        Parser::new(0).parse_all(&plain).filter_map(|payload| end(&payload.expect("a component"))).collect();
    assert!(ends.len() > 3, "{ends:?}");
    let signature = sign(&ours, &plain);
    let section = embed(&plain, &signature).expect("signed").split_off(plain.len());
    for at in [8].into_iter().chain(ends) {
        let signed = [&plain[..at], &section, &plain[at..]].concat();
        assert_eq!(&*split(&signed).expect("one").content, plain, "at {at}");
        assert!(trust.judge("guest", None, &signed, None).is_ok(), "at {at}");
        let parsed: Vec<_> =
            Parser::new(0).parse_all(&signed).filter_map(|payload| custom(payload.expect("a component"))).collect();
        assert_eq!(parsed, [(at + section.len(), signature.clone().into_bytes())]);
        // A sample of the bytes at each place, every byte at one of them: each takes a signature's time.
        let outside = (0..at).chain(at + section.len()..signed.len());
        for byte in outside.step_by(if at == 8 { 7 } else { 101 }) {
            let mut changed = signed.clone();
            changed[byte] ^= 1;
            let verdict = trust.judge("guest", None, &changed, None);
            assert!(verdict.is_err(), "byte {byte} with the section at {at}");
        }
        let mut longer = signed.clone();
        longer.push(0);
        assert!(matches!(trust.judge("guest", None, &longer, None), Err(Distrust::Wrong { .. })));
    }
    assert_ne!(digest(&plain), digest(&embed(&plain, &signature).expect("signed")));
}

/// Where a section of the component itself ends.
fn end(payload: &Payload<'_>) -> Option<usize> {
    match payload {
        Payload::CustomSection(section) if section.name().starts_with("sluicegate:") => Some(section.range().end),
        Payload::ComponentTypeSection(section) => Some(section.range().end),
        Payload::ComponentExportSection(section) => Some(section.range().end),
        _ => None,
    }
}

fn custom(payload: Payload<'_>) -> Option<(usize, Vec<u8>)> {
    match payload {
        Payload::CustomSection(section) if section.name() == SECTION => {
            Some((section.range().end, section.data().to_vec()))
        }
        _ => None,
    }
}
