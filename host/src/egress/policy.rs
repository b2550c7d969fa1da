//! The rules of an environment, and what they say of one wish.

use std::net::IpAddr;

use ipnet::IpNet;

use super::name::{Host, HostPattern};

/// Ports of a rule that names none.
const DEFAULT_PORTS: [u16; 2] = [80, 443];

/// Methods that a rule may name: the usual ones, without CONNECT, which is a tunnel and decided as such.
pub const METHODS: &[&str] = &["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"];

/// What may leave the sandboxes of one environment. The default allows nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Policy {
    /// The rules; one that allows is enough.
    pub rules: Vec<Rule>,
    /// How much may pass.
    pub budget: Budget,
}

/// Most bytes of one session; none means no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Budget {
    /// From the sandbox to the outside.
    pub up: Option<u64>,
    /// From the outside to the sandbox.
    pub down: Option<u64>,
    /// Both together.
    pub total: Option<u64>,
}

/// Some hosts, and what is allowed with them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// Where the rule stands, in the words of the configuration, such as `preset cargo`.
    pub origin: String,
    /// Which hosts.
    pub host: HostPattern,
    /// Ports for TLS and plain HTTP; 80 and 443 where there are none.
    pub ports: Vec<u16>,
    /// Ports on which any protocol may be spoken.
    pub tcp_ports: Vec<u16>,
    /// Methods of plain HTTP; all where there are none.
    pub methods: Vec<String>,
    /// Beginnings of paths of plain HTTP, whole segments; all where there are none.
    pub paths: Vec<String>,
    /// Ranges beside the public ones into which these hosts may resolve.
    pub private: Vec<IpNet>,
    /// Addresses of the host, in the place of what DNS says; it is asked where there are none.
    pub addresses: Vec<IpAddr>,
}

/// What a sandbox wants of a host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted<'a> {
    /// A connection with TLS, whose content nobody sees.
    Tls,
    /// A request of plain HTTP.
    Http {
        /// Its method.
        method: &'a str,
        /// Its path, without the query.
        path: &'a str,
        /// A header by which some servers take another method or path than these.
        overriding: Option<&'a str>,
    },
    /// A connection of any protocol.
    Tcp,
}

/// What allowed something.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Allowed {
    /// The rule, in the words of the configuration.
    pub rule: String,
    /// Ranges beside the public ones into which the host may resolve: of all rules about it.
    pub private: Vec<IpNet>,
    /// Addresses of the host, in the place of what DNS says; it is asked where there are none.
    pub addresses: Vec<IpAddr>,
}

/// Why nothing allowed it: of the rules about the host, the one that came closest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, thiserror::Error)]
pub enum Refusal {
    /// No rule is about the host.
    #[error("no rule allows this host")]
    Host,
    /// No rule about the host has the port.
    #[error("no rule for this host has this port")]
    Port,
    /// What is inside of TLS cannot be seen.
    #[error("the rule for this host is about methods or paths, which cannot be seen within TLS")]
    Tls,
    /// No rule with the port has the method.
    #[error("no rule for this host has this method")]
    Method,
    /// No rule with port and method has the path.
    #[error("no rule for this host has this path")]
    Path,
    /// The rule with method and path would hold for others, too.
    #[error("the rule for this host is about methods or paths, and a header may mean others")]
    Override,
}

impl Policy {
    /// Whether any rule is about a host: whether its name may be looked up.
    #[must_use]
    pub fn knows(&self, host: &Host) -> bool {
        self.rules.iter().any(|rule| rule.host.matches(host))
    }

    /// Whether any rule has a port: where none has, nobody need look at what a connection to it says.
    #[must_use]
    pub fn has_port(&self, port: u16) -> bool {
        self.rules.iter().any(|rule| rule.ports().contains(&port) || rule.tcp_ports.contains(&port))
    }

    /// Whether anything at all may be spoken with a host on a port.
    ///
    /// # Errors
    /// Why not.
    pub fn may_speak(&self, host: &Host, port: u16) -> Result<(), Refusal> {
        let mut about = self.rules.iter().filter(|rule| rule.host.matches(host)).peekable();
        about.peek().ok_or(Refusal::Host)?;
        let open = about.any(|rule| rule.ports().contains(&port) || rule.tcp_ports.contains(&port));
        if open { Ok(()) } else { Err(Refusal::Port) }
    }

    /// Decides.
    ///
    /// # Errors
    /// Why it is refused.
    pub fn decide(&self, host: &Host, port: u16, wanted: Wanted<'_>) -> Result<Allowed, Refusal> {
        let about = || self.rules.iter().filter(|rule| rule.host.matches(host));
        let mut closest = Refusal::Host;
        for rule in about() {
            match rule.judge(port, wanted) {
                Ok(()) => {
                    return Ok(Allowed {
                        rule: rule.origin.clone(),
                        private: about().flat_map(|rule| rule.private.iter().copied()).collect(),
                        addresses: about().flat_map(|rule| rule.addresses.iter().copied()).collect(),
                    });
                }
                Err(refusal) => closest = closest.max(refusal),
            }
        }
        Err(closest)
    }
}

