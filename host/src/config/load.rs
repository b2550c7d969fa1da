//! From what was given to what holds: the one way to a configuration.
//!
//! ```text
//!  file ─┐
//!  environment ─┼─► settings with origins ─► what must fit together ─► Loaded ─► HostConfig (reads key files)
//!  flags ─┘
//! ```
//!
//! All problems are collected, so that a person repairs a file once.

use std::path::{Path, PathBuf};

use super::egress;
use super::file::{self, Contents, DEFAULT_FILE};
use super::key_path::KeyPath;
use super::keys::KeySource;
use super::problem::{ConfigError, Place, Position, Problem, list, nearest};
use super::settings::{Flag, Origin, Setting, Settings, Variables, applies};
use super::table::{BUILT_IN, SCRIPTED};
use super::{Value, env};

/// Model that a script plays when no model was chosen.
const SCRIPTED_MODEL: &str = "scripted/demo";

/// What was given.
pub struct Inputs<'a> {
    /// The file that a flag names.
    pub file: Option<PathBuf>,
    /// The file that is read when neither a flag nor the environment names one. It may be absent.
    pub default_file: PathBuf,
    /// Whether root's places are meant, and not a user's own.
    pub is_root: bool,
    /// The environment.
    pub variables: Variables<'a>,
    /// The flags.
    pub flags: Vec<Flag>,
    /// The current folder.
    pub folder: PathBuf,
}

/// A configuration that holds together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Loaded {
    /// The file that was read, if there is one.
    pub file: Option<PathBuf>,
    /// Every value with its origin.
    pub settings: Settings,
    /// Where the key of each provider that is asked over HTTP comes from.
    pub(super) keys: Vec<(String, KeySource)>,
}

impl<'a> Inputs<'a> {
    /// What the default file and this environment say, without flags.
    #[must_use]
    pub fn new(variables: Variables<'a>, folder: PathBuf) -> Self {
        let is_root = rustix::process::geteuid().is_root();
        Self { file: None, default_file: DEFAULT_FILE.into(), is_root, variables, flags: Vec::new(), folder }
    }

    /// Reads the file and lays everything over it.
    ///
    /// # Errors
    /// When the file cannot be read, or with everything that is wrong in it and in the environment. Files with keys
    /// are not read yet.
    pub fn load(self) -> Result<Loaded, ConfigError> {
        let chosen = (self.variables)(env::CONFIG).filter(|value| !value.is_empty()).map(PathBuf::from);
        let named = self.file.clone().or(chosen).map(|path| self.folder.join(path));
        let own_file = self.own_folder(env::XDG_CONFIG_HOME, ".config").map(|folder| folder.join("config.toml"));
        let default_file = own_file.filter(|path| path.exists()).unwrap_or_else(|| self.default_file.clone());
        let found = file::open(named.as_deref(), &default_file)?;
        let contents = match &found {
            Some((path, text)) => file::parse(path, text),
            None => Contents::default(),
        };
        let path = found.map(|(path, _)| path);
        let mut problems = contents.problems.clone();
        if contents.unreadable {
            // What follows would be judged without what the file says, and told to be missing.
            ConfigError::of(std::mem::take(&mut problems))?;
        }
        let mut settings = Settings::layer(&contents, self.variables, &self.flags, &self.folder, &mut problems);
        choose_model(&mut settings);
        choose_data(&mut settings, self.own_folder(env::XDG_DATA_HOME, ".local/share"));
        let judge = Judge { file: path.as_deref(), contents: &contents, settings: &settings };
        judge.all(&mut problems);
        let keys = KeySource::find_all(&settings, self.variables, &mut problems)?;
        ConfigError::of(problems)?;
        Ok(Loaded { file: path, settings, keys })
    }

    /// An ordinary user's own folder `ostler`, by the XDG base directory specification: in the folder that the variable names,
    /// or below the home.
    fn own_folder(&self, variable: &str, below_home: &str) -> Option<PathBuf> {
        if self.is_root {
            return None;
        }
        let absolute = |name: &str| (self.variables)(name).map(PathBuf::from).filter(|path| path.is_absolute());
        let folder = absolute(variable).or_else(|| Some(absolute(env::HOME)?.join(below_home)));
        folder.map(|folder| folder.join("ostler"))
    }
}

impl Loaded {
    /// The file that holds the key of a provider, where one does.
    #[must_use]
    pub fn key_file(&self, provider: &str) -> Option<&Path> {
        match self.key(provider)? {
            KeySource::File(path) => Some(path),
            _ => None,
        }
    }

    /// Where the key of a provider comes from, in words; never the key.
    #[must_use]
    pub fn key_source(&self, provider: &str) -> String {
        self.key(provider).map(KeySource::to_string).unwrap_or_default()
    }

    fn key(&self, provider: &str) -> Option<&KeySource> {
        self.keys.iter().find(|(name, _)| name == provider).map(|(_, source)| source)
    }
}

