//! Small plugins as text: a core module in WAT that answers every call with fixed bytes, or does something bad, made into
//! a component with the contract's own WIT.

use std::path::Path;

use ostler_protocol::event::{Person, ToolOutcome};
use ostler_protocol::{CallId, SessionId, TurnId};
use wit_component::{StringEncoding, embed_component_metadata};
use wit_parser::{PackageId, Resolve};

use crate::plugins::{
    Effect, PluginError, PluginHost, PluginSource, PrCreate, PrSize, PrText, Scope, SessionSource, SessionStart,
    ToolAfter, ToolBefore, componentize,
};

/// What a fixture answers.
#[derive(Clone, Default)]
pub(super) struct Reply {
    /// Case of the verdict: 0 pass, 1 allow, 2 deny, 3 ask, 4 defer, 5 halt, 6 other, and what is beyond is nonsense.
    pub(super) verdict: u8,
    /// Rule of the verdict, or the text of `other`.
    pub(super) rule: &'static str,
    /// Message of the verdict.
    pub(super) message: &'static str,
    /// Case and text of the patch.
    pub(super) patch: Option<(u8, &'static str)>,
    /// Text of a context fragment.
    pub(super) context: Option<&'static str>,
}

pub(super) const PASS: u8 = 0;
pub(super) const ALLOW: u8 = 1;
pub(super) const DENY: u8 = 2;
pub(super) const ASK: u8 = 3;
pub(super) const DEFER: u8 = 4;
pub(super) const HALT: u8 = 5;
pub(super) const OTHER: u8 = 6;
pub(super) const REPLACE: u8 = 0;
pub(super) const MERGE: u8 = 1;

/// Where the reply is in the memory of a fixture, and where its strings begin.
const REPLY: usize = 1024;
const STRINGS: usize = 2048;

/// The hook of a fixture, as its WIT interface.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum On {
    SessionStart,
    ToolBefore,
    ToolAfter,
    PrCreate,
}

impl On {
    pub(super) fn interface(self) -> &'static str {
        match self {
            Self::SessionStart => "session-start",
            Self::ToolBefore => "tool-execute-before",
            Self::ToolAfter => "tool-execute-after",
            Self::PrCreate => "pr-create",
        }
    }

    pub(super) fn name(self) -> String {
        self.interface().replace('-', ".")
    }

    /// Where the context list is in a reply: behind verdict and patch, whose sizes differ by hook.
    fn context_offset(self) -> usize {
        match self {
            Self::SessionStart => 56,
            Self::ToolBefore | Self::ToolAfter => 72,
            Self::PrCreate => 96,
        }
    }
}

/// The bytes of `result<outcome, hook-error>` by the canonical ABI, and the strings that they point to.
struct Image {
    reply: Vec<u8>,
    strings: Vec<u8>,
}

impl Image {
    fn text(&mut self, offset: usize, text: &str) {
        let at = STRINGS + self.strings.len();
        self.strings.extend_from_slice(text.as_bytes());
        self.word(offset, at);
        self.word(offset + 4, text.len());
    }

    fn word(&mut self, offset: usize, value: usize) {
        self.reply[offset..offset + 4].copy_from_slice(&u32::try_from(value).unwrap().to_le_bytes());
    }
}

fn image(on: On, reply: &Reply) -> Image {
    let mut image = Image { reply: vec![0; 128], strings: Vec::new() };
    image.reply[8] = reply.verdict;
    match reply.verdict {
        PASS => {}
        OTHER => image.text(16, reply.rule),
        _ => {
            image.text(16, reply.rule);
            image.text(24, reply.message);
        }
    }
    if let Some((case, text)) = reply.patch {
        image.reply[56] = 1;
        image.reply[60] = case;
        if on == On::PrCreate && case == REPLACE {
            // The only change is a new title.
            image.reply[64] = 1;
            image.text(68, text);
        } else {
            image.text(64, text);
        }
    }
    if let Some(text) = reply.context {
        // The one element of the list lies behind everything else: title, text, ext.
        image.word(on.context_offset(), REPLY + 104);
        image.word(on.context_offset() + 4, 1);
        image.text(112, text);
    }
    image
}

fn escaped(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("\\{byte:02x}")).collect()
}

/// A plugin that answers `reply`.
pub(super) fn answering(on: On, reply: &Reply) -> Vec<u8> {
    let Image { reply, strings } = image(on, reply);
    let data = format!(
        "(data (i32.const {REPLY}) \"{}\") (data (i32.const {STRINGS}) \"{}\")",
        escaped(&reply),
        escaped(&strings)
    );
    doing(on, &format!("i32.const {REPLY}"), &data)
}

/// A plugin that runs `body`, which leaves the address of a reply; `fields` are further fields of its module.
pub(super) fn doing(on: On, body: &str, fields: &str) -> Vec<u8> {
    let interface = on.interface();
    component(&module(interface, body, fields), &format!("handles-{interface}"))
}

fn module(interface: &str, body: &str, fields: &str) -> String {
    format!(
        r#"(module
            {fields}
            (memory (export "memory") 2)
            (global $next (mut i32) (i32.const 65536))
            (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32)
                (local $at i32)
                (local.set $at (i32.and (i32.add (global.get $next) (i32.const 7)) (i32.const -8)))
                (global.set $next (i32.add (local.get $at) (local.get 3)))
                (local.get $at))
            (func (export "ostler:hooks/{interface}@0.1.0#handle") (param i32) (result i32) {body}))"#
    )
}

