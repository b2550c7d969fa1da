//! What is refused at load, and how it is named.

use super::fixtures::*;
use crate::plugins::{CallError, PluginHost, PluginProblem, PluginSource};

fn passing() -> Vec<u8> {
    answering(On::ToolBefore, &Reply::default())
}

async fn problem(manifest: String, component: Vec<u8>) -> (PluginProblem, String) {
    let error = PluginHost::load(&[embedded(manifest, component)]).await.err().unwrap();
    let text = error.describe();
    (error.problem, text)
}

fn before(id: &str) -> String {
    manifest(id, On::ToolBefore, "validate", "")
}

#[tokio::test]
async fn a_good_plugin_is_listed_with_its_digest_and_hooks() {
    let host = PluginHost::load(&[embedded(before("a"), passing())]).await.unwrap();
    let plugins = host.plugins();
    assert_eq!(plugins.len(), 1);
    assert_eq!((plugins[0].id.as_str(), plugins[0].version.as_str()), ("a", "1"));
    assert_eq!(plugins[0].digest.len(), "sha256:".len() + 64);
    assert_eq!(plugins[0].hooks[0].hook.name(), "tool.execute.before");
    assert!(host.refused().is_empty());
}

#[tokio::test]
async fn what_is_not_a_whole_component_is_refused() {
    let whole = passing();
    let (problem, text) = problem(before("a"), whole[..whole.len() / 2].to_vec()).await;
    assert!(matches!(problem, PluginProblem::Invalid { .. }), "{text}");
    assert!(text.starts_with("plugin `a` cannot be loaded: the component is not valid: "), "{text}");

    let core = wat::parse_str("(module)").unwrap();
    let (problem, text) = self::problem(before("a"), core).await;
    assert!(matches!(problem, PluginProblem::CoreModule), "{text}");

    let (problem, text) = self::problem(before("a"), b"\x7fELF and more".to_vec()).await;
    assert!(matches!(problem, PluginProblem::NotWasm), "{text}");

    let mut oversized = whole;
    oversized.resize(32 * 1024 * 1024 + 1, 0);
    let (problem, text) = self::problem(before("a"), oversized).await;
    assert!(matches!(problem, PluginProblem::TooLarge { what: "component", .. }), "{text}");
}

#[tokio::test]
async fn an_import_that_no_gate_may_have_is_named() {
    let component = wat::parse_str(
        r#"(component
            (import "wasi:http/outgoing-handler@0.2.0" (instance))
            (import "ostler:hooks/secrets@0.1.0" (instance))
            (import "wasi:cli/environment@0.2.0" (instance)))"#,
    )
    .unwrap();
    let (problem, text) = problem(before("a"), component).await;
    let PluginProblem::Imports { names } = problem else { panic!("{text}") };
    assert_eq!(names, ["`wasi:http/outgoing-handler@0.2.0`", "`ostler:hooks/secrets@0.1.0`"]);
}

#[tokio::test]
async fn exports_and_manifest_must_name_the_same_hooks() {
    let (problem, text) = problem(manifest("a", On::PrCreate, "mutate", ""), passing()).await;
    assert!(matches!(problem, PluginProblem::NotExported { .. }), "{text}");
    assert!(text.contains("`pr.create`") && text.contains("`pr-create`"), "{text}");

    let two = format!("{}\n[[hooks]]\nname = \"tool.execute.before\"\nphase = \"mutate\"\n", before("a"));
    assert!(PluginHost::load(&[embedded(two, passing())]).await.is_ok());

    let component = wat::parse_str(
        r#"(component
            (instance $empty)
            (export "ostler:hooks/tool-execute-before@0.1.0" (instance $empty))
            (export "ostler:hooks/pr-create@0.1.0" (instance $empty)))"#,
    )
    .unwrap();
    // The interfaces are there by name; their missing functions count as not there.
    let (problem, text) = self::problem(before("a"), component).await;
    assert!(matches!(problem, PluginProblem::NotExported { .. }), "{text}");
}

#[tokio::test]
async fn a_hook_that_the_manifest_forgot_is_named() {
    let (manifest, component) = whole_with_init("i32.const 0");
    let forgetful = manifest.replace("[[hooks]]\nname = \"pr.create\"\nphase = \"validate\"\n", "");
    let (problem, text) = problem(forgetful, component).await;
    assert!(matches!(problem, PluginProblem::NotInManifest { .. }), "{text}");
    assert!(text.contains("`pr-create`") && text.contains("`pr.create`"), "{text}");
}

#[tokio::test]
async fn exports_of_a_contract_that_does_not_exist_are_refused() {
    let component = wat::parse_str(
        r#"(component
            (instance $empty)
            (export "ostler:hooks/tool-execute-before@7.0.0" (instance $empty))
            (export "ostler:hooks/coffee-break@0.1.0" (instance $empty))
            (export "someone:else/thing@0.1.0" (instance $empty)))"#,
    )
    .unwrap();
    let (problem, text) = problem(before("a"), component).await;
    let PluginProblem::UnknownExports { names } = problem else { panic!("{text}") };
    assert_eq!(names, ["`ostler:hooks/tool-execute-before@7.0.0`", "`ostler:hooks/coffee-break@0.1.0`"]);
}

