//! Every environment variable that Ostler reads of its own accord, in one table.
//!
//! Owns their names and what they mean; the reference page is made of it. Who reads a variable takes its name from
//! here. An empty variable counts as one that is not set.

/// A variable and what it means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Variable {
    /// Its name.
    pub name: &'static str,
    /// What it means, in Markdown.
    pub meaning: &'static str,
    /// Who reads it.
    pub reader: Reader,
}

/// Who reads a variable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reader {
    /// What reads the configuration: `ostler up`, `ostler images`, `ostler config`, `ostler doctor`.
    Configuration,
    /// The commands that find and ask a host.
    Client,
    /// Every command.
    Everything,
    /// Tests of a debug build; the installed program does not read it.
    Tests,
}

macro_rules! variables {
    ($($(#[doc = $text:literal])+ $name:ident = ($value:expr, $reader:ident),)*) => {
        $($(#[doc = $text])+ pub const $name: &str = $value;)*

        /// Every variable, in the order of the reference page.
        pub const ALL: &[Variable] =
            &[$(Variable { name: $name, meaning: concat!($($text),+), reader: Reader::$reader },)*];
    };
}

variables! {
    /// File of the configuration, where it is not `/etc/ostler/config.toml`.
    CONFIG = ("OSTLER_CONFIG", Configuration),
    /// Folder of the host's state.
    DATA = ("OSTLER_DATA", Configuration),
    /// Address of the API.
    LISTEN = ("OSTLER_LISTEN", Configuration),
    /// Model of sessions that name none.
    MODEL = ("OSTLER_MODEL", Configuration),
    /// What is logged, in the words of `tracing_subscriber`.
    LOG = ("OSTLER_LOG", Configuration),
    /// Collector that traces and metrics are sent to, by OTLP over HTTP; OpenTelemetry's own name.
    OTLP_ENDPOINT = ("OTEL_EXPORTER_OTLP_ENDPOINT", Configuration),
    /// Key of the provider `anthropic`.
    ANTHROPIC_API_KEY = ("ANTHROPIC_API_KEY", Configuration),
    /// Address of the provider `anthropic`, where it is not the vendor's.
    ANTHROPIC_BASE_URL = ("ANTHROPIC_BASE_URL", Configuration),
    /// Key of the provider `openai`.
    OPENAI_API_KEY = ("OPENAI_API_KEY", Configuration),
    /// Address of the provider `openai`, where it is not the vendor's: any server that speaks chat completions.
    OPENAI_BASE_URL = ("OPENAI_BASE_URL", Configuration),
    /// Address of the host, for the command line.
    URL = ("OSTLER_URL", Client),
    /// API token, for the command line.
    TOKEN = ("OSTLER_TOKEN", Client),
    /// Folder in which a running host says where it is, and in which the command line looks for it.
    RUNTIME_DIR = ("OSTLER_RUNTIME_DIR", Everything),
    /// Where a service manager wants to be told that the host is ready and that it ends, by sd_notify(3).
    NOTIFY_SOCKET = ("NOTIFY_SOCKET", Configuration),
    /// The user's own runtime folder, by the XDG base directory specification; its folder `ostler` is where a user's
    /// own host says where it is.
    XDG_RUNTIME_DIR = ("XDG_RUNTIME_DIR", Client),
    /// Where a user's data lies, by the same specification, if not in `~/.local/share`: its folder `ostler` is the data folder of
    /// a host that no root started.
    XDG_DATA_HOME = ("XDG_DATA_HOME", Everything),
    /// Where a user's configuration lies, by the same specification, if not in `~/.config`: `ostler/config.toml` in it counts
    /// before the machine's.
    XDG_CONFIG_HOME = ("XDG_CONFIG_HOME", Everything),
    /// The user's home.
    HOME = ("HOME", Everything),
    /// No colour, by <https://no-color.org>.
    NO_COLOR = ("NO_COLOR", Everything),
    /// What the terminal can do; `dumb` means no colour.
    TERM = ("TERM", Everything),
    /// The point at which a test build ends itself; the installed program does not read it.
    FAULT_POINT = (ostler_sandbox::fault::VARIABLE, Tests),
    /// A program that a test build runs as PID 1 of every sandbox; the installed program does not read it.
    TEST_GUEST = ("OSTLER_TEST_GUEST", Tests),
}
