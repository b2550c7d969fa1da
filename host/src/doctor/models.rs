//! Can models be asked? Providers are asked for their list of models, which costs nothing.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::context::{Chosen, Looker, Network};
use super::finding::{Check, Finding};
use crate::agent::model::{ModelError, Provider};
use crate::app::AppError;
use crate::config::{ProviderSettings, nearest};
use crate::telemetry::chain;

/// Time that a provider may take for one answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// Name of the provider that plays scripts.
const SCRIPTED: &str = "scripted";

/// Whether sessions that name no model need the provider.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Role {
    Default,
    Another,
}

/// Where a key comes from, or why there is none.
enum Key {
    Set(String),
    /// The provider is one of one's own, which may want none.
    NotWanted,
    Missing {
        message: String,
        hint: String,
    },
    Unreadable {
        message: String,
        hint: Option<String>,
    },
}

/// What a provider said, with its clock and ours at that moment.
pub(super) struct Answer {
    pub(super) provider: String,
    pub(super) clock: Option<(SystemTime, SystemTime)>,
}

/// The checks, and the clocks of those that answered.
pub(super) async fn examine(chosen: &Chosen, network: Network, looker: Looker) -> (Vec<Check>, Vec<Answer>) {
    let default = crate::app::models(&chosen.host);
    let name = match &default {
        Ok(models) => models.default_name().map(str::to_owned),
        Err(_) => chosen.host.model.clone(),
    };
    let missing_key = missing_key_of(chosen, name.as_deref());
    let mut checks = vec![default_finding(&default.map(|_| name.clone()), missing_key).of("models.default")];
    let (mut askable, mut secure) = (Vec::new(), false);
    for (provider, settings) in &chosen.host.providers {
        let role = match name.as_deref().and_then(|name| name.split_once('/')) {
            Some((default, _)) if default == provider => Role::Default,
            _ => Role::Another,
        };
        let key = key(chosen, provider, settings);
        let usable = matches!(key, Key::Set(_) | Key::NotWanted);
        checks.push(key_finding(&key, role, looker).about("models.key", provider));
        if usable {
            secure |= settings.base_url.starts_with("https:");
            askable.push((provider.clone(), settings.clone(), role));
        }
    }
    checks.push(
        certificates(secure.then(|| crate::http::trusting().build().map(drop).map_err(|error| chain(&error))))
            .of("models.certificates"),
    );
    if network == Network::Offline {
        let skipped = Finding::skipped("not asked: --offline");
        checks.extend(askable.iter().map(|(name, ..)| skipped.clone().about("models.reachable", name)));
        return (checks, Vec::new());
    }
    let asked = askable.into_iter().map(|(provider, settings, role)| ask(provider, settings, role, name.clone()));
    let mut answers = Vec::new();
    for (found, answer) in futures::future::join_all(asked).await {
        checks.extend(found);
        answers.push(answer);
    }
    (checks, answers)
}

/// Whether the default model fails for want of a file with its key that this user may not read.
fn missing_key_of(chosen: &Chosen, model: Option<&str>) -> bool {
    let provider = model.and_then(|model| model.split_once('/')).map(|(provider, _)| provider);
    let has_file = provider.is_some_and(|provider| chosen.loaded.key_file(provider).is_some());
    has_file && !chosen.key_problems.is_empty()
}

async fn ask(
    provider: String,
    settings: ProviderSettings,
    role: Role,
    default: Option<String>,
) -> (Vec<Check>, Answer) {
    let settings = ProviderSettings { idle_timeout: settings.idle_timeout.min(PATIENCE), ..settings };
    let asked = match Provider::new(&provider, settings) {
        Ok(asked) => Arc::new(asked),
        Err(error) => {
            let found = reachable(&provider, &Err(error), role).about("models.reachable", &provider);
            return (vec![found], Answer { provider, clock: None });
        }
    };
    let (models, clock) = tokio::join!(asked.models(), asked.clock());
    let mut checks =
        vec![reachable(&provider, &models.as_ref().map(Vec::len), role).about("models.reachable", &provider)];
    if let (Ok(models), Role::Default, Some(name)) = (&models, role, default) {
        let model = name.split_once('/').map_or(name.as_str(), |(_, model)| model);
        checks.push(listed(model, models).about("models.name", &name));
    }
    (checks, Answer { provider, clock: clock.map(|theirs| (theirs, SystemTime::now())) })
}

