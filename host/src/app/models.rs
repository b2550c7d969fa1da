//! The models of the host, made of its configuration before anything is started, so that a wrong one is known at once.

use std::path::Path;
use std::sync::Arc;

use ostler_protocol::ErrorCode;

use super::AppError;
use crate::agent::model::{Model, Models, Provider, Script, ScriptedModel};
use crate::config::{HostConfig, ProviderKind, ProviderSettings, env};
use crate::telemetry::chain;

/// Name of the provider that plays scripts.
const SCRIPTED: &str = "scripted";

/// The models, with the default one checked as far as that is possible without asking anybody.
pub(crate) fn models(config: &HostConfig) -> Result<Models, AppError> {
    let scripted = config.script.as_deref().map(scripted).transpose()?;
    let default = default(config, scripted.as_ref())?;
    let mut models = Models::new(Some(default.clone()));
    if let Some(scripted) = scripted {
        models = models.with(Arc::new(scripted));
    }
    for (name, settings) in &config.providers {
        let provider = Provider::new(name, settings.clone()).map_err(|error| {
            let hint = "install `ca-certificates`, or set SSL_CERT_FILE to a bundle of certificates";
            AppError::new(format!("the provider `{name}` cannot be used: {}", chain(&error)), hint)
        });
        // A machine without certificates may still use the providers that need none.
        match provider {
            Ok(provider) => models = models.with_provider(name, Arc::new(provider)),
            Err(error) if default.starts_with(&format!("{name}/")) => return Err(error),
            Err(error) => tracing::debug!(error = %error.public.message, "a provider is left out"),
        }
    }
    models
        .get(&default)
        .map_err(|error| AppError::new(error.to_string(), "name another one with --model").code(ErrorCode::NotFound))?;
    Ok(models)
}

fn scripted(path: &Path) -> Result<ScriptedModel, AppError> {
    let script = Script::read(path)
        .map_err(|error| AppError::new(chain(&error), "the format is described in docs/src/scripted-model.md"))?;
    Ok(ScriptedModel::new(script))
}

/// Name of the model of sessions that name none.
fn default(config: &HostConfig, scripted: Option<&ScriptedModel>) -> Result<String, AppError> {
    let name = match (&config.model, scripted) {
        (None, Some(scripted)) => return Ok(scripted.name().to_owned()),
        (None, None) => {
            let hint = "give --model anthropic/NAME with ANTHROPIC_API_KEY set, --model openai/NAME with OPENAI_API_KEY or \
                        OPENAI_BASE_URL set (any server that speaks chat completions), or --script FILE for a scripted one";
            return Err(AppError::new("no model was chosen", hint).code(ErrorCode::BadRequest));
        }
        (Some(name), scripted) if name.split('/').next() == Some(SCRIPTED) => {
            let script = scripted.ok_or_else(|| {
                AppError::new(
                    format!("the model `{name}` needs a script"),
                    "give the conversation to play: --script FILE",
                )
            })?;
            return Ok(script.name().to_owned());
        }
        (Some(name), _) => name,
    };
    if let Some((provider, _)) = name.split_once('/')
        && let Some(settings) = config.providers.get(provider)
    {
        needs_key(provider, settings)?;
    }
    Ok(name.clone())
}

/// The vendors' own services are never asked without a key; a server of one's own may want none.
pub(crate) fn needs_key(provider: &str, settings: &ProviderSettings) -> Result<(), AppError> {
    let (own, variable) = match settings.kind {
        ProviderKind::Anthropic => (ProviderSettings::ANTHROPIC, env::ANTHROPIC_API_KEY),
        ProviderKind::OpenAi => (ProviderSettings::OPENAI, env::OPENAI_API_KEY),
    };
    if settings.base_url != own || settings.api_key.is_some() {
        return Ok(());
    }
    let local = match settings.kind {
        ProviderKind::Anthropic => "",
        ProviderKind::OpenAi => "; for a server of your own set OPENAI_BASE_URL",
    };
    let message = format!("the provider `{provider}` has no key");
    Err(AppError::new(message, format!("set {variable}, or `api_key_file` in its section of the configuration{local}"))
        .code(ErrorCode::BadRequest))
}
