//! What we ourselves do with git in a workspace: clone, diff, commit, push.
//!
//! Every script runs inside the sandbox with the same limits as the agent's commands. Values reach it through the
//! environment, never through its text, and hooks of the repository are off.

use std::time::Duration;

use ostler_protocol::event::Person;
use ostler_protocol::{CallId, SessionId};
use ostler_sandbox::wire::guest::{Exec, ExitCause};
use tokio::io::AsyncReadExt;

use super::hands::environment;
use super::{Workspace, WorkspaceError};

/// Host name of the git remote, which exists only behind the door.
pub const GIT_HOST: &str = "git.ostler.internal";

/// Time that one of our scripts may take.
const SCRIPT_DEADLINE: Duration = Duration::from_secs(300);

/// Exit status by which the publish script says that there is nothing to publish.
const NOTHING: i32 = 77;

/// Clones into an empty workspace. What an interrupted clone left is finished, not trusted.
const CLONE: &str = r#"
set -e
cd /workspace
if [ "$(git config --local --get ostler.base 2>/dev/null)" = "$OSTLER_COMMIT" ]; then echo present; exit 0; fi
git init --quiet --initial-branch "$OSTLER_BRANCH" .
git remote remove origin 2>/dev/null || true
git remote add origin "$OSTLER_URL"
git fetch --quiet --no-tags origin "+refs/heads/$OSTLER_BASE:refs/remotes/origin/$OSTLER_BASE"
git reset --quiet --hard "$OSTLER_COMMIT"
git config --local ostler.base "$OSTLER_COMMIT"
echo cloned
"#;

/// Shows everything that differs from the base, untracked files too, without touching the agent's index.
const DIFF: &str = r#"
set -e
cd /workspace
export GIT_INDEX_FILE="$(mktemp)"
trap 'rm -f "$GIT_INDEX_FILE" "$GIT_INDEX_FILE.lock"' EXIT
git read-tree HEAD
git add --all
git diff --cached --no-color --no-ext-diff "$OSTLER_COMMIT"
"#;

/// Commits what is not committed and pushes everything to the session's branch.
const PUBLISH: &str = r#"
set -e
cd /workspace
git add --all
if ! git diff --cached --quiet; then git commit --quiet --no-verify --message "$OSTLER_MESSAGE"; fi
if [ "$(git rev-list --count "$OSTLER_COMMIT..HEAD")" = 0 ]; then exit 77; fi
git push --quiet --no-verify origin "+HEAD:refs/heads/$OSTLER_BRANCH" >&2
git rev-parse HEAD
"#;

/// What a commit says.
#[derive(Clone, Debug)]
pub struct Commit {
    /// Its message.
    pub message: String,
    /// Its author and committer.
    pub author: Person,
}

/// How publishing ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Published {
    /// The branch now ends with this commit, 40 hexadecimal digits.
    Pushed(String),
    /// The workspace is as it was at the start.
    Nothing,
}

impl Workspace {
    /// Puts the repository into the workspace; `false` where it was there already.
    pub(super) async fn clone_repository(&self) -> Result<bool, WorkspaceError> {
        let purpose = &self.purpose;
        let values = [
            ("OSTLER_URL", format!("http://{GIT_HOST}/{}.git", purpose.repository)),
            ("OSTLER_BASE", purpose.base_branch.clone()),
            ("OSTLER_COMMIT", purpose.base_commit.clone()),
            ("OSTLER_BRANCH", purpose.branch.clone()),
        ];
        let (_, output) = self.script("clone the repository", CLONE, &values, None, &[]).await?;
        Ok(String::from_utf8_lossy(&output).contains("cloned"))
    }

    /// The difference to the base commit, at most `max` bytes; the second part is whether it was cut.
    pub async fn diff(&self, max: usize) -> Result<(String, bool), WorkspaceError> {
        let values = [("OSTLER_COMMIT", self.purpose.base_commit.clone())];
        let (_, mut output) = self.script("read the difference", DIFF, &values, None, &[]).await?;
        let cut = output.len() > max;
        output.truncate(max);
        Ok((String::from_utf8_lossy(&output).into_owned(), cut))
    }