#[tokio::test]
async fn a_hook_with_another_type_than_the_contract_is_refused() {
    let component = wat::parse_str(
        r#"(component
            (core module $m (func (export "f") (result i32) i32.const 1))
            (core instance $i (instantiate $m))
            (func $f (result u32) (canon lift (core func $i "f")))
            (instance $hook (export "handle" (func $f)))
            (export "ostler:hooks/tool-execute-before@0.1.0" (instance $hook)))"#,
    )
    .unwrap();
    let (problem, text) = problem(before("a"), component).await;
    assert!(matches!(problem, PluginProblem::Shape(_)), "{text}");
    assert!(text.contains("`tool.execute.before`"), "{text}");
}

#[tokio::test]
async fn a_plugin_that_only_has_a_lifecycle_handles_no_hook() {
    let core = r#"(module
        (memory (export "memory") 1)
        (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32) i32.const 4096)
        (func (export "ostler:hooks/lifecycle@0.1.0#init") (result i32) i32.const 0))"#;
    let (problem, text) = problem(before("a"), component(core, "handles-lifecycle")).await;
    assert!(matches!(problem, PluginProblem::NotExported { .. }), "{text}");
}

/// A plugin with every hook and this `init`.
fn whole_with_init(body: &str) -> (String, Vec<u8>) {
    let hooks = [On::SessionStart, On::ToolBefore, On::ToolAfter, On::PrCreate];
    let functions: String = hooks
        .iter()
        .map(|on| {
            let interface = on.interface();
            format!(r#"(func (export "ostler:hooks/{interface}@0.1.0#handle") (param i32) (result i32) i32.const 0)"#)
        })
        .collect();
    let core = format!(
        r#"(module
            (memory (export "memory") 1)
            (data (i32.const 16) "\01")
            (data (i32.const 20) "\40\00\00\00\14\00\00\00")
            (data (i32.const 64) "line 3: no such rule")
            (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32) i32.const 4096)
            (func (export "ostler:hooks/lifecycle@0.1.0#init") (result i32) {body})
            {functions})"#
    );
    let tables: String =
        hooks.iter().map(|on| format!("[[hooks]]\nname = \"{}\"\nphase = \"validate\"\n", on.name())).collect();
    (format!("id = \"a\"\nversion = \"1\"\ncontract = \"0.1\"\n{tables}"), component(&core, "all"))
}

#[tokio::test]
async fn init_decides_whether_the_plugin_can_work() {
    let (manifest, component) = whole_with_init("i32.const 0");
    assert!(PluginHost::load(&[embedded(manifest, component)]).await.is_ok());

    let (manifest, component) = whole_with_init("i32.const 16");
    let (problem, text) = problem(manifest, component).await;
    let PluginProblem::Refused { message } = problem else { panic!("{text}") };
    assert_eq!(message, "line 3: no such rule");

    let (manifest, component) = whole_with_init("unreachable");
    let (problem, text) = self::problem(manifest, component).await;
    assert!(matches!(problem, PluginProblem::Start { source: CallError::Trapped { .. } }), "{text}");
}

#[tokio::test]
async fn one_id_is_one_plugin() {
    let sources = [embedded(before("a"), passing()), embedded(before("a"), passing())];
    let error = PluginHost::load(&sources).await.err().unwrap();
    assert!(matches!(error.problem, PluginProblem::SameId));
}

#[tokio::test]
async fn a_plugin_that_is_not_required_may_be_missing_and_is_shown() {
    let optional = format!("required = false\n{}", before("a"));
    let host =
        PluginHost::load(&[embedded(optional, b"nonsense".to_vec()), embedded(before("b"), passing())]).await.unwrap();
    assert_eq!(host.plugins().iter().map(|plugin| plugin.id.as_str()).collect::<Vec<_>>(), ["b"]);
    assert_eq!(host.refused().len(), 1);
    assert_eq!(host.refused()[0].plugin, "`a`");
}

#[tokio::test]
async fn a_folder_a_manifest_and_a_module_all_name_the_same_plugin() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("plugin.toml"), before("a")).unwrap();
    let missing = PluginHost::load(&[PluginSource::Path(folder.path().to_owned())]).await.err().unwrap();
    assert!(missing.describe().contains("a.wasm"), "{}", missing.describe());

    std::fs::write(folder.path().join("a.wasm"), passing()).unwrap();
    for path in [folder.path().to_owned(), folder.path().join("plugin.toml"), folder.path().join("a.wasm")] {
        let host = PluginHost::load(&[PluginSource::Path(path)]).await.unwrap();
        assert_eq!(host.plugins()[0].id, "a");
    }

    let nowhere = PluginHost::load(&[PluginSource::Path(folder.path().join("other"))]).await.err().unwrap();
    assert!(nowhere.describe().contains("other"), "{}", nowhere.describe());
}
