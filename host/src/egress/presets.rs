//! Lists of hosts by name: what well-known package managers and forges need.
//!
//! A preset holds the hosts that the project's own documentation or default configuration names, nothing that only some
//! packages fetch while they are installed. A mirror of one's own is a host like any other: it stands in `egress.allow`.

use super::policy::Rule;

/// A list of hosts.
#[derive(Clone, Copy, Debug)]
pub struct Preset {
    /// Its name.
    pub name: &'static str,
    /// What it is for.
    pub meaning: &'static str,
    /// Its hosts, as in `egress.allow`.
    pub hosts: &'static [&'static str],
}

/// Every preset.
pub const PRESETS: &[Preset] = &[
    Preset {
        name: "apt",
        meaning: "packages of Debian and Ubuntu",
        hosts: &[
            "deb.debian.org",
            "security.debian.org",
            "archive.ubuntu.com",
            "security.ubuntu.com",
            "ports.ubuntu.com",
        ],
    },
    Preset { name: "pip", meaning: "packages of Python", hosts: &["pypi.org", "files.pythonhosted.org"] },
    Preset {
        name: "npm",
        meaning: "packages of Node, also by Yarn",
        hosts: &["registry.npmjs.org", "registry.yarnpkg.com"],
    },
    Preset {
        name: "cargo",
        meaning: "crates, and toolchains by rustup",
        hosts: &["crates.io", "index.crates.io", "static.crates.io", "static.rust-lang.org"],
    },
    Preset {
        name: "git-hosts",
        meaning: "repositories and archives on GitHub, GitLab, Codeberg and Bitbucket; whoever has an account there can \
                  receive what a sandbox sends",
        hosts: &[
            "github.com",
            "api.github.com",
            "codeload.github.com",
            "objects.githubusercontent.com",
            "raw.githubusercontent.com",
            "release-assets.githubusercontent.com",
            "media.githubusercontent.com",
            "github-cloud.githubusercontent.com",
            "gitlab.com",
            "codeberg.org",
            "bitbucket.org",
        ],
    },
];

impl Preset {
    /// The preset with this name.
    #[must_use]
    pub fn named(name: &str) -> Option<&'static Self> {
        PRESETS.iter().find(|preset| preset.name == name)
    }

    /// Its rules.
    #[must_use]
    pub fn rules(&self) -> Vec<Rule> {
        let origin = format!("preset {}", self.name);
        self.hosts.iter().filter_map(|host| host.parse().ok()).map(|host| Rule::new(host, origin.clone())).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_generated_page_of_presets_is_current() {
        let mut page = String::from(
            "# Presets of egress\n\n<!-- Made of `host/src/egress/presets.rs`; a test tells how to write it again. -->\n\nLists of hosts for \
             `egress.presets`, each on the ports 80 and 443. They hold what the projects themselves name, nothing that only some packages \
             fetch while they are installed. [How rules work](../egress.md).\n",
        );
        for Preset { name, meaning, hosts } in PRESETS {
            let hosts: Vec<String> = hosts.iter().map(|host| format!("- `{host}`\n")).collect();
            page.push_str(&format!("\n## `{name}`\n\nFor {meaning}.\n\n{}", hosts.concat()));
        }
        crate::pages::assert_current("reference/egress-presets.md", &page);
    }

    #[test]
    fn every_host_of_a_preset_becomes_a_rule_and_stands_there_once() {
        for preset in PRESETS {
            assert_eq!(preset.rules().len(), preset.hosts.len(), "{}", preset.name);
            let mut hosts = preset.hosts.to_vec();
            hosts.sort_unstable();
            hosts.dedup();
            assert_eq!(hosts.len(), preset.hosts.len(), "{}", preset.name);
        }
    }
}