impl Rule {
    /// A rule that allows TLS and plain HTTP with a host on the usual ports.
    #[must_use]
    pub fn new(host: HostPattern, origin: impl Into<String>) -> Self {
        Self {
            origin: origin.into(),
            host,
            ports: Vec::new(),
            tcp_ports: Vec::new(),
            methods: Vec::new(),
            paths: Vec::new(),
            private: Vec::new(),
            addresses: Vec::new(),
        }
    }

    fn ports(&self) -> &[u16] {
        if self.ports.is_empty() { &DEFAULT_PORTS } else { &self.ports }
    }

    fn judge(&self, port: u16, wanted: Wanted<'_>) -> Result<(), Refusal> {
        if self.tcp_ports.contains(&port) {
            return Ok(());
        }
        let among = |list: &[String], fits: &dyn Fn(&str) -> bool| list.is_empty() || list.iter().any(|one| fits(one));
        match wanted {
            _ if !self.ports().contains(&port) => Err(Refusal::Port),
            Wanted::Tcp => Err(Refusal::Port),
            Wanted::Tls if !self.is_narrow() => Ok(()),
            Wanted::Tls => Err(Refusal::Tls),
            Wanted::Http { method, .. } if !among(&self.methods, &|own| own == method) => Err(Refusal::Method),
            Wanted::Http { path, .. } if !among(&self.paths, &|own| is_within(path, own)) => Err(Refusal::Path),
            Wanted::Http { overriding: Some(_), .. } if self.is_narrow() => Err(Refusal::Override),
            Wanted::Http { .. } => Ok(()),
        }
    }

    /// Whether it is about some methods or paths only.
    fn is_narrow(&self) -> bool {
        !self.methods.is_empty() || !self.paths.is_empty()
    }
}

/// Whether a text can be the beginning of a path.
#[must_use]
pub fn is_path_prefix(text: &str) -> bool {
    let usual = |byte: u8| byte.is_ascii_alphanumeric() || b"/-._~!$&'()+,;=:@%".contains(&byte);
    text.starts_with('/') && text.len() <= 1024 && text.bytes().all(usual) && is_plain(text)
}

/// Whether a path is below a prefix, counted in whole segments. A path that a server may read as another one is not.
fn is_within(path: &str, prefix: &str) -> bool {
    let prefix = prefix.trim_end_matches('/');
    let below = path.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
    below && is_plain(path)
}

