//! The table of keys: everything that the configuration file may hold.
//!
//! One row is one key. Parsing, unknown keys, `config show`, the JSON Schema, the help of flags and the reference page
//! are all made of it, so a new key is a new row and a field to fill in `assemble.rs`. A `*` in a path stands for a
//! name that the operator chooses. Nothing is decided here.

use super::env;
use super::kind::Kind;

/// A section of the file.
#[derive(Clone, Copy, Debug)]
pub struct Section {
    /// Its path, such as `providers.*.models.*`.
    pub path: &'static str,
    /// What it is about, in Markdown.
    pub meaning: &'static str,
}

/// A key of the file.
#[derive(Debug, PartialEq, Eq)]
pub struct Key {
    /// Its path, such as `providers.*.base_url`.
    pub path: &'static str,
    /// What its value is.
    pub kind: Kind,
    /// What holds when nothing else is said.
    pub default: Fallback,
    /// Environment variables by the path that each sets.
    pub variables: &'static [(&'static str, &'static str)],
    /// Flag of `ostler up`, with its dashes.
    pub flag: Option<&'static str>,
    /// Which providers have it; every key outside of providers is for all.
    pub providers: Providers,
    /// What it means: a sentence without a final period, then more if it must be.
    pub meaning: &'static str,
    /// A value as the file holds it.
    pub example: &'static str,
}

