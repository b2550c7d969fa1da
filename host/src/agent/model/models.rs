//! The models of a host by name: `PROVIDER/MODEL`.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use super::{Model, Provider};

/// Models by name, and the one of sessions that name none.
#[derive(Clone, Default)]
pub struct Models {
    default: Option<String>,
    /// Models with a name of their own, such as that of a script.
    named: HashMap<String, Arc<dyn Model>>,
    /// Providers; which models they have is theirs to say.
    providers: BTreeMap<String, Arc<Provider>>,
}

/// There is no such model.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("this host has no model `{name}`: {why}")]
pub struct UnknownModel {
    name: String,
    why: String,
}

impl Models {
    /// Models with `default` for sessions that name none.
    #[must_use]
    pub fn new(default: Option<String>) -> Self {
        Self { default, ..Self::default() }
    }

    /// Adds a model under its own name.
    #[must_use]
    pub fn with(mut self, model: Arc<dyn Model>) -> Self {
        self.named.insert(model.name().to_owned(), model);
        self
    }

    /// Adds a provider with all of its models.
    #[must_use]
    pub fn with_provider(mut self, name: &str, provider: Arc<Provider>) -> Self {
        self.providers.insert(name.to_owned(), provider);
        self
    }

    /// Name of the model of sessions that name none, where one was chosen.
    #[must_use]
    pub fn default_name(&self) -> Option<&str> {
        self.default.as_deref()
    }

    /// A model by name.
    pub fn get(&self, name: &str) -> Result<Arc<dyn Model>, UnknownModel> {
        if let Some(model) = self.named.get(name) {
            return Ok(Arc::clone(model));
        }
        let unknown = |why: String| Err(UnknownModel { name: name.to_owned(), why });
        let Some((provider, model)) = name.split_once('/').filter(|(_, model)| !model.is_empty()) else {
            return unknown(format!("a model is named PROVIDER/MODEL, and there are {}", self.names()));
        };
        match self.providers.get(provider) {
            Some(provider) => Ok(Arc::new(provider.model(model))),
            None => unknown(format!("there are {}", self.names())),
        }
    }

    /// What can be asked for, in words.
    fn names(&self) -> String {
        let mut names: Vec<String> = self.named.keys().map(|name| format!("`{name}`")).collect();
        names.sort();
        names.extend(self.providers.keys().map(|provider| format!("the models of `{provider}`")));
        if names.is_empty() { "none".to_owned() } else { names.join(", ") }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{ProviderKind, ProviderSettings};

    #[test]
    fn a_model_is_found_by_its_provider_and_others_are_told_what_there_is() {
        let mut settings = ProviderSettings::new(ProviderKind::OpenAi);
        "http://127.0.0.1:9/v1".clone_into(&mut settings.base_url);
        let provider = Arc::new(Provider::new("local", settings).unwrap());
        let models = Models::new(None).with_provider("local", provider);
        assert_eq!(models.get("local/org/model:7b").unwrap().name(), "local/org/model:7b");
        let error = |name: &str| models.get(name).err().unwrap().to_string();
        assert_eq!(error("other/model"), "this host has no model `other/model`: there are the models of `local`");
        assert_eq!(
            error("local"),
            "this host has no model `local`: a model is named PROVIDER/MODEL, and there are the models of `local`"
        );
        assert_eq!(
            Models::new(None).get("a/b").err().unwrap().to_string(),
            "this host has no model `a/b`: there are none"
        );
    }
}