fn key(chosen: &Chosen, provider: &str, settings: &ProviderSettings) -> Key {
    if let Some(file) = chosen.loaded.key_file(provider).filter(|_| settings.api_key.is_none()) {
        let file = file.display().to_string();
        if let Some(problem) = chosen.key_problems.iter().find(|problem| problem.message.contains(&file)) {
            return Key::Unreadable { message: problem.message.clone(), hint: problem.hint.clone() };
        }
    }
    match crate::app::needs_key(provider, settings) {
        Err(error) => Key::Missing { message: error.public.message, hint: error.public.hint.unwrap_or_default() },
        Ok(()) if settings.api_key.is_none() => Key::NotWanted,
        Ok(()) => Key::Set(chosen.loaded.key_source(provider)),
    }
}

fn default_finding(model: &Result<Option<String>, AppError>, hidden_key: bool) -> Finding {
    match model {
        Ok(Some(name)) if name.starts_with(SCRIPTED) => Finding::ok(format!("`{name}`, which plays a script")),
        Ok(Some(name)) => Finding::ok(format!("`{name}`")),
        Ok(None) => Finding::skipped("none"),
        Err(_) if hidden_key => Finding::skipped("its key cannot be read, see below"),
        Err(error) => Finding::failed(
            chain(error),
            error.public.hint.clone().unwrap_or_else(|| "name another one with `--model`".to_owned()),
        ),
    }
}

fn key_finding(key: &Key, role: Role, looker: Looker) -> Finding {
    match (key, role) {
        (Key::Set(source), _) => Finding::ok(source),
        (Key::NotWanted, _) => Finding::ok("none; a server of one's own may want none"),
        (Key::Missing { message, hint }, Role::Default) => Finding::failed(message, hint),
        (Key::Missing { .. }, Role::Another) => Finding::skipped("no key is set: it is not used"),
        (Key::Unreadable { message, .. }, _) if looker == Looker::Another && message.contains("denied") => {
            Finding::skipped(message)
        }
        (Key::Unreadable { message, hint }, _) => {
            Finding::failed(message, hint.as_deref().unwrap_or("name another file, or set the key's variable"))
        }
    }
}

/// `None` where nobody is asked over `https`.
fn certificates(built: Option<Result<(), String>>) -> Finding {
    match built {
        None => Finding::ok("not needed: no provider over `https` can be asked"),
        Some(Ok(())) => Finding::ok("there"),
        Some(Err(error)) => {
            Finding::failed(error, "apt-get install ca-certificates, or set SSL_CERT_FILE to a bundle of certificates")
        }
    }
}

/// A provider that is not the default's is no reason to call a host unwell.
fn reachable(provider: &str, models: &Result<usize, impl std::borrow::Borrow<ModelError>>, role: Role) -> Finding {
    let error = match models {
        Ok(1) => return Finding::ok("it answers, with 1 model"),
        Ok(count) => return Finding::ok(format!("it answers, with {count} models")),
        Err(error) => error.borrow(),
    };
    let section = format!("[providers.{provider}]");
    let (found, fix) = match error {
        ModelError::Key { status, message, advice, .. } => {
            (format!("it refused the key ({status}): {message}"), advice.clone())
        }
        ModelError::NotAnApi { address, found } => (
            format!("{address} answered {found}, not as a model's API does"),
            format!("correct `base_url` in the section {section}; that of chat completions usually ends with /v1"),
        ),
        ModelError::RateLimited { .. } | ModelError::Unavailable { .. } => {
            return Finding::warning(chain(error), "wait and try again; the provider's status page may say more");
        }
        ModelError::NoCredit { .. } => (chain(error), "pay the provider, or choose another `--model`".to_owned()),
        _ => {
            (chain(error), format!("check the network, that the server runs, and `base_url` in the section {section}"))
        }
    };
    match role {
        Role::Default => Finding::failed(found, fix),
        Role::Another => Finding::warning(found, fix),
    }
}

