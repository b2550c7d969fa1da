//! The tools over hands that are a map in memory.

use std::collections::BTreeMap;
use std::sync::Mutex;

use super::*;

/// How a command ends that is stopped.
const STOPPED: i32 = 143;

/// Characters of a command line that are kept.
const LABEL: usize = 24;

#[derive(Default)]
struct Memory {
    files: Mutex<BTreeMap<String, String>>,
    ran: Mutex<Vec<Command>>,
    started: Mutex<BTreeMap<String, BackgroundView>>,
}

impl Memory {
    fn with(path: &str, content: &str) -> Self {
        let memory = Self::default();
        memory.files.lock().unwrap().insert(path.into(), content.into());
        memory
    }

    fn content(&self, path: &str) -> Option<String> {
        self.files.lock().unwrap().get(path).cloned()
    }
}

#[async_trait]
impl Hands for Memory {
    async fn run(&self, command: Command) -> Result<ToolOutput, HandsError> {
        self.ran.lock().unwrap().push(command);
        Ok(ToolOutput { exit_status: Some(1), ..ToolOutput::done("") })
    }

    async fn start(&self, name: &str, command: &str) -> Result<bool, HandsError> {
        let mut started = self.started.lock().unwrap();
        if started.get(name).is_some_and(|found| found.exit_status != Some(STOPPED)) {
            return Ok(false);
        }
        let exit_status = command.starts_with("exit").then_some(3);
        let kept = command.chars().take(LABEL).collect();
        started.insert(
            name.to_owned(),
            BackgroundView { name: name.to_owned(), command: kept, exit_status, service: None },
        );
        Ok(true)
    }

    async fn background(&self) -> Result<Vec<BackgroundView>, HandsError> {
        Ok(self.started.lock().unwrap().values().cloned().collect())
    }

    async fn background_output(
        &self,
        name: &str,
        offset: Option<u64>,
        max: u32,
    ) -> Result<BackgroundOutput, HandsError> {
        if !self.started.lock().unwrap().contains_key(name) {
            return Err(HandsError::Refused(format!("no call {name}")));
        }
        // One that wrote 100 bytes, of which the last 50 are kept.
        let offset = offset.unwrap_or(100_u64.saturating_sub(max.into())).max(50);
        Ok(BackgroundOutput { offset, bytes: vec![b'x'; 100 - offset as usize], written: 100, exit_status: None })
    }

    async fn stop(&self, name: &str) -> Result<Option<i32>, HandsError> {
        let mut started = self.started.lock().unwrap();
        let found = started.get_mut(name).ok_or_else(|| HandsError::Refused(format!("no call {name}")))?;
        Ok(Some(*found.exit_status.get_or_insert(STOPPED)))
    }

    async fn restart(&self, name: &str) -> Result<String, HandsError> {
        Err(HandsError::Refused(format!("the repository declares no service `{name}`")))
    }

    async fn read(&self, path: &str, _max: u64) -> Result<FileContent, HandsError> {
        let content = self.content(path).ok_or_else(|| HandsError::Refused(format!("{path} does not exist")))?;
        Ok(FileContent { size: content.len() as u64, bytes: content.into_bytes() })
    }

    async fn write(&self, path: &str, content: &[u8]) -> Result<(), HandsError> {
        self.files.lock().unwrap().insert(path.into(), String::from_utf8(content.to_vec()).unwrap());
        Ok(())
    }

    async fn list(&self, path: &str) -> Result<(Vec<String>, bool), HandsError> {
        if path.contains("..") {
            return Err(HandsError::Gone(Lost { why: "the link broke".into(), cut_off: Some(CutOff::BrokeProtocol) }));
        }
        Ok((self.files.lock().unwrap().keys().cloned().collect(), false))
    }
}

async fn call(memory: &Memory, tool: &str, value: Value) -> (ToolOutcome, String) {
    let output = run(memory, CallId::generate(), tool, &value).await;
    (output.outcome, String::from_utf8(output.bytes).unwrap())
}

#[tokio::test]
async fn an_edit_needs_exactly_one_occurrence_and_changes_nothing_otherwise() {
    let memory = Memory::with("a.py", "x = 1\ny = 1\n");
    for (old, words) in [("z", "does not occur"), ("1", "occurs 2 times"), ("", "is empty")] {
        let (outcome, text) = call(&memory, "edit_file", json!({ "path": "a.py", "old": old, "new": "2" })).await;
        assert_eq!(outcome, ToolOutcome::Failed);
        assert!(text.contains(words), "{text}");
        assert_eq!(memory.content("a.py").unwrap(), "x = 1\ny = 1\n");
    }
    let (outcome, text) = call(&memory, "edit_file", json!({ "path": "a.py", "old": "y = 1", "new": "y = 2" })).await;
    assert_eq!((outcome, text.as_str()), (ToolOutcome::Done, "edited a.py at line 2"));
    assert_eq!(memory.content("a.py").unwrap(), "x = 1\ny = 2\n");
}

#[tokio::test]
async fn a_file_is_read_with_numbers_and_in_parts() {
    let memory = Memory::with("a", "one\ntwo\nthree\n");
    let (_, text) = call(&memory, "read_file", json!({ "path": "a", "offset": 2, "limit": 1 })).await;
    assert_eq!(text, "     2\ttwo\n(lines 2 to 2 of 3; read on with offset 3)\n");
    let (outcome, text) = call(&memory, "read_file", json!({ "path": "a", "offset": 9 })).await;
    assert_eq!(outcome, ToolOutcome::Failed);
    assert!(text.contains("has 3 lines"), "{text}");
}

