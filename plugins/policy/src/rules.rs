//! The rules file: its shape, and what is wrong with it, by line.
//!
//! ```toml
//! [[deny]]
//! name = "no-force-push"
//! tool = "shell"                        # a name or a list of names, `*` stands for anything; default: every tool
//! argument = "command"                  # default: any text anywhere in the arguments
//! regex = 'git push .*--force'          # or glob = "secrets/**"; without both every call of the tool is meant
//! message = "Push without --force."
//!
//! [[rewrite]]
//! name = "quiet-pip"
//! tool = "shell"
//! argument = "command"
//! regex = '\bpip install\b'
//! replace = '$0 --no-input'             # $1, $name and $0 stand for what was matched
//!
//! [[redact]]
//! name = "aws-keys"
//! regex = 'AKIA[0-9A-Z]{16}'
//! replace = "[redacted]"
//!
//! [[context]]
//! name = "house-rules"
//! at = "session.start"                  # or "tool.execute.after", then also tool and regex (on the output)
//! text = "Tests run with `make test`."
//! ```
//!
//! Regular expressions are those of the `regex-lite` crate: linear time, no look-around, ASCII classes.

use std::fmt;

use regex_lite::Regex;
use serde::Deserialize;
use toml::Spanned;

/// Something wrong in the rules file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RulesError {
    /// Line, from 1, where it is known.
    line: Option<usize>,
    message: String,
}

impl fmt::Display for RulesError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            Some(line) => write!(f, "rules, line {line}: {}", self.message),
            None => write!(f, "rules: {}", self.message),
        }
    }
}

impl std::error::Error for RulesError {}

/// All rules, in the order of the file.
#[derive(Debug)]
pub(crate) struct Rules {
    text: String,
    pub(crate) deny: Vec<Deny>,
    pub(crate) rewrite: Vec<Rewrite>,
    pub(crate) redact: Vec<Redact>,
    pub(crate) context: Vec<Context>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawRules {
    #[serde(default)]
    deny: Vec<Spanned<Deny>>,
    #[serde(default)]
    rewrite: Vec<Spanned<Rewrite>>,
    #[serde(default)]
    redact: Vec<Spanned<Redact>>,
    #[serde(default)]
    context: Vec<Spanned<Context>>,
}

/// A call that must not happen.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Deny {
    pub(crate) name: String,
    #[serde(default)]
    pub(crate) tool: Names,
    pub(crate) argument: Option<String>,
    pub(crate) regex: Option<Pattern>,
    pub(crate) glob: Option<String>,
    pub(crate) message: String,
}

/// A change of a text argument.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Rewrite {
    pub(crate) name: String,
    #[serde(default)]
    pub(crate) tool: Names,
    pub(crate) argument: String,
    pub(crate) regex: Pattern,
    pub(crate) replace: String,
    pub(crate) message: Option<String>,
}

/// A change of the output of tools.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Redact {
    pub(crate) name: String,
    #[serde(default)]
    pub(crate) tool: Names,
    pub(crate) regex: Pattern,
    pub(crate) replace: String,
}

/// Something that the model shall know.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Context {
    pub(crate) name: String,
    pub(crate) at: Moment,
    pub(crate) tool: Option<Names>,
    pub(crate) regex: Option<Pattern>,
    pub(crate) text: String,
}

/// When context is added.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub(crate) enum Moment {
    #[serde(rename = "session.start")]
    SessionStart,
    #[serde(rename = "tool.execute.after")]
    ToolExecuteAfter,
}

/// Names of tools, in which `*` stands for anything.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
pub(crate) enum Names {
    One(String),
    Many(Vec<String>),
}

impl Default for Names {
    fn default() -> Self {
        Self::One("*".to_owned())
    }
}

impl Names {
    /// The names as they are written.
    pub(crate) fn all(&self) -> &[String] {
        match self {
            Self::One(name) => std::slice::from_ref(name),
            Self::Many(names) => names,
        }
    }
}

/// A regular expression that is compiled when it is needed: an instance sees one call, and few rules are about it.
#[derive(Debug, Deserialize)]
#[serde(transparent)]
pub(crate) struct Pattern(Spanned<String>);

impl Pattern {
    /// The compiled expression.
    ///
    /// # Errors
    /// It is not one, with its line.
    pub(crate) fn compile(&self, rules: &Rules) -> Result<Regex, RulesError> {
        Regex::new(self.0.get_ref()).map_err(|error| RulesError {
            line: Some(line_of(&rules.text, self.0.span().start)),
            message: format!("`{}` is not a regular expression: {error}", self.0.get_ref()),
        })
    }
}

