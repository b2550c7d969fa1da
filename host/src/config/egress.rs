//! The rules of egress, made of the keys of `egress`: one record, so that a table of environments can hold several of it.

use super::load::Loaded;
use super::problem::ConfigError;
use super::{ByteSize, Value};
use crate::egress::{Budget, HostPattern, Policy, Preset, Rule};

impl Loaded {
    /// What may leave a sandbox.
    pub(super) fn egress(&self) -> Result<Policy, ConfigError> {
        let settings = &self.settings;
        let bytes = |key| Ok::<_, ConfigError>(settings.get::<ByteSize>(key, &[])?.map(|size| size.0));
        let budget = Budget {
            up: bytes("egress.bytes_up")?,
            down: bytes("egress.bytes_down")?,
            total: bytes("egress.bytes_total")?,
        };
        let mut rules = Vec::new();
        for host in settings.egress_hosts() {
            rules.push(self.host_rule(host)?);
        }
        let allowed: Vec<HostPattern> = self.list("egress.allow", &[])?;
        rules.extend(allowed.into_iter().map(|host| Rule::new(host.clone(), format!("egress.allow {host}"))));
        let presets: Vec<String> = settings.must("egress.presets", &[])?;
        rules.extend(presets.iter().filter_map(|name| Preset::named(name)).flat_map(Preset::rules));
        Ok(Policy { rules, budget })
    }

    fn host_rule(&self, host: &str) -> Result<Rule, ConfigError> {
        let names = &[host];
        let pattern: HostPattern = host.parse().map_err(|_| ConfigError::Table { key: "egress.hosts.*.ports" })?;
        Ok(Rule {
            origin: format!("egress.hosts.\"{pattern}\""),
            host: pattern,
            ports: self.list("egress.hosts.*.ports", names)?,
            tcp_ports: self.list("egress.hosts.*.tcp_ports", names)?,
            methods: self.list("egress.hosts.*.methods", names)?,
            paths: self.list("egress.hosts.*.paths", names)?,
            private: self.list("egress.hosts.*.private", names)?,
            addresses: self.list("egress.hosts.*.addresses", names)?,
        })
    }

    /// A list whose members its kind has judged.
    fn list<T: std::str::FromStr>(&self, key: &'static str, names: &[&str]) -> Result<Vec<T>, ConfigError> {
        let texts: Vec<String> = self.settings.must(key, names)?;
        texts.iter().map(|text| text.parse().map_err(|_| ConfigError::Table { key })).collect()
    }
}

/// Whether a section of a host is about no single one and yet names addresses.
pub(super) fn misplaced_addresses(host: &str, addresses: &Value) -> bool {
    let many = matches!(host.parse(), Ok(HostPattern::Below(_)));
    many && matches!(addresses, Value::List(addresses) if !addresses.is_empty())
}
