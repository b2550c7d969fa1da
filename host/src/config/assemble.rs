//! From settings to what the host runs with: one field for each row of the table.

use std::collections::BTreeMap;
use std::path::PathBuf;

use super::keys;
use super::load::Loaded;
use super::problem::{ConfigError, Problem};
use super::table::SCRIPTED;
use super::{
    HostConfig, LogFormat, LogSettings, ModelSettings, ProviderKind, ProviderSettings, SandboxLimits, TimeSpan,
};

impl Loaded {
    /// Folder of the host's state.
    ///
    /// # Errors
    /// Never with the table as it is.
    pub fn data(&self) -> Result<PathBuf, ConfigError> {
        self.settings.must("host.data", &[])
    }

    /// What `ostler up` runs with. `runtime` is the folder in which the host says where it is.
    ///
    /// # Errors
    /// When a file with a key cannot be used; all of them are told.
    pub fn host(&self, runtime: PathBuf) -> Result<HostConfig, ConfigError> {
        let (host, problems) = self.host_without_keys(runtime)?;
        ConfigError::of(problems)?;
        Ok(host)
    }

    /// The same with what is wrong with files of keys told beside it: their providers have no key.
    ///
    /// # Errors
    /// Never with the table as it is.
    pub fn host_without_keys(&self, runtime: PathBuf) -> Result<(HostConfig, Vec<Problem>), ConfigError> {
        let settings = &self.settings;
        let mut problems = Vec::new();
        let host = HostConfig {
            data: self.data()?,
            runtime,
            listen: settings.must("host.listen", &[])?,
            allowed_hosts: settings.must("host.allowed_hosts", &[])?,
            allowed_origins: settings.must("host.allowed_origins", &[])?,
            model: settings.get("agent.model", &[])?,
            script: settings.get("providers.*.script", &[SCRIPTED])?,
            providers: self.providers(&mut problems)?,
            image: settings.must("sandbox.image", &[])?,
            plugins: settings.must("plugins.paths", &[])?,
            limits: SandboxLimits {
                memory: settings.must("sandbox.memory", &[])?,
                pids: settings.must("sandbox.pids", &[])?,
                cpus: settings.must("sandbox.cpus", &[])?,
                cpu_weight: settings.must("sandbox.cpu_weight", &[])?,
                io_weight: settings.must("sandbox.io_weight", &[])?,
                disk: settings.must("sandbox.disk", &[])?,
                files: settings.must("sandbox.files", &[])?,
            },
            egress: self.egress()?,
            certificates: settings.get("egress.certificates", &[])?,
            log: self.log()?,
            otlp_endpoint: settings.get("telemetry.otlp_endpoint", &[])?,
        };
        Ok((host, problems))
    }

    fn log(&self) -> Result<LogSettings, ConfigError> {
        let format: String = self.settings.must("log.format", &[])?;
        let format = if format == "json" { LogFormat::Json } else { LogFormat::Text };
        Ok(LogSettings { filter: self.settings.must("log.filter", &[])?, format })
    }

    fn providers(&self, problems: &mut Vec<Problem>) -> Result<BTreeMap<String, ProviderSettings>, ConfigError> {
        let settings = &self.settings;
        let mut providers = BTreeMap::new();
        for (name, source) in &self.keys {
            let names = &[name.as_str()];
            let kind: String = settings.must("providers.*.kind", names)?;
            let kind = if kind == "anthropic" { ProviderKind::Anthropic } else { ProviderKind::OpenAi };
            let place = keys::place(settings, self.file.as_deref(), name);
            let api_key = source.read(place).unwrap_or_else(|problem| {
                problems.push(problem);
                None
            });
            let provider = ProviderSettings {
                kind,
                base_url: settings.must("providers.*.base_url", names)?,
                api_key,
                models: self.models(name)?,
                max_attempts: settings.must("providers.*.max_attempts", names)?,
                idle_timeout: settings.must::<TimeSpan>("providers.*.idle_timeout", names)?.0,
                answer_timeout: settings.must::<TimeSpan>("providers.*.answer_timeout", names)?.0,
            };
            providers.insert(name.clone(), provider);
        }
        Ok(providers)
    }

    fn models(&self, provider: &str) -> Result<BTreeMap<String, ModelSettings>, ConfigError> {
        let models = self.settings.models(provider).into_iter().map(|model| {
            let names = &[provider, model];
            let known = ModelSettings {
                context_tokens: self.settings.get("providers.*.models.*.context_tokens", names)?,
                max_output_tokens: self.settings.get("providers.*.models.*.max_output_tokens", names)?,
            };
            Ok((model.to_owned(), known))
        });
        models.collect()
    }
}