#[tokio::test]
async fn wrong_arguments_and_unknown_tools_are_explained_to_the_model() {
    let memory = Memory::default();
    for (tool, value, words) in [
        ("teleport", json!({}), "there are: shell, shell_output, shell_stop, service_restart, read_file"),
        ("shell", json!({ "cmd": "ls" }), "unknown field `cmd`"),
        ("shell", json!({ "command": "  " }), "is empty"),
        ("shell", json!({ "command": "ls", "timeout_ms": 0 }), "must be 1 to"),
        ("shell", json!({ "command": "ls", "name": "x" }), "add `background: true`"),
        ("shell", json!({ "command": "ls", "background": true, "timeout_ms": 5 }), "leave `timeout_ms` out"),
        ("shell", json!({ "command": "ls", "background": true, "name": "a/b" }), "lowercase letters"),
        ("shell_output", json!({ "name": "nobody" }), "no call nobody"),
        ("shell_stop", json!({}), "missing field `name`"),
        ("read_file", json!({ "path": 7 }), "expected a string"),
        ("read_file", json!({ "path": "nope" }), "does not exist"),
    ] {
        let (outcome, text) = call(&memory, tool, value).await;
        assert_eq!(outcome, ToolOutcome::Failed);
        assert!(text.contains(words), "{text}");
    }
    assert!(memory.ran.lock().unwrap().is_empty());
}

#[tokio::test]
async fn a_lost_sandbox_makes_the_outcome_unknown_not_failed() {
    let output = run(&Memory::default(), CallId::generate(), "list_files", &json!({ "path": ".." })).await;
    let lost = Lost { why: "the link broke".into(), cut_off: Some(CutOff::BrokeProtocol) };
    assert_eq!((output.outcome, output.lost), (ToolOutcome::Unknown, Some(lost)));
    let text = String::from_utf8(output.bytes).unwrap();
    assert!(text.contains("not known"), "{text}");
    // What was only refused leaves the sandbox as it is.
    let refused = run(&Memory::default(), CallId::generate(), "read_file", &json!({ "path": "nope" })).await;
    assert_eq!(refused.lost, None);
}

#[tokio::test]
async fn a_search_without_a_hit_says_so() {
    let memory = Memory::default();
    let (outcome, text) = call(&memory, "search", json!({ "pattern": "-x" })).await;
    assert_eq!((outcome, text.as_str()), (ToolOutcome::Done, "nothing found"));
    let ran = memory.ran.lock().unwrap();
    assert_eq!(&ran[0].argv[5..], ["-e", "-x", "--", "."], "a pattern can never be taken for an option");
}

#[tokio::test]
async fn a_command_in_the_background_is_started_once_shown_and_ended() {
    let memory = Memory::default();
    let start = json!({ "command": "npm start", "background": true, "name": "web" });
    let (outcome, text) = call(&memory, "shell", start.clone()).await;
    assert_eq!(outcome, ToolOutcome::Done);
    assert!(text.contains("`web`") && text.contains("shell_output"), "{text}");
    let other = json!({ "command": "npm test", "background": true, "name": "web" });
    let (outcome, text) = call(&memory, "shell", other.clone()).await;
    assert_eq!(outcome, ToolOutcome::Failed);
    assert_eq!(text, "a background command named `web` is there already; choose another name");
    let (_, text) = call(&memory, "shell_output", json!({})).await;
    assert_eq!(text, "web  running  npm start\n");
    let (_, text) = call(&memory, "shell_output", json!({ "name": "web", "offset": 40 })).await;
    assert_eq!(
        text,
        format!("(running; bytes 50 to 100 of 100; what came before is not kept any more)\n{}", "x".repeat(50))
    );
    let (_, text) = call(&memory, "shell_stop", json!({ "name": "web" })).await;
    assert_eq!(text, "`web` has ended with status 143");
    let (_, text) = call(&memory, "shell_output", json!({})).await;
    assert_eq!(text, "web  ended (143)  npm start\n");
    // Its name is free for the next one.
    let (outcome, _) = call(&memory, "shell", other).await;
    assert_eq!(outcome, ToolOutcome::Done);
    let (_, text) = call(&memory, "shell_output", json!({})).await;
    assert_eq!(text, "web  running  npm test\n");
}

#[tokio::test]
async fn a_start_that_is_repeated_after_a_crash_starts_nothing_twice() {
    let memory = Memory::default();
    let id = CallId::generate();
    for start in [
        json!({ "command": "npm start", "background": true }),
        json!({ "command": "npm start -- --port 3000 --verbose", "background": true, "name": "web" }),
    ] {
        let first = run(&memory, id, "shell", &start).await;
        assert_eq!(first.outcome, ToolOutcome::Done);
        assert_eq!(run(&memory, id, "shell", &start).await, first);
    }
    assert_eq!(memory.started.lock().unwrap().len(), 2);
    // One that has ended may be another one, so who has the name is told.
    let short = json!({ "command": "exit 3", "background": true, "name": "short" });
    assert_eq!(run(&memory, id, "shell", &short).await.outcome, ToolOutcome::Done);
    let (outcome, text) = call(&memory, "shell", short).await;
    assert_eq!(outcome, ToolOutcome::Failed);
    assert!(text.contains("is there already and has ended with status 3"), "{text}");
}