    /// Commits and pushes the work. Doing it again with nothing new is harmless.
    pub async fn publish(&self, commit: Commit) -> Result<Published, WorkspaceError> {
        let values = [
            ("OSTLER_COMMIT", self.purpose.base_commit.clone()),
            ("OSTLER_BRANCH", self.purpose.branch.clone()),
            ("OSTLER_MESSAGE", commit.message),
        ];
        let (status, output) =
            self.script("publish the work", PUBLISH, &values, Some(&commit.author), &[NOTHING]).await?;
        if status == NOTHING {
            return Ok(Published::Nothing);
        }
        let text = String::from_utf8_lossy(&output);
        let commit = text.lines().rev().map(str::trim).find(|line| is_commit(line));
        commit.map(|commit| Published::Pushed(commit.to_owned())).ok_or_else(|| WorkspaceError::Script {
            doing: "publish the work",
            status,
            output: tail(&output),
        })
    }

    /// Runs a script of ours and returns its status (0 or one of `also`) and its output.
    async fn script(
        &self,
        doing: &'static str,
        text: &str,
        values: &[(&str, String)],
        author: Option<&Person>,
        also: &[i32],
    ) -> Result<(i32, Vec<u8>), WorkspaceError> {
        let nobody = Person { name: "Ostler".into(), email: "ostler@localhost".into() };
        let mut env = environment(author.unwrap_or(&nobody));
        env.extend(values.iter().map(|(name, value)| ((*name).to_owned(), value.clone())));
        env.push(("GIT_CONFIG_COUNT".into(), "1".into()));
        env.push(("GIT_CONFIG_KEY_0".into(), "core.hooksPath".into()));
        env.push(("GIT_CONFIG_VALUE_0".into(), "/dev/null".into()));
        let call = CallId::generate().to_string();
        let exec = Exec {
            call: call.clone(),
            argv: vec!["/bin/sh".into(), "-c".into(), text.into()],
            env,
            cwd: "/".into(),
            timeout_ms: u64::try_from(SCRIPT_DEADLINE.as_millis()).unwrap_or(u64::MAX),
            output_limit: super::hands::OUTPUT_LIMIT,
        };
        let guest = |source| WorkspaceError::Guest { doing, source };
        let mut running = self.guest.exec(exec).await.map_err(guest)?;
        let mut output = Vec::new();
        let followed = async {
            // A read error means that the link broke; the row below says so.
            let _ = (&mut running.output).take(2 * super::hands::OUTPUT_LIMIT).read_to_end(&mut output).await;
            running.exit().await
        };
        let row = tokio::time::timeout(SCRIPT_DEADLINE + Duration::from_secs(30), followed).await;
        let late = || WorkspaceError::Late { doing, waited: SCRIPT_DEADLINE };
        let row = row.map_err(|_| late())?.map_err(guest)?;
        let _ = self.guest.forget(&call).await;
        let (status, cause) = row.exit.map_or((-1, ExitCause::Stopped), |exit| (exit.status, exit.cause));
        if cause == ExitCause::Exited && (status == 0 || also.contains(&status)) {
            return Ok((status, output));
        }
        Err(WorkspaceError::Script { doing, status, output: tail(&output) })
    }
}

fn is_commit(text: &str) -> bool {
    text.len() == 40 && text.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte))
}

fn tail(output: &[u8]) -> String {
    const TAIL: usize = 2000;
    String::from_utf8_lossy(&output[output.len().saturating_sub(TAIL)..]).trim().to_owned()
}

/// Message of a commit that the host makes: the prompt's first line, and where it is from.
#[must_use]
pub fn commit_message(title: &str, session: SessionId) -> String {
    format!("{title}\n\nOstler-Session: {session}\n")
}