/// A script without a chosen model is meant to be played.
fn choose_model(settings: &mut Settings) {
    let script = settings.find("providers.*.script", &[SCRIPTED]).is_some_and(|setting| setting.value.is_some());
    if let (true, Some(model)) = (script, settings.find_mut("agent.model", &[]))
        && model.value.is_none()
    {
        model.value = Some(Value::Text(SCRIPTED_MODEL.to_owned()));
    }
}

/// An ordinary user's state lies in a folder of the user's own, where nothing else was said.
fn choose_data(settings: &mut Settings, own: Option<PathBuf>) {
    if let (Some(own), Some(data)) = (own, settings.find_mut("host.data", &[]))
        && data.origin == Origin::Default
    {
        data.value = own.into_os_string().into_string().ok().map(Value::Text);
    }
}

/// What must fit together.
struct Judge<'a> {
    file: Option<&'a Path>,
    contents: &'a Contents,
    settings: &'a Settings,
}

impl Judge<'_> {
    fn all(&self, problems: &mut Vec<Problem>) {
        for (path, position) in &self.contents.named {
            if let (Some(name), None) = (path.provider(), path.model()) {
                problems.extend(self.provider(name, *position));
            }
        }
        for entry in &self.contents.entries {
            if let Some(name) = entry.path.provider().filter(|name| !applies(entry.key, name)) {
                let other = if name == SCRIPTED { "it plays a script" } else { "only `scripted` plays a script" };
                let message = format!("`{}` has no meaning: {other}", entry.path);
                problems.push(self.problem(entry.position, message, None));
            }
        }
        for entry in &self.contents.entries {
            if entry.key.path == "egress.hosts.*.addresses"
                && let Some(host) = entry.path.egress_host()
                && egress::misplaced_addresses(host, &entry.value)
            {
                let message =
                    format!("`{}`: `{host}` stands for many hosts, which cannot have one address", entry.path);
                let hint = "give each host with addresses a section of its own".to_owned();
                problems.push(self.problem(entry.position, message, Some(hint)));
            }
        }
        problems.extend(self.model());
    }

    /// A provider of one's own must say what it speaks and where it is; a built-in one cannot become another.
    fn provider(&self, name: &str, position: Position) -> Vec<Problem> {
        let said = |key| self.settings.find(key, &[name]).and_then(|setting| Some((setting, setting.value.as_ref()?)));
        // What was given and is wrong was told already.
        let refused = |key: &str| self.contents.refused.contains(&KeyPath::fill("providers.*.*", &[name, key]));
        let mut found = Vec::new();
        let mut missing = |key: &str, hint: &str| {
            if !refused(key) {
                let message = format!("the provider `{name}` has no `{key}`");
                found.push(self.problem(position, message, Some(hint.to_owned())));
            }
        };
        let kind = said("providers.*.kind");
        if kind.is_none() {
            missing("kind", "add `kind = \"openai\"` for a server that speaks chat completions, or `\"anthropic\"`");
        }
        let plays = |text: &Value| matches!(text, Value::Text(kind) if kind == SCRIPTED);
        let own = !BUILT_IN.contains(&name);
        if own && said("providers.*.base_url").is_none() && !kind.is_some_and(|(_, kind)| plays(kind)) {
            missing("base_url", "add where it is, such as `base_url = \"http://127.0.0.1:8000/v1\"`");
        }
        if let Some((Setting { origin: Origin::File(at), .. }, Value::Text(kind))) = kind {
            let message = format!("`providers.{name}.kind`: the provider `{name}` cannot be of the kind `{kind}`");
            if BUILT_IN.contains(&name) && kind != name {
                let hint = "give the provider another name; what the built-in ones speak is fixed";
                found.push(self.problem(*at, message, Some(hint.to_owned())));
            } else if kind == SCRIPTED && name != SCRIPTED {
                let hint = "the one that plays a script is `[providers.scripted]`";
                found.push(self.problem(*at, message, Some(hint.to_owned())));
            }
        }
        found
    }

    /// The default model must be one of a provider that there is.
    fn model(&self) -> Option<Problem> {
        let setting = self.settings.find("agent.model", &[])?;
        let Some(Value::Text(model)) = &setting.value else { return None };
        let (name, _) = model.split_once('/')?;
        let providers = self.settings.providers();
        if providers.contains(&name) {
            return None;
        }
        let message = format!("`{model}` is a model of the provider `{name}`, which is not configured");
        let mut hint = match nearest(name, &providers) {
            Some(near) => format!("did you mean `{near}`? "),
            None => String::new(),
        };
        hint.push_str(&format!("the providers are {}; add one as `[providers.{name}]`", list(&providers)));
        let place = match setting.origin {
            Origin::File(position) => {
                return Some(self.problem(position, format!("`agent.model`: {message}"), Some(hint)));
            }
            Origin::Variable(name) => Place::Variable(name.to_owned()),
            Origin::Flag(name) => Place::Flag(name),
            Origin::Default => Place::Default,
        };
        Some(Problem { place, message, hint: Some(hint) })
    }

    fn problem(&self, position: Position, message: String, hint: Option<String>) -> Problem {
        let place = self.file.map_or(Place::Default, |path| Place::File(path.to_owned(), position));
        Problem { place, message, hint }
    }
}
