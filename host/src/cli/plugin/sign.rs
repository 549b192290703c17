//! `sluicegate plugin sign` and `verify`: whose a component file is.

use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use clap::Args;
use minisign::{KeyPair, PublicKey, SecretKey, SecretKeyBox};
use serde_json::json;
use sluicegate_core::digest::Digest;
use sluicegate_core::trust::{self, Distrust, KeyId, Trust, TrustedKey};

use super::{read, wrong};
use crate::cli::config;
use crate::cli::output::{Code, Failure, Output};
use crate::registry::load::{File, signature_path};
use crate::sandbox::{Problem, Refusal, Step};
use crate::telemetry::clock;
use crate::whole;

#[derive(Args)]
pub(in crate::cli) struct Sign {
    /// The component.
    #[arg(required_unless_present = "generate_key", requires = "key")]
    file: Option<PathBuf>,
    /// The secret key, as minisign writes it (`minisign -G -W`).
    #[arg(long, value_name = "KEYFILE")]
    key: Option<PathBuf>,
    /// Puts the signature into the file itself (custom section `sluicegate:signature`), not beside it.
    #[arg(long)]
    embed: bool,
    /// Makes a key pair instead: KEYFILE, and KEYFILE.pub for those who verify.
    #[arg(long, value_name = "KEYFILE", conflicts_with_all = ["file", "key", "embed"])]
    generate_key: Option<PathBuf>,
}

#[derive(Args)]
pub(in crate::cli) struct Verify {
    /// The component.
    file: PathBuf,
    /// A public key (`RW…`, or the file that holds it) that is trusted in place of the settings' trust.keys (may be said several
    /// times); a signature is required then.
    #[arg(long, value_name = "KEY")]
    key: Vec<String>,
}

fn cannot(what: &str, path: &Path, error: &dyn std::fmt::Display) -> Failure {
    Failure::new(Code::Wrong, format!("cannot {what} {}: {error}", path.display()), "sluicegate plugin sign --help")
}

pub(super) fn sign(arguments: &Sign, output: &Output) -> Result<Code, Failure> {
    match (&arguments.generate_key, &arguments.file, &arguments.key) {
        (Some(path), ..) => generate(path, output),
        (None, Some(file), Some(key)) => sign_file(file, key, arguments.embed, output),
        // Invariant: clap asks for them.
        _ => Err(Failure::new(Code::Usage, "say which file, and --key", "sluicegate plugin sign --help")),
    }
}

fn generate(path: &Path, output: &Output) -> Result<Code, Failure> {
    let public = {
        let mut name = path.as_os_str().to_owned();
        name.push(".pub");
        PathBuf::from(name)
    };
    let failed = |error: minisign::PError| cannot("make a key for", path, &error);
    let KeyPair { pk, sk } = KeyPair::generate_unencrypted_keypair().map_err(failed)?;
    let secret = sk.to_box(Some("minisign secret key of a plugin's author")).map_err(failed)?.into_string();
    // A key that is there signs what others trust: it is not overwritten.
    let fresh = |path: &Path, mode, text: &str| {
        let file = OpenOptions::new().create_new(true).write(true).mode(mode).open(path);
        file.and_then(|mut file| file.write_all(text.as_bytes())).map_err(|error| cannot("write", path, &error))
    };
    fresh(path, 0o600, &secret)?;
    fresh(&public, 0o644, &pk.to_box().map_err(failed)?.into_string())?;
    let (line, id) = (pk.to_base64(), key_id(&sk));
    let text = format!(
        "made key {id}: {} (keep it secret; it has no password) and {}\nfor the settings of those who trust it:\n\n[trust]\nkeys = [\"{line}\"]\n",
        path.display(),
        public.display()
    );
    Ok(output.good(&text, &json!({ "key_id": id.to_string(), "public_key": line, "secret": path, "public": public })))
}

fn key_id(key: &SecretKey) -> KeyId {
    KeyId::from_bytes(key.keynum().try_into().unwrap_or_default())
}

fn secret_key(path: &Path) -> Result<SecretKey, Failure> {
    let text = fs::read_to_string(path).map_err(|error| cannot("read", path, &error))?;
    let key = SecretKeyBox::from_string(&text).and_then(SecretKeyBox::into_unencrypted_secret_key);
    key.map_err(|error| {
        let message = format!("{} is no minisign secret key without a password: {error}", path.display());
        Failure::new(
            Code::Wrong,
            message,
            "sluicegate plugin sign --generate-key KEYFILE; or sign with `minisign -S` itself",
        )
    })
}