/// What holds when nothing else is said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fallback {
    /// A value, as text.
    Value(&'static str),
    /// A list without members.
    EmptyList,
    /// Values, as text, for some paths only.
    For(&'static [(&'static str, &'static str)]),
    /// Nothing; in words what that means.
    Nothing(&'static str),
}

/// Which providers have a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Providers {
    /// All.
    All,
    /// Those that are asked over HTTP.
    Remote,
    /// The one that plays a script.
    Scripted,
}

/// Providers that exist without a file.
pub const BUILT_IN: &[&str] = &["anthropic", "openai", SCRIPTED];

/// The provider that plays a script.
pub const SCRIPTED: &str = "scripted";

/// Sections in the order of the reference page.
pub const SECTIONS: &[Section] = &[
    Section { path: "host", meaning: "The host itself: where its state is and who may call it." },
    Section { path: "agent", meaning: "The agent: what it is when a session does not say." },
    Section { path: "sandbox", meaning: "Every sandbox: what it is made of and what it may use." },
    Section {
        path: "egress",
        meaning: "What sandboxes may reach outside. **Without a rule nothing**: an empty list allows nothing. What rules can do and what \
                  they cannot is on [the page about the network](../egress.md).",
    },
    Section {
        path: "egress.hosts.*",
        meaning: "One host for which more is to be said than that it is allowed; the section allows it. Its name is the host as in \
                  `egress.allow`, in quotes: `[egress.hosts.\"mirror.example.org\"]`. A host may have a section and stand in a list or a \
                  preset: then what any of them allows is allowed.",
    },
    Section { path: "plugins", meaning: "Plugins: WebAssembly components that every step passes." },
    Section {
        path: "providers.*",
        meaning: "A provider of models. Its name is the part of a model's name before the first `/`: 1 to 64 of `a-z`, \
                  `0-9`, `_` and `-`. The providers `anthropic`, `openai` and `scripted` exist without a section; one \
                  refines them. A key is never written into the file: name the variable or the file that holds it. \
                  The variable counts more than the file.",
    },
    Section {
        path: "providers.*.models.*",
        meaning: "What is known of one model, by the part of its name after the first `/`. A model without a section is \
                  asked all the same.",
    },
    Section {
        path: "log",
        meaning: "The host's log, which goes to standard error, and as JSON lines to the folder `log` of the data folder: \
                  `ostler logs` shows it.",
    },
    Section { path: "telemetry", meaning: "Traces and metrics. Metrics are always at `GET /metrics` of the API." },
];

const ROW: Key = Key {
    path: "",
    kind: Kind::Text,
    default: Fallback::EmptyList,
    variables: &[],
    flag: None,
    providers: Providers::All,
    meaning: "",
    example: "",
};

/// Keys in the order of the reference page: those of a section stand together.
pub const KEYS: &[Key] = &[
    Key {
        path: "host.data",
        kind: Kind::Path,
        default: Fallback::Value("/var/lib/ostler"),
        variables: &[("host.data", env::DATA)],
        flag: Some("--data"),
        meaning: "Folder of the host's state; without root `~/.local/share/ostler`",
        example: "\"/srv/ostler\"",
        ..ROW
    },
    Key {
        path: "host.listen",
        kind: Kind::Address,
        // Loopback, because what it serves is a shell on the operator's machine.
        default: Fallback::Value("127.0.0.1:7878"),
        variables: &[("host.listen", env::LISTEN)],
        flag: Some("--listen"),
        meaning: "Address of the API; port 0 takes a free one",
        example: "\"127.0.0.1:7878\"",
        ..ROW
    },
    Key {
        path: "host.allowed_hosts",
        kind: Kind::HostNames,
        flag: Some("--allow-host"),
        meaning: "Further names by which the host is reached, without a port",
        example: "[\"ostler.example.org\"]",
        ..ROW
    },
    Key {
        path: "host.allowed_origins",
        kind: Kind::Origins,
        flag: Some("--allow-origin"),
        meaning: "Web origins that may call the API",
        example: "[\"https://ostler.example.org\"]",
        ..ROW
    },
    Key {
        path: "agent.model",
        kind: Kind::Model,
        default: Fallback::Nothing("`scripted/demo` where there is a script, else none: it must be chosen"),
        variables: &[("agent.model", env::MODEL)],
        flag: Some("--model"),
        meaning: "Model of sessions that name none: the provider, a slash, the provider's name for it",
        example: "\"anthropic/claude-sonnet-4-5\"",
        ..ROW
    },
    Key {
        path: "sandbox.image",
        default: Fallback::Value("base"),
        flag: Some("--image"),
        meaning: "Image of workspaces",
        example: "\"base\"",
        ..ROW
    },
    Key {
        path: "sandbox.memory",
        kind: Kind::Size,
        // Room for the tests of a small program, on a machine that runs several sandboxes.
        default: Fallback::Value("2G"),
        flag: Some("--memory"),
        meaning: "Memory of each sandbox",
        example: "\"512M\"",
        ..ROW
    },
    Key {
        path: "sandbox.pids",
        kind: Kind::Number { lowest: 16, highest: 1_000_000 },
        default: Fallback::Value("1024"),
        flag: Some("--pids"),
        meaning: "Processes and threads of each sandbox",
        example: "4096",
        ..ROW
    },
    Key {
        path: "sandbox.cpus",
        kind: Kind::Cores,
        default: Fallback::Value("2"),
        flag: Some("--cpus"),
        meaning: "Processor cores of each sandbox",
        example: "1.5",
        ..ROW
    },
    Key {
        path: "sandbox.cpu_weight",
        kind: Kind::Number { lowest: 1, highest: 1000 },
        default: Fallback::Value("100"),
        meaning: "Share of processor time where sandboxes compete for it; twice the number gets twice the time",
        example: "50",
        ..ROW
    },
    Key {
        path: "sandbox.io_weight",
        kind: Kind::Number { lowest: 1, highest: 1000 },
        default: Fallback::Value("100"),
        meaning: "Share of the disk's time in the same way, where the kernel shares it out",
        example: "50",
        ..ROW
    },
    Key {
        path: "sandbox.disk",
        kind: Kind::Size,
        default: Fallback::Value("20G"),
        flag: Some("--disk"),
        meaning: "What each sandbox may write to the disk, beside its image",
        example: "\"50G\"",
        ..ROW
    },
    Key {
        path: "sandbox.files",
        kind: Kind::Number { lowest: 1000, highest: 100_000_000 },
        default: Fallback::Value("2000000"),
        meaning: "Files and folders that each sandbox may make",
        example: "500000",
        ..ROW
    },
    Key {
        path: "egress.presets",
        kind: Kind::Presets,
        meaning: "Lists of hosts by name, for the usual package managers and forges",
        example: "[\"apt\", \"cargo\"]",
        ..ROW
    },
    Key {
        path: "egress.allow",
        kind: Kind::HostPatterns,
        meaning: "Hosts that sandboxes may reach on the ports 80 and 443, with TLS and plain HTTP. `*.example.org` means every name below \
                  `example.org`, not `example.org` itself",
        example: "[\"example.org\", \"*.example.org\"]",
        ..ROW
    },
    Key {
        path: "egress.bytes_up",
        kind: Kind::Size,
        default: Fallback::Nothing("no limit"),
        meaning: "Most bytes that the sandboxes of one session may send, all together, also over restarts of the host. At the end of a \
                  budget every connection is cut and no more are made",
        example: "\"1G\"",
        ..ROW
    },
    Key {
        path: "egress.bytes_down",
        kind: Kind::Size,
        default: Fallback::Nothing("no limit"),
        meaning: "Most bytes that the sandboxes of one session may receive",
        example: "\"10G\"",
        ..ROW
    },
    Key {
        path: "egress.bytes_total",
        kind: Kind::Size,
        default: Fallback::Nothing("no limit"),
        meaning: "Most bytes that the sandboxes of one session may send and receive together",
        example: "\"10G\"",
        ..ROW
    },
    Key {
        path: "egress.certificates",
        kind: Kind::Path,
        default: Fallback::Nothing("the bundle of the host's machine, where one is found"),
        meaning: "File with the certificates that programs in sandboxes trust, in PEM, at most 1 MiB. Commands find it by `SSL_CERT_FILE` and \
                  the like. A new sandbox gets what the file holds then",
        example: "\"/etc/ostler/certificates.pem\"",
        ..ROW
    },
    Key {
        path: "egress.hosts.*.ports",
        kind: Kind::Ports,
        meaning: "Ports for TLS and plain HTTP; 80 and 443 where there are none",
        example: "[443, 8443]",
        ..ROW
    },
    Key {
        path: "egress.hosts.*.tcp_ports",
        kind: Kind::Ports,
        meaning: "Ports on which any protocol may be spoken, such as 22 for SSH. Only the name by which the address was looked up is \
                  checked, nothing of what is said",
        example: "[22]",
        ..ROW
    },
    Key {
        path: "egress.hosts.*.methods",
        kind: Kind::Methods,
        meaning: "Methods of plain HTTP; all where there are none. What is said within TLS cannot be seen: with methods or paths, TLS to \
                  this host is refused",
        example: "[\"GET\", \"HEAD\"]",
        ..ROW
    },
    Key {
        path: "egress.hosts.*.paths",
        kind: Kind::PathPrefixes,
        meaning: "Beginnings of paths of plain HTTP, in whole segments; all where there are none. TLS as with `methods`",
        example: "[\"/debian/\"]",
        ..ROW
    },
    Key {
        path: "egress.hosts.*.private",
        kind: Kind::Ranges,
        meaning: "Ranges beside the public ones into which the host may resolve. Without them private addresses, the host's own machine and \
                  the metadata of clouds are refused, whatever DNS says",
        example: "[\"10.0.0.0/8\"]",
        ..ROW
    },
    Key {
        path: "egress.hosts.*.addresses",
        kind: Kind::Addresses,
        meaning: "Addresses of the host, in the place of what DNS says; not for a `*.`. They too must be public or in a range of `private`",
        example: "[\"10.0.0.7\"]",
        ..ROW
    },
    Key {
        path: "plugins.paths",
        kind: Kind::Paths,
        flag: Some("--plugin"),
        meaning: "Folders of the plugins to load; the order counts",
        example: "[\"/etc/ostler/plugins/policy\"]",
        ..ROW
    },
    Key {
        path: "providers.*.kind",
        kind: Kind::Choice(&["anthropic", "openai", SCRIPTED]),
        default: Fallback::For(&[
            ("providers.anthropic.kind", "anthropic"),
            ("providers.openai.kind", "openai"),
            ("providers.scripted.kind", SCRIPTED),
        ]),
        meaning: "What it speaks: Anthropic's Messages, OpenAI's chat completions (local servers speak them too), or \
                  nothing because it plays a script. It must be given for a provider of your own",
        example: "\"openai\"",
        ..ROW
    },
    Key {
        path: "providers.*.base_url",
        kind: Kind::Url,
        default: Fallback::For(&[
            ("providers.anthropic.base_url", "https://api.anthropic.com"),
            ("providers.openai.base_url", "https://api.openai.com/v1"),
        ]),
        variables: &[
            ("providers.anthropic.base_url", env::ANTHROPIC_BASE_URL),
            ("providers.openai.base_url", env::OPENAI_BASE_URL),
        ],
        providers: Providers::Remote,
        meaning: "Where it is, without credentials, query or fragment: what comes before `/v1/messages` or \
                  `/chat/completions`. It must be given for a provider of your own",
        example: "\"http://127.0.0.1:8000/v1\"",
        ..ROW
    },
    Key {
        path: "providers.*.api_key_env",
        kind: Kind::Variable,
        default: Fallback::For(&[
            ("providers.anthropic.api_key_env", env::ANTHROPIC_API_KEY),
            ("providers.openai.api_key_env", env::OPENAI_API_KEY),
        ]),
        providers: Providers::Remote,
        meaning: "Environment variable that holds the key. Where it is not set, no key is sent",
        example: "\"LOCAL_API_KEY\"",
        ..ROW
    },
    Key {
        path: "providers.*.api_key_file",
        kind: Kind::KeyFile,
        default: Fallback::Nothing("none"),
        providers: Providers::Remote,
        meaning: "File that holds the key in one line and that only its owner may read (mode 0600 or less). Read when \
                  the host starts, as the user that starts it",
        example: "\"/etc/ostler/local.key\"",
        ..ROW
    },
    Key {
        path: "providers.*.max_attempts",
        kind: Kind::Number { lowest: 1, highest: 20 },
        default: Fallback::Value("5"),
        providers: Providers::Remote,
        meaning: "Attempts at one request before the turn fails",
        example: "3",
        ..ROW
    },
    Key {
        path: "providers.*.idle_timeout",
        kind: Kind::Time { lowest: 1, highest: 3600 },
        default: Fallback::Value("2m"),
        providers: Providers::Remote,
        meaning: "Longest wait for the first byte of an answer, and between two pieces of it",
        example: "\"120s\"",
        ..ROW
    },
    Key {
        path: "providers.*.answer_timeout",
        kind: Kind::Time { lowest: 1, highest: 86_400 },
        default: Fallback::Value("15m"),
        providers: Providers::Remote,
        meaning: "Longest time of one answer from its first byte to its last",
        example: "\"15m\"",
        ..ROW
    },
    Key {
        path: "providers.*.script",
        kind: Kind::Path,
        default: Fallback::Nothing("none"),
        flag: Some("--script"),
        providers: Providers::Scripted,
        meaning: "Conversation that the scripted model plays",
        example: "\"/etc/ostler/script.toml\"",
        ..ROW
    },
    Key {
        path: "providers.*.models.*.context_tokens",
        kind: Kind::Number { lowest: 1, highest: u32::MAX },
        default: Fallback::Nothing("not known: the provider's refusal tells when a context is too long"),
        providers: Providers::Remote,
        meaning: "Tokens that its context holds, the answer included",
        example: "200000",
        ..ROW
    },
    Key {
        path: "providers.*.models.*.max_output_tokens",
        kind: Kind::Number { lowest: 1, highest: u32::MAX },
        default: Fallback::Nothing("the provider's own limit; Anthropic wants one and gets 8192"),
        providers: Providers::Remote,
        meaning: "Most tokens of one answer",
        example: "8192",
        ..ROW
    },
    Key {
        path: "log.filter",
        kind: Kind::Filter,
        default: Fallback::Value("info"),
        variables: &[("log.filter", env::LOG)],
        meaning: "What is logged, in the words of `tracing_subscriber`",
        example: "\"info,ostler::api=debug\"",
        ..ROW
    },
    Key {
        path: "log.format",
        kind: Kind::Choice(&["text", "json"]),
        default: Fallback::Value("text"),
        meaning: "How a line on stderr is written: for people, or as one JSON object",
        example: "\"json\"",
        ..ROW
    },
    Key {
        path: "telemetry.otlp_endpoint",
        kind: Kind::Url,
        default: Fallback::Nothing("nothing is sent"),
        variables: &[("telemetry.otlp_endpoint", env::OTLP_ENDPOINT)],
        flag: Some("--otlp-endpoint"),
        meaning: "Collector that traces and metrics are sent to, by OTLP over HTTP, without `/v1/traces`",
        example: "\"http://127.0.0.1:4318\"",
        ..ROW
    },
];

impl Key {
    /// The key with this path, `*` for names.
    #[must_use]
    pub fn at(path: &str) -> Option<&'static Self> {
        KEYS.iter().find(|key| key.path == path)
    }

    /// Its section and its own name: `providers.*` and `base_url`.
    #[must_use]
    pub fn split(&self) -> (&'static str, &'static str) {
        self.path.rsplit_once('.').unwrap_or(("", self.path))
    }
}