/// A component from a core module as text and a world of the contract.
pub(super) fn component(core: &str, world: &str) -> Vec<u8> {
    let (resolve, package) = contract();
    encode(core, &resolve, package, world)
}

/// A plugin for `tool.execute.before` that also imports parts of WASI; `imports` declares its core functions.
pub(super) fn with_wasi(imports: &str, body: &str) -> Vec<u8> {
    let (mut resolve, _) = contract();
    let package = resolve.push_str("wasi.wit", WASI).unwrap();
    let core = module("tool-execute-before", body, imports);
    encode(&core, &resolve, package, "fixture")
}

/// As much of WASI 0.2 as the fixtures call.
const WASI: &str = r#"
    package fixture:wasi;

    world fixture {
        import wasi:io/poll@0.2.0;
        import wasi:clocks/monotonic-clock@0.2.0;
        import wasi:cli/environment@0.2.0;
        import wasi:filesystem/types@0.2.0;
        import wasi:filesystem/preopens@0.2.0;
        export ostler:hooks/tool-execute-before@0.1.0;
    }

    package wasi:io@0.2.0 {
        interface poll { resource pollable { block: func(); } }
    }
    package wasi:clocks@0.2.0 {
        interface monotonic-clock {
            use wasi:io/poll@0.2.0.{pollable};
            subscribe-duration: func(when: u64) -> pollable;
        }
    }
    package wasi:cli@0.2.0 {
        interface environment { get-environment: func() -> list<tuple<string, string>>; }
    }
    package wasi:filesystem@0.2.0 {
        interface types { resource descriptor; }
        interface preopens {
            use types.{descriptor};
            get-directories: func() -> list<tuple<descriptor, string>>;
        }
    }
"#;

fn contract() -> (Resolve, PackageId) {
    let mut resolve = Resolve::default();
    let (package, _) = resolve.push_path(Path::new(env!("CARGO_MANIFEST_DIR")).join("../wit")).unwrap();
    (resolve, package)
}

fn encode(core: &str, resolve: &Resolve, package: PackageId, world: &str) -> Vec<u8> {
    let mut module = wat::parse_str(core).unwrap();
    let world = resolve.select_world(&[package], Some(world)).unwrap();
    embed_component_metadata(&mut module, resolve, world, StringEncoding::UTF8).unwrap();
    componentize(&module).unwrap()
}

/// The manifest of a plugin with one hook in one phase; `more` goes into the hook's table.
pub(super) fn manifest(id: &str, on: On, phase: &str, more: &str) -> String {
    format!(
        "id = \"{id}\"\nversion = \"1\"\ncontract = \"0.1\"\n[[hooks]]\nname = \"{}\"\nphase = \"{phase}\"\n{more}\n",
        on.name()
    )
}

pub(super) fn embedded(manifest: String, component: Vec<u8>) -> PluginSource {
    PluginSource::Embedded { manifest, component, config: None }
}

/// A host with plugins of one hook: id, phase, further lines of the hook's table, component.
pub(super) async fn host(on: On, plugins: &[(&str, &str, &str, Vec<u8>)]) -> Result<PluginHost, PluginError> {
    let sources: Vec<_> = plugins
        .iter()
        .map(|(id, phase, more, component)| embedded(manifest(id, on, phase, more), component.clone()))
        .collect();
    PluginHost::load(&sources).await
}

pub(super) fn scope() -> Scope {
    Scope {
        session: SessionId::generate(),
        ancestors: Vec::new(),
        repository: "demo".to_owned(),
        base_branch: "main".to_owned(),
        branch: "ostler/x".to_owned(),
        author: Person { name: "A. Person".to_owned(), email: "person@example.com".to_owned() },
    }
}

pub(super) fn tool_before(tool: &str, arguments: serde_json::Value) -> ToolBefore {
    ToolBefore {
        scope: scope(),
        turn: TurnId::generate(),
        call: CallId::generate(),
        tool: tool.to_owned(),
        effect: Effect::Execute,
        arguments,
        working_directory: "/workspace".to_owned(),
    }
}

pub(super) fn tool_after(tool: &str, output: &str) -> ToolAfter {
    ToolAfter {
        scope: scope(),
        turn: TurnId::generate(),
        call: CallId::generate(),
        tool: tool.to_owned(),
        arguments: serde_json::json!({ "command": "true" }),
        outcome: ToolOutcome::Done,
        exit_status: Some(0),
        output: output.to_owned(),
        took: std::time::Duration::from_millis(3),
    }
}

pub(super) fn session_start() -> SessionStart {
    SessionStart { scope: scope(), source: SessionSource::New }
}

pub(super) fn pr_create(title: &str) -> PrCreate {
    PrCreate {
        scope: scope(),
        text: PrText { title: title.to_owned(), body: "body".to_owned() },
        head_commit: "0".repeat(40),
        size: Some(PrSize { files_changed: 1, lines_added: 2, lines_removed: 3 }),
    }
}
