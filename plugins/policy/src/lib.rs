//! The policy plugin: rules in TOML that deny tool calls, rewrite their arguments, redact output and add context.
//!
//! `rules` reads and checks the file, `matching` compares, `decide` applies; here they are joined to the hooks. Denials are
//! decided in the validate phase, about the arguments that really take effect after every plugin's rewrites.
//!
//! What this can and cannot do: a pattern over a command is a rule for a cooperative agent, not a wall. It sees the text of
//! the command and nothing else, so `sh -c "$(base64 -d …)"`, a variable, a script that was written a moment before or another
//! program that does the same thing all pass it. The wall is the sandbox and its one door.

mod decide;
mod matching;
mod rules;

use ostler_plugin_sdk::{HookError, Phase, lifecycle, plugin, session_start, tool_execute_after, tool_execute_before};

use rules::Rules;

struct Policy;

fn rules() -> Result<Rules, HookError> {
    Rules::parse(&ostler_plugin_sdk::config()).map_err(|error| HookError::new(error.to_string()))
}

impl lifecycle::Handler for Policy {
    fn init() -> Result<(), String> {
        Rules::parse(&ostler_plugin_sdk::config())
            .and_then(|rules| rules.check_patterns())
            .map_err(|error| error.to_string())
    }
}

impl session_start::Handler for Policy {
    fn handle(event: session_start::Event) -> Result<session_start::Outcome, HookError> {
        match event.phase {
            Phase::Mutate => Ok(decide::session_start(&rules()?)),
            Phase::Validate | Phase::Other(_) => Ok(session_start::Outcome::pass()),
        }
    }
}

impl tool_execute_before::Handler for Policy {
    fn handle(event: tool_execute_before::Event) -> Result<tool_execute_before::Outcome, HookError> {
        match event.phase {
            Phase::Mutate => decide::rewrite(&rules()?, &event),
            Phase::Validate => decide::deny(&rules()?, &event),
            Phase::Other(_) => Ok(tool_execute_before::Outcome::pass()),
        }
    }
}

impl tool_execute_after::Handler for Policy {
    fn handle(event: tool_execute_after::Event) -> Result<tool_execute_after::Outcome, HookError> {
        match event.phase {
            Phase::Mutate => decide::after(&rules()?, &event),
            Phase::Validate | Phase::Other(_) => Ok(tool_execute_after::Outcome::pass()),
        }
    }
}

plugin!(Policy handles lifecycle, session_start, tool_execute_before, tool_execute_after);
