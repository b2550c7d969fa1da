//! The real policy plugin, built from source for WebAssembly, with the rules that come with it.
//!
//! These tests need `OSTLER_POLICY_WASM`: the path of the built plugin, as a component or as the core module that the
//! compiler wrote. `cargo xtask test` builds it and sets the variable.

use std::path::{Path, PathBuf};

use ostler_protocol::event::Verdict;
use serde_json::json;

use super::fixtures::*;
use crate::plugins::componentize::{Kind, kind};
use crate::plugins::{PluginHost, PluginProblem, PluginSource, componentize};

/// The component of the policy plugin.
fn wasm() -> Vec<u8> {
    let path = std::env::var_os("OSTLER_POLICY_WASM").map(PathBuf::from).expect(
        "OSTLER_POLICY_WASM is not set: it names the built policy plugin; run `cargo xtask test`, which builds it, or \
         build plugins/ for wasm32-unknown-unknown and set it",
    );
    let bytes = std::fs::read(&path).unwrap_or_else(|error| panic!("cannot read {}: {error}", path.display()));
    match kind(&bytes) {
        Kind::Core => componentize(&bytes).unwrap(),
        Kind::Component | Kind::Foreign => bytes,
    }
}

fn shipped(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../plugins/policy").join(name);
    std::fs::read_to_string(path).unwrap()
}

async fn policy() -> PluginHost {
    let folder = tempfile::tempdir().unwrap();
    for name in ["plugin.toml", "rules.toml"] {
        std::fs::write(folder.path().join(name), shipped(name)).unwrap();
    }
    std::fs::write(folder.path().join("policy.wasm"), wasm()).unwrap();
    PluginHost::load(&[PluginSource::Path(folder.path().to_owned())]).await.unwrap()
}

#[tokio::test]
async fn needs_wasm_build_the_policy_denies_rewrites_and_passes() {
    let generation = policy().await.generation();
    let shell = |command: &str| tool_before("shell", json!({ "command": command }));

    let decision = generation.tool_execute_before(shell("git push --force origin main")).await;
    assert_eq!(decision.verdict, Verdict::Deny, "{:?}", decision.reasons);
    assert_eq!(
        decision.why(),
        "policy: no-force-push: History that was pushed is not rewritten here. Add a new commit and push without force."
    );

    let decision = generation.tool_execute_before(shell("git commit --no-verify -m x")).await;
    assert_eq!((decision.verdict, &decision.value), (Verdict::Rewrite, &json!({ "command": "git commit -m x" })));
    assert_eq!(decision.why(), "policy: commit-hooks-run: The hooks of the repository are not skipped.");

    let decision = generation.tool_execute_before(shell("python3 -m unittest")).await;
    assert_eq!((decision.verdict, decision.reasons.len()), (Verdict::Pass, 0), "{:?}", decision.reasons);

    let path = json!({ "path": "src/../.git/config", "content": "x" });
    let decision = generation.tool_execute_before(tool_before("write_file", path)).await;
    assert_eq!(decision.verdict, Verdict::Deny);
}

#[tokio::test]
async fn needs_wasm_build_the_policy_adds_context_and_redacts() {
    let generation = policy().await.generation();
    let decision = generation.session_start(session_start()).await;
    assert_eq!(decision.verdict, Verdict::Pass);
    assert_eq!(decision.context[0].source, "policy: house-rules");

    let token = format!("ghp_{}", "a1B2".repeat(9));
    let output = format!("{token}\nModuleNotFoundError: No module named 'x'\n");
    let decision = generation.tool_execute_after(tool_after("shell", &output)).await;
    assert_eq!(decision.verdict, Verdict::Rewrite);
    assert_eq!(decision.value, "[redacted]\nModuleNotFoundError: No module named 'x'\n");
    assert_eq!(decision.context[0].source, "policy: missing-python-module");
}

#[tokio::test]
async fn needs_wasm_build_bad_rules_refuse_the_plugin_with_their_line() {
    let source = |rules: &str| PluginSource::Embedded {
        manifest: shipped("plugin.toml"),
        component: wasm(),
        config: Some(rules.to_owned()),
    };
    let broken = "\n[[deny]]\nname = \"x\"\nmessage = \"y\"\nregex = '('\n";
    let error = PluginHost::load(&[source(broken)]).await.err().unwrap();
    let PluginProblem::Refused { message } = &error.problem else { panic!("{}", error.describe()) };
    assert!(message.starts_with("rules, line 5: `(` is not a regular expression"), "{message}");
    assert!(PluginHost::load(&[source("")]).await.is_ok());
}