/// Whether every server sees the same segments: no `.` and `..`, no empty ones, nothing of the kind in disguise.
fn is_plain(path: &str) -> bool {
    let lower = path.to_ascii_lowercase();
    let disguised = ["%2e", "%2f", "%5c", "%25", "%00", "\\", "//"].iter().any(|part| lower.contains(part));
    // `;` begins a parameter of a segment, which some servers cut off before they look for `..`.
    let name = |segment: &str| segment.split(';').next().is_some_and(|name| matches!(name, "." | ".."));
    !disguised && !lower.split('/').any(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    type Change = fn(&mut Rule);

    fn policy(rules: &[(&str, Change)]) -> Policy {
        let rule = |(host, change): &(&str, Change)| {
            let mut rule = Rule::new(host.parse().unwrap(), format!("rule {host}"));
            change(&mut rule);
            rule
        };
        Policy { rules: rules.iter().map(rule).collect(), budget: Budget::default() }
    }

    fn decide(policy: &Policy, host: &str, port: u16, wanted: Wanted<'_>) -> Result<String, Refusal> {
        policy.decide(&host.parse().unwrap(), port, wanted).map(|allowed| allowed.rule)
    }

    const GET: Wanted<'_> = Wanted::Http { method: "GET", path: "/", overriding: None };

    #[test]
    fn no_rule_means_that_nothing_is_allowed() {
        for wanted in [Wanted::Tls, GET, Wanted::Tcp] {
            assert_eq!(decide(&Policy::default(), "example.org", 443, wanted), Err(Refusal::Host));
        }
        assert!(!Policy::default().knows(&"example.org".parse().unwrap()));
        assert!(!Policy::default().has_port(443));
    }

    #[test]
    fn a_rule_allows_its_host_on_its_ports() {
        let policy = policy(&[
            ("example.org", |_| {}),
            ("*.example.net", |rule| rule.ports = vec![8443]),
            ("git.example", |rule| rule.tcp_ports = vec![22]),
            ("203.0.113.9", |_| {}),
        ]);
        let table = [
            ("example.org", 443, Wanted::Tls, Ok("rule example.org")),
            ("EXAMPLE.org.", 80, GET, Ok("rule example.org")),
            ("example.org", 80, Wanted::Tls, Ok("rule example.org")),
            ("example.org", 8443, Wanted::Tls, Err(Refusal::Port)),
            ("example.org", 443, Wanted::Tcp, Err(Refusal::Port)),
            ("www.example.org", 443, Wanted::Tls, Err(Refusal::Host)),
            ("a.example.net", 8443, Wanted::Tls, Ok("rule *.example.net")),
            ("a.example.net", 443, Wanted::Tls, Err(Refusal::Port)),
            ("git.example", 22, Wanted::Tcp, Ok("rule git.example")),
            ("git.example", 22, Wanted::Tls, Ok("rule git.example")),
            ("git.example", 443, Wanted::Tls, Ok("rule git.example")),
            ("203.0.113.9", 443, Wanted::Tls, Ok("rule 203.0.113.9")),
            ("203.0.113.10", 443, Wanted::Tls, Err(Refusal::Host)),
        ];
        for (host, port, wanted, expected) in table {
            let expected = expected.map(str::to_owned);
            assert_eq!(decide(&policy, host, port, wanted), expected, "{host}:{port} {wanted:?}");
        }
    }

    #[test]
    fn methods_and_paths_are_for_plain_http_and_close_tls() {
        let policy = policy(&[("mirror.example", |rule| {
            rule.methods = vec!["GET".into(), "HEAD".into()];
            rule.paths = vec!["/debian".into(), "/pool/".into()];
        })]);
        assert_eq!(decide(&policy, "mirror.example", 443, Wanted::Tls), Err(Refusal::Tls));
        let table = [
            ("GET", "/debian", true),
            ("HEAD", "/debian/dists/a%20b", true),
            ("GET", "/pool", true),
            ("GET", "/pool/x", true),
            ("POST", "/debian/", false),
            ("get", "/debian/", false),
            ("GET", "/", false),
            ("GET", "/debian-security/", false),
            ("GET", "/debian/../etc", false),
            ("GET", "/debian/..", false),
            ("GET", "/debian/%2E%2e/etc", false),
            ("GET", "/debian/..%2fetc", false),
            ("GET", "/debian/..;a=b/etc", false),
            ("GET", "/debian/%252e%252e/etc", false),
            ("GET", "/debian//etc", false),
            ("GET", "/debian\\..\\etc", false),
            ("GET", "*", false),
        ];
        for (method, path, expected) in table {
            let got = decide(&policy, "mirror.example", 80, Wanted::Http { method, path, overriding: None });
            assert_eq!(got.is_ok(), expected, "{method} {path}: {got:?}");
        }
    }

    #[test]
    fn ranges_are_those_of_every_rule_about_the_host_and_of_no_other() {
        let policy = policy(&[
            ("mirror.example", |_| {}),
            ("mirror.example", |rule| rule.private = vec!["10.0.0.0/8".parse().unwrap()]),
            ("other.example", |rule| rule.private = vec!["192.168.0.0/16".parse().unwrap()]),
        ]);
        let allowed = policy.decide(&"mirror.example".parse().unwrap(), 443, Wanted::Tls).unwrap();
        assert_eq!(allowed.private, ["10.0.0.0/8".parse::<IpNet>().unwrap()]);
    }

    #[test]
    fn a_refusal_is_that_of_the_rule_that_came_closest() {
        let policy = policy(&[
            ("a.example", |rule| rule.ports = vec![81]),
            ("a.example", |rule| rule.methods = vec!["GET".into()]),
        ]);
        let post = Wanted::Http { method: "POST", path: "/", overriding: None };
        assert_eq!(decide(&policy, "a.example", 80, post), Err(Refusal::Method));
        let disguised = Wanted::Http { method: "GET", path: "/", overriding: Some("x-http-method") };
        assert_eq!(decide(&policy, "a.example", 80, disguised), Err(Refusal::Override));
        assert_eq!(policy.may_speak(&"a.example".parse().unwrap(), 22), Err(Refusal::Port));
        assert_eq!(policy.may_speak(&"a.example".parse().unwrap(), 81), Ok(()));
        assert_eq!(policy.may_speak(&"b.example".parse().unwrap(), 80), Err(Refusal::Host));
    }

    #[test]
    fn a_header_that_may_mean_another_method_is_one_more_wish_that_any_rule_may_allow() {
        let narrow: Change = |rule| rule.methods = vec!["GET".into()];
        let wide: Change = |_| {};
        for rules in [[("a.example", narrow), ("a.example", wide)], [("a.example", wide), ("a.example", narrow)]] {
            let wanted = Wanted::Http { method: "GET", path: "/", overriding: Some("x-http-method") };
            assert!(decide(&policy(&rules), "a.example", 80, wanted).is_ok());
        }
    }
}