fn sign_file(path: &Path, key_path: &Path, embed: bool, output: &Output) -> Result<Code, Failure> {
    let file = read(path)?;
    let key = secret_key(key_path)?;
    let beside = signature_path(path);
    if embed && file.signature.is_some() {
        let message = format!(
            "{} is of the file as it is, and would be wrong of the file with a signature in it",
            beside.display()
        );
        return Err(Failure::new(Code::Wrong, message, format!("rm {}", beside.display())));
    }
    let failed = |error: minisign::PError| cannot("sign", path, &error);
    let content =
        if embed { trust::split(&file.bytes).map_err(distrusted)?.content.into_owned() } else { file.bytes.clone() };
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let comment = format!("timestamp:{}\tfile:{}\thashed", clock::now().as_second(), name.escape_debug());
    let public = PublicKey::from_secret_key(&key).map_err(failed)?;
    let signature = minisign::sign(Some(&public), &key, &*content, Some(&comment), None).map_err(failed)?.into_string();
    let id = key_id(&key);
    let (written, bytes) = if embed {
        let signed = trust::embed(&file.bytes, &signature).map_err(distrusted)?;
        // What is cut off in the middle of a section would swallow the new one.
        if trust::split(&signed).ok().and_then(|split| split.signature) != Some(signature.as_bytes()) {
            return Err(Failure::new(
                Code::Wrong,
                "not a WebAssembly component: it has no sections, or half of one",
                "sluicegate plugin inspect FILE",
            ));
        }
        (path, signed)
    } else {
        (&*beside, signature.into_bytes())
    };
    whole::replace(written, &bytes).map_err(|error| cannot("write", written, &error))?;
    let digest = if embed { trust::digest(&bytes) } else { file.digest };
    let text = format!("signed with key {id}: {}\ndigest {digest}\n", written.display());
    Ok(output.good(&text, &json!({ "key_id": id.to_string(), "written": written, "digest": digest.to_string() })))
}

fn distrusted(distrust: Distrust) -> Failure {
    wrong(&Refusal { step: Step::Verified, problem: Problem::Untrusted(distrust) })
}

/// The keys, the pinned digest and whether a signature is required, as the settings say it of this file.
fn settings(path: &Path, file: Option<&Path>) -> Result<(Trust, String, Option<Digest>), Failure> {
    let settings = config::load(file)?.settings;
    let same =
        |other: &Path| fs::canonicalize(other).ok().is_some_and(|other| fs::canonicalize(path).ok() == Some(other));
    let plugin = settings.plugins.into_iter().find(|(_, plugin)| same(&plugin.path));
    let (name, pinned) = plugin.map_or_else(Default::default, |(name, plugin)| (name, plugin.digest));
    Ok((settings.trust, name, pinned))
}

fn public_key(text: &str) -> Result<TrustedKey, Failure> {
    let line = match fs::read_to_string(text) {
        Ok(file) => file.lines().nth(1).unwrap_or_default().to_owned(),
        Err(_) => text.to_owned(),
    };
    TrustedKey::parse(&line)
        .map_err(|error| Failure::new(Code::Usage, format!("{text}: {error}"), "sluicegate plugin verify --help"))
}

pub(super) fn verify(arguments: &Verify, config: Option<&Path>, output: &Output) -> Result<Code, Failure> {
    let file: File = read(&arguments.file)?;
    let keys = arguments.key.iter().map(|key| public_key(key)).collect::<Result<Vec<_>, _>>()?;
    let (trust, name, pinned) = if keys.is_empty() {
        settings(&arguments.file, config)?
    } else {
        (Trust { keys, ..Trust::default() }, String::new(), None)
    };
    let signed = trust::split(&file.bytes).map_err(distrusted)?;
    let inside = signed.signature.is_some();
    let signer = trust
        .judge(&name, pinned, &file.bytes, file.signature.as_deref())
        .map_err(|distrust| distrusted(distrust).then("sluicegate config show (trust, and each plugin's digest)"))?;
    if signer.is_none() && !arguments.key.is_empty() {
        let next = "sluicegate plugin sign FILE --key KEYFILE (its author does)";
        return Err(Failure::new(Code::Wrong, "it is not signed", next));
    }
    let place = match (inside, file.signature.is_some()) {
        (true, true) => " (in the file, and beside it)",
        (true, false) => " (in the file)",
        (false, _) => " (beside the file)",
    };
    let content = trust::digest(&signed.content);
    let mut text = format!("digest     {}\n", file.digest);
    if inside {
        text.push_str(&format!("unsigned   {content} (the file without its signature)\n"));
    }
    text.push_str(&match signer {
        Some(key) => format!("signed by  {key}{place}\ngood\n"),
        None => "signed by  nobody\ngood: trust.required = false\n".to_owned(),
    });
    let data = json!({
        "digest": file.digest.to_string(),
        "content": content.to_string(),
        "signed_by": signer.map(|key| key.to_string()),
    });
    Ok(output.good(&text, &data))
}