impl Rules {
    /// Reads a rules file. Patterns are compiled later: see [`Rules::check_patterns`].
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub(crate) fn parse(text: &str) -> Result<Self, RulesError> {
        let raw: RawRules = toml::from_str(text).map_err(|error| RulesError {
            line: error.span().map(|span| line_of(text, span.start)),
            message: error.message().trim_end().replace('\n', ": "),
        })?;
        let at = |start: usize| move |message: String| RulesError { line: Some(line_of(text, start)), message };
        let mut names = std::collections::BTreeSet::new();
        let mut name = |name: &str, start: usize| {
            let plain = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
            if name.is_empty() || !name.chars().all(plain) {
                return Err(at(start)(format!("the name `{name}` is not made of letters, digits, `-` and `_`")));
            }
            if names.insert(name.to_owned()) { Ok(()) } else { Err(at(start)(format!("the name `{name}` is taken"))) }
        };
        for rule in &raw.deny {
            let (start, rule) = (rule.span().start, rule.get_ref());
            name(&rule.name, start)?;
            check_deny(rule).map_err(at(start))?;
        }
        for rule in &raw.rewrite {
            name(&rule.get_ref().name, rule.span().start)?;
        }
        for rule in &raw.redact {
            name(&rule.get_ref().name, rule.span().start)?;
        }
        for rule in &raw.context {
            let (start, rule) = (rule.span().start, rule.get_ref());
            name(&rule.name, start)?;
            check_context(rule).map_err(at(start))?;
        }
        Ok(Self {
            text: text.to_owned(),
            deny: raw.deny.into_iter().map(Spanned::into_inner).collect(),
            rewrite: raw.rewrite.into_iter().map(Spanned::into_inner).collect(),
            redact: raw.redact.into_iter().map(Spanned::into_inner).collect(),
            context: raw.context.into_iter().map(Spanned::into_inner).collect(),
        })
    }

    /// Compiles every pattern once.
    ///
    /// # Errors
    /// The first pattern that is not a regular expression.
    pub(crate) fn check_patterns(&self) -> Result<(), RulesError> {
        let deny = self.deny.iter().filter_map(|rule| rule.regex.as_ref());
        let rewrite = self.rewrite.iter().map(|rule| &rule.regex);
        let redact = self.redact.iter().map(|rule| &rule.regex);
        let context = self.context.iter().filter_map(|rule| rule.regex.as_ref());
        deny.chain(rewrite).chain(redact).chain(context).try_for_each(|pattern| pattern.compile(self).map(drop))
    }
}

fn check_deny(rule: &Deny) -> Result<(), String> {
    match (&rule.regex, &rule.glob) {
        (Some(_), Some(_)) => Err(format!("`{}` has both `regex` and `glob`; keep one", rule.name)),
        (None, None) if rule.argument.is_some() => {
            Err(format!("`{}` names an argument but has neither `regex` nor `glob` for it", rule.name))
        }
        (Some(_) | None, None) | (None, Some(_)) => Ok(()),
    }
}

fn check_context(rule: &Context) -> Result<(), String> {
    let about_a_tool = rule.tool.is_some() || rule.regex.is_some();
    if rule.at == Moment::SessionStart && about_a_tool {
        return Err(format!(
            "`{}` is about the start of a session, where there is no `tool` and no output for `regex`",
            rule.name
        ));
    }
    Ok(())
}

fn line_of(text: &str, offset: usize) -> usize {
    text.bytes().take(offset).filter(|byte| *byte == b'\n').count() + 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rules_that_come_with_the_plugin_are_good() {
        let rules = Rules::parse(include_str!("../rules.toml")).unwrap();
        rules.check_patterns().unwrap();
        assert!(!rules.deny.is_empty() && !rules.rewrite.is_empty() && !rules.context.is_empty());
    }

    #[test]
    fn no_rules_are_good_rules() {
        assert!(Rules::parse("").unwrap().check_patterns().is_ok());
    }

    #[test]
    fn a_bad_file_is_refused_with_line_and_reason() {
        let deny = "# a comment\n[[deny]]\nname = \"a\"\nmessage = \"no\"\n";
        let cases = [
            ("[[deny]\n".to_owned(), "rules, line 1: "),
            ("\n\n[[forbid]]\nname = \"a\"\n".to_owned(), "rules, line 3: unknown field `forbid`"),
            (format!("{deny}colour = 1\n"), "rules, line 5: unknown field `colour`"),
            (format!("{deny}tool = 7\n"), "rules, line 5: "),
            ("[[deny]]\nname = \"a\"\n".to_owned(), "rules, line 1: missing field `message`"),
            (format!("{deny}regex = '('\n"), "rules, line 5: `(` is not a regular expression"),
            (format!("{deny}regex = 'a'\nglob = 'b'\n"), "rules, line 2: `a` has both"),
            (format!("{deny}argument = \"path\"\n"), "rules, line 2: `a` names an argument but has neither"),
            (format!("{deny}{deny}"), "rules, line 6: the name `a` is taken"),
            (
                "[[context]]\nname = \"b\"\nat = \"session.start\"\ntext = \"x\"\nregex = 'x'\n".to_owned(),
                "rules, line 1: `b` is about the start of a session",
            ),
            (
                "[[context]]\nname = \"b\"\nat = \"noon\"\ntext = \"x\"\n".to_owned(),
                "rules, line 3: unknown variant `noon`",
            ),
        ];
        for (text, expected) in cases {
            let error = Rules::parse(&text).and_then(|rules| rules.check_patterns()).unwrap_err().to_string();
            assert!(error.starts_with(expected), "expected `{expected}`, got `{error}` for:\n{text}");
        }
    }
}