fn listed(model: &str, models: &[String]) -> Finding {
    let names: Vec<&str> = models.iter().map(String::as_str).collect();
    if names.contains(&model) {
        return Finding::ok("it is in the provider's list");
    }
    let fix = match nearest(model, &names) {
        Some(near) => format!("did you mean `{near}`? Set it with `--model`, or `model` in the section [agent]"),
        None => "choose one of the list with `--model`, or `model` in the section [agent]".to_owned(),
    };
    Finding::warning(format!("the provider's list has no `{model}`; some list only a part of what they have"), fix)
}

#[cfg(test)]
pub(super) fn examples() -> Vec<Check> {
    let app = |message: &str, hint: &str| Err(AppError::new(message, hint));
    let mut all: Vec<Check> = [
        (Ok(Some("openai/gpt-5".to_owned())), false),
        (Ok(Some("scripted/demo".to_owned())), false),
        (app("no model was chosen", "give --model anthropic/NAME with ANTHROPIC_API_KEY set"), false),
        (app("the provider `anthropic` has no key", "set ANTHROPIC_API_KEY"), true),
    ]
    .iter()
    .map(|(model, hidden)| default_finding(model, *hidden).of("models.default"))
    .collect();
    let missing =
        || Key::Missing { message: "the provider `anthropic` has no key".into(), hint: "set ANTHROPIC_API_KEY".into() };
    let exposed = "others than its owner may read the key file /etc/ostler/key (mode 0644)";
    let denied = "could not read the key file /etc/ostler/key: Permission denied (os error 13)";
    let unreadable =
        |message: &str, hint: Option<&str>| Key::Unreadable { message: message.into(), hint: hint.map(Into::into) };
    for (key, role, looker) in [
        (Key::Set("set, from the environment variable ANTHROPIC_API_KEY".into()), Role::Default, Looker::Root),
        (Key::NotWanted, Role::Default, Looker::Root),
        (missing(), Role::Default, Looker::Root),
        (missing(), Role::Another, Looker::Root),
        (unreadable(exposed, Some("chmod 600 /etc/ostler/key")), Role::Default, Looker::Root),
        (unreadable(denied, None), Role::Default, Looker::Another),
    ] {
        all.push(key_finding(&key, role, looker).about("models.key", "anthropic"));
    }
    let none = Err("builder error: No CA certificates were loaded from the system".to_owned());
    all.extend([None, Some(Ok(())), Some(none)].map(|built| certificates(built).of("models.certificates")));
    let provider = || "openai".to_owned();
    let page =
        || ModelError::NotAnApi { address: "http://127.0.0.1:1/models".into(), found: "a web page (404)".into() };
    let errors = [
        (page(), Role::Default),
        (page(), Role::Another),
        (
            ModelError::Key {
                provider: provider(),
                status: 401,
                message: "Incorrect API key provided".into(),
                advice: "check OPENAI_API_KEY, and start the host again".into(),
            },
            Role::Default,
        ),
        (
            ModelError::RateLimited {
                provider: provider(),
                status: 429,
                message: "Slow down".into(),
                retry_after: None,
            },
            Role::Default,
        ),
        (ModelError::NoCredit { provider: provider(), status: 402, message: "No credit".into() }, Role::Default),
        (ModelError::Silent { provider: provider(), seconds: 5.0, while_doing: "" }, Role::Default),
    ];
    for count in [1, 12] {
        all.push(reachable("openai", &Ok::<_, ModelError>(count), Role::Default).about("models.reachable", "openai"));
    }
    for (error, role) in errors {
        all.push(reachable("openai", &Err(error), role).about("models.reachable", "openai"));
    }
    let models = ["gpt-5".to_owned(), "gpt-5-mini".to_owned()];
    for model in ["gpt-5", "gtp-5", "something"] {
        all.push(listed(model, &models).about("models.name", format!("openai/{model}")));
    }
    all
}
