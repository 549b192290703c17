//! What a component file says of itself, read without running or compiling it.

use std::fmt;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use sluicegate_core::digest::Digest;
use sluicegate_samples::Sample;
use wasmparser::{CanonicalFunction, ComponentExternalKind, ComponentTypeRef, Encoding, Parser, Payload};

use super::refusal::{Problem, Refusal, Step, quoted};
use super::{http, wasi};

/// The largest file that is read.
pub const MAX_FILE_BYTES: u64 = 32 << 20;
/// It is parsed before anything is known of its author.
const MAX_MANIFEST_BYTES: u64 = 64 << 10;
/// They stay in memory as long as their build.
const MAX_SAMPLES_BYTES: u64 = 16 << 20;
/// The largest function's body: an honest interpreter's loop has some 100 KiB.
const MAX_FUNCTION_BYTES: u32 = 1 << 20;
/// Functions of all modules together: Python has some 20,000.
const MAX_FUNCTIONS: u64 = 100_000;
/// Components and modules within components.
const MAX_DEPTH: usize = 8;
/// Modules and components in all.
const MAX_PARTS: usize = 100;
/// Types, imports, exports, instances, aliases and such, each entry of all sections together.
const MAX_ENTRIES: u64 = 500_000;
/// The interface that this gateway serves.
const PACKAGE: &str = "sluicegate:plugin/";
const VERSION: &str = "@0.1.0";
/// The custom sections in which a component says what it is, and what it promises.
const MANIFEST: &str = "sluicegate:manifest";
const SAMPLES: &str = "sluicegate:samples";

/// What a plugin implements.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum World {
    /// Handles messages.
    TopicHandler,
    /// Checks commands.
    CommandValidator,
}

impl fmt::Display for World {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::TopicHandler => "topic-handler",
            Self::CommandValidator => "command-validator",
        })
    }
}

/// What a plugin says of itself, in the custom section `sluicegate:manifest` (TOML).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// Lower case letters, digits and hyphens.
    pub name: String,
    /// As its author counts.
    pub version: String,
    /// One sentence.
    pub description: String,
}

/// What is known of a file before it is compiled.
#[derive(Debug, Clone)]
pub struct Inspection {
    /// SHA-256 of the whole file.
    pub digest: Digest,
    /// In bytes.
    pub size: u64,
    /// What it implements.
    pub world: World,
    /// The instances that it imports.
    pub imports: Vec<String>,
    /// What it says of itself.
    pub manifest: Manifest,
    /// What it promises.
    pub samples: Vec<Sample>,
}

impl Inspection {
    /// Whether it calls servers: what `grants.http` is for.
    #[must_use]
    pub fn needs_http(&self) -> bool {
        self.imports.iter().any(|import| http::has(import))
    }
}

/// The digest of a file's bytes.
#[must_use]
pub fn digest(bytes: &[u8]) -> Digest {
    Digest(Sha256::digest(bytes).into())
}

/// Reads a component's outermost layer.
///
/// # Errors
/// [`Refusal`], at `verified` for what is no component with a manifest, at `checked` for a wrong world, version or import.
pub fn inspect(bytes: &[u8]) -> Result<Inspection, Refusal> {
    let verified = |problem| Refusal::new(Step::Verified, problem);
    let size = bytes.len() as u64;
    if size > MAX_FILE_BYTES {
        return Err(verified(Problem::TooLarge { size, max: MAX_FILE_BYTES }));
    }
    let surface = Surface::read(bytes).map_err(verified)?;
    let manifest = match surface.manifest {
        Some(bytes) => parse_manifest(bytes).map_err(|reason| verified(Problem::Manifest(reason)))?,
        None => return Err(verified(Problem::Manifest("it is missing".to_owned()))),
    };
    let samples = match surface.samples {
        Some(bytes) => sluicegate_samples::parse_section(bytes)
            .map_err(|error| verified(Problem::Samples(quoted(&error.to_string()))))?,
        None => Vec::new(),
    };
    let world = check(&surface.imports, &surface.exports).map_err(|problem| Refusal::new(Step::Checked, problem))?;
    Ok(Inspection { digest: digest(bytes), size, world, imports: surface.imports, manifest, samples })
}

#[derive(Default)]
struct Surface<'a> {
    imports: Vec<String>,
    exports: Vec<String>,
    manifest: Option<&'a [u8]>,
    samples: Option<&'a [u8]>,
}

impl<'a> Surface<'a> {
    fn read(bytes: &'a [u8]) -> Result<Self, Problem> {
        let wrong = |error: wasmparser::BinaryReaderError| {
            // The parser's message may go on with a dump of bytes, and may quote the file.
            let message = error.message().lines().next().unwrap_or_default();
            let message = message.split(" - expected=[").next().unwrap_or_default().trim_end_matches(':');
            Problem::NotComponent(quoted(message))
        };
        let mut surface = Self::default();
        let (mut depth, mut size) = (0_usize, Size::default());
        for payload in Parser::new(0).parse_all(bytes) {
            let payload = payload.map_err(wrong)?;
            size.count(&payload, depth)?;
            match payload {
                Payload::Version { encoding: Encoding::Module, .. } if depth == 0 => return Err(Problem::CoreModule),
                Payload::ModuleSection { .. } | Payload::ComponentSection { .. } => depth += 1,
                Payload::End(_) => depth = depth.saturating_sub(1),
                Payload::ComponentImportSection(section) if depth == 0 => {
                    for import in section {
                        // Strangers' words from here on: escaped before they reach a log or a terminal.
                        let import = import.map_err(wrong)?;
                        // A type is a name for a shape, nothing that could be called.
                        if !matches!(import.ty, ComponentTypeRef::Type(_)) {
                            surface.imports.push(quoted(import.name.name));
                        }
                    }
                }
                Payload::ComponentExportSection(section) if depth == 0 => {
                    for export in section {
                        let export = export.map_err(wrong)?;
                        if export.kind == ComponentExternalKind::Func {
                            surface.exports.push(quoted(export.name.name));
                        }
                    }
                }
                Payload::CustomSection(section) if depth == 0 => {
                    let (name, max, what, place) = match section.name() {
                        MANIFEST => (MANIFEST, MAX_MANIFEST_BYTES, "bytes of manifest", &mut surface.manifest),
                        SAMPLES => (SAMPLES, MAX_SAMPLES_BYTES, "bytes of samples", &mut surface.samples),
                        _ => continue,
                    };
                    within(section.data().len() as u64, max, what)?;
                    // Whoever looks at the file with other tools may be shown the other one.
                    if place.replace(section.data()).is_some() {
                        return Err(Problem::Twice(name));
                    }
                }
                _ => {}
            }
        }
        Ok(surface)
    }
}

