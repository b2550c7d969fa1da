//! Blocks of code that say so are run, page by page, in order, against a real host.
//!
//! A comment before the block says what it is; a reader sees none of it:
//!
//! | Comment | The block |
//! |---|---|
//! | `run` | must succeed |
//! | `run in the background` | goes on, as in another terminal, and is ready when it has printed what the next block shows |
//! | `prints` | is what the block before it prints, with `…` for what differs each time |

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use ostler_book::Fence;
use regex::Regex;

use super::root;
use super::terminal::Terminal;

/// Pages with blocks that are run.
const PAGES: [&str; 4] =
    ["README.md", "docs/src/operations/backup.md", "docs/src/own-repository.md", "docs/src/quick-start.md"];

/// What to do with a block.
#[derive(Clone, Debug)]
struct Step {
    line: usize,
    text: String,
    background: bool,
    prints: Option<Regex>,
}

/// Everything of a page that is to be run.
fn steps(fences: &[Fence]) -> Result<Vec<Step>> {
    let mut steps: Vec<Step> = Vec::new();
    let mut before: Option<&str> = None;
    for fence in fences {
        let at = || format!("the block in line {}", fence.line);
        match fence.mark.as_deref() {
            Some("run" | "run in the background") => {
                ensure!(fence.info == "sh", "{} is no `sh`", at());
                let background = fence.mark.as_deref() != Some("run");
                steps.push(Step { line: fence.line, text: fence.text.clone(), background, prints: None });
            }
            Some("prints") => {
                let ran = before.is_some_and(|mark| mark.starts_with("run"));
                let step = steps.last_mut().filter(|_| ran);
                let step = step.with_context(|| format!("{} follows none that is run", at()))?;
                step.prints = Some(pattern(&fence.text)?);
            }
            Some(mark) => bail!("{} has the comment `{mark}`, which means nothing", at()),
            None => {}
        }
        before = fence.mark.as_deref();
    }
    let endless = steps.iter().find(|step| step.background && step.prints.is_none());
    ensure!(endless.is_none(), "nobody knows when this is ready: {endless:?}");
    Ok(steps)
}

/// Whole lines, of which `…` may be anything: within a line any characters, alone any lines.
fn pattern(text: &str) -> Result<Regex> {
    let mut pattern = String::from("(?m)");
    for line in text.trim_end().lines() {
        match line.trim() {
            "…" => pattern.push_str("(?:.*\n)*?"),
            _ => {
                let parts: Vec<String> = line.trim_end().split('…').map(regex::escape).collect();
                pattern.push_str(&format!("^{} *(?:\n|\\z)", parts.join(".+")));
            }
        }
    }
    Ok(Regex::new(&pattern)?)
}

/// Runs pages one after the other in one terminal: later ones find what earlier ones left.
async fn run(pages: &[&str]) -> Result<()> {
    let mut terminal = Terminal::open().await?;
    for page in pages {
        let read = ostler_book::Page::read(&std::fs::read_to_string(root().join(page))?);
        let steps = steps(&read.fences).with_context(|| (*page).to_owned())?;
        ensure!(!steps.is_empty(), "{page} has nothing to run");
        for step in &steps {
            let what = || format!("{page}:{}:\n{}", step.line, step.text);
            perform(step, &mut terminal).await.with_context(what)?;
        }
    }
    terminal.close().await
}

async fn perform(step: &Step, terminal: &mut Terminal) -> Result<()> {
    if let (true, Some(ready)) = (step.background, &step.prints) {
        return terminal.start(&step.text, ready).await;
    }
    let printed = terminal.run(&step.text).await?;
    let fits = step.prints.as_ref().is_none_or(|pattern| pattern.is_match(&printed));
    ensure!(fits, "it does not print what the page shows, but:\n{printed}");
    Ok(())
}

#[tokio::test]
async fn the_commands_of_the_readme_run() -> Result<()> {
    run(&["README.md"]).await
}

#[tokio::test]
async fn the_quick_start_runs() -> Result<()> {
    run(&["docs/src/quick-start.md"]).await
}

#[tokio::test]
async fn the_commands_for_an_own_repository_run() -> Result<()> {
    run(&["docs/src/own-repository.md"]).await
}

#[tokio::test]
async fn a_backup_of_a_running_host_is_restored() -> Result<()> {
    run(&["docs/src/quick-start.md", "docs/src/operations/backup.md"]).await
}

#[test]
fn every_page_with_commands_to_run_is_run() -> Result<()> {
    let mut marked: Vec<PathBuf> = Vec::new();
    for (path, page) in ostler_book::pages(&root())? {
        let steps = steps(&page.fences).with_context(|| path.display().to_string())?;
        if !steps.is_empty() {
            marked.push(path.clone());
        }
        let lost =
            page.comments.iter().find(|(_, comment)| comment.starts_with("run") || comment.starts_with("prints"));
        assert_eq!(lost, None, "{}: a comment about a block stands before none", path.display());
    }
    let pages: Vec<&Path> = PAGES.iter().map(Path::new).collect();
    assert_eq!(marked, pages);
    Ok(())
}

#[test]
fn what_a_page_shows_is_compared_but_for_the_dots() -> Result<()> {
    let shown = pattern("ready at http://…\n\n…\nend\n")?;
    assert!(shown.is_match("before\nready at http://x:1\n\na\nb\nend"));
    assert!(!shown.is_match("ready at http://x:1\n\na\nb\n"));
    assert!(!shown.is_match("not ready at http://x:1\n\nend\n"));
    assert!(!pattern("done.")?.is_match("done!"));
    Ok(())
}

#[test]
fn a_comment_that_means_nothing_or_stands_in_the_wrong_place_is_an_error() {
    let steps = |text: &str| steps(&ostler_book::Page::read(text).fences).map_err(|error| error.to_string());
    let wrong = |text: &str| steps(text).err().unwrap_or_default();
    assert_eq!(
        steps("<!-- run -->\n```sh\ntrue\n```\n<!-- prints -->\n```text\n```\n").map(|steps| steps.len()),
        Ok(1)
    );
    assert!(wrong("<!-- runs -->\n```sh\ntrue\n```\n").contains("means nothing"));
    assert!(wrong("<!-- run -->\n```python\n```\n").contains("is no `sh`"));
    assert!(wrong("<!-- prints -->\n```text\n```\n").contains("follows none"));
    assert!(wrong("<!-- run -->\n```sh\n```\n```sh\n```\n<!-- prints -->\n```text\n```\n").contains("follows none"));
    assert!(wrong("<!-- run in the background -->\n```sh\n```\n").contains("nobody knows"));
}