/// How much there is to compile, counted before anything is.
#[derive(Default)]
struct Size {
    parts: usize,
    functions: u64,
    entries: u64,
}

impl Size {
    fn count(&mut self, payload: &Payload<'_>, depth: usize) -> Result<(), Problem> {
        match payload {
            Payload::ModuleSection { .. } | Payload::ComponentSection { .. } => {
                self.parts += 1;
                within(self.parts as u64, MAX_PARTS as u64, "modules and components")?;
                within(depth as u64 + 1, MAX_DEPTH as u64, "levels of components in one another")?;
            }
            Payload::FunctionSection(section) => {
                self.functions += u64::from(section.count());
                within(self.functions, MAX_FUNCTIONS, "functions")?;
            }
            Payload::CodeSectionEntry(body) => {
                let size = body.range().end - body.range().start;
                within(size as u64, u64::from(MAX_FUNCTION_BYTES), "bytes in one function")?;
            }
            Payload::ComponentCanonicalSection(section) => {
                for function in section.clone() {
                    // What is wrong with it is the engine's to say.
                    if matches!(function, Ok(CanonicalFunction::ResourceNew { .. })) {
                        return Err(Problem::Resources);
                    }
                }
                self.entries += u64::from(section.count());
            }
            Payload::TypeSection(section) => self.entries += u64::from(section.count()),
            Payload::ImportSection(section) => self.entries += u64::from(section.count()),
            Payload::GlobalSection(section) => self.entries += u64::from(section.count()),
            Payload::ExportSection(section) => self.entries += u64::from(section.count()),
            Payload::ElementSection(section) => self.entries += u64::from(section.count()),
            Payload::DataSection(section) => self.entries += u64::from(section.count()),
            Payload::CoreTypeSection(section) => self.entries += u64::from(section.count()),
            Payload::InstanceSection(section) => self.entries += u64::from(section.count()),
            Payload::ComponentInstanceSection(section) => self.entries += u64::from(section.count()),
            Payload::ComponentAliasSection(section) => self.entries += u64::from(section.count()),
            Payload::ComponentTypeSection(section) => self.entries += u64::from(section.count()),
            Payload::ComponentImportSection(section) => self.entries += u64::from(section.count()),
            Payload::ComponentExportSection(section) => self.entries += u64::from(section.count()),
            _ => {}
        }
        within(self.entries, MAX_ENTRIES, "types, imports, exports and such")
    }
}

fn within(found: u64, max: u64, what: &'static str) -> Result<(), Problem> {
    if found > max { Err(Problem::TooMuch { found, max, what }) } else { Ok(()) }
}

fn parse_manifest(bytes: &[u8]) -> Result<Manifest, String> {
    let text = std::str::from_utf8(bytes).map_err(|_| "it is not UTF-8".to_owned())?;
    let manifest: Manifest = toml::from_str(text).map_err(|error| quoted(error.message()))?;
    let fit = |text: &str, max| !text.is_empty() && text.len() <= max && !text.chars().any(char::is_control);
    if !fit(&manifest.name, 64) || !fit(&manifest.version, 64) || !fit(&manifest.description, 512) {
        return Err(
            "name and version have 1 to 64 characters, the description up to 512, none a control character".to_owned()
        );
    }
    Ok(manifest)
}

fn check(imports: &[String], exports: &[String]) -> Result<World, Problem> {
    for import in imports {
        if wasi::has(import) || http::has(import) {
            continue;
        }
        let Some(rest) = import.strip_prefix(PACKAGE) else {
            let remedy = "there are sluicegate:plugin and, of WASI 0.2, http where it is granted and, with nothing behind them, cli, clocks, filesystem, io, random and sockets; build the plugin without it";
            return Err(Problem::Import { import: import.clone(), remedy });
        };
        if !rest.ends_with(VERSION) {
            return Err(Problem::Version { found: import.clone() });
        }
    }
    let has = |name: &str| exports.iter().any(|export| export == name);
    match (has("handle"), has("validate")) {
        (true, false) => Ok(World::TopicHandler),
        (false, true) => Ok(World::CommandValidator),
        (true, true) => Err(Problem::World { found: "both `handle` and `validate`".to_owned() }),
        (false, false) if exports.is_empty() => Err(Problem::World { found: "no function".to_owned() }),
        (false, false) => Err(Problem::World { found: quoted(&format!("`{}`", exports.join("`, `"))) }),
    }
}
