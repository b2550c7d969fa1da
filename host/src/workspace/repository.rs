//! What we ourselves do with git in a workspace: clone, diff, commit, push.
//!
//! Every script runs inside the sandbox with the same limits as the agent's commands. Values reach it through the
//! environment, never through its text, and hooks of the repository are off.

use std::time::Duration;

use ostler_protocol::event::Person;
use ostler_protocol::{CallId, SessionId, TurnId};
use ostler_sandbox::client::{GuestError, Running};
use ostler_sandbox::wire::FailureKind;
use ostler_sandbox::wire::guest::{Exec, ExitCause, Overflow, Stdio};
use tokio::io::AsyncReadExt;

use super::hands::environment;
use super::{Workspace, WorkspaceError};

/// Host name of the git remote, which exists only behind the door.
pub const GIT_HOST: &str = "git.ostler.internal";

/// Time that one of our scripts may take.
const SCRIPT_DEADLINE: Duration = Duration::from_secs(300);

/// Exit status by which the publish script says that there is nothing to publish.
const NOTHING: i32 = 77;

/// Clones into an empty workspace. What an interrupted clone left, its locks too, is thrown away.
const CLONE: &str = r#"
set -e
cd /workspace
if [ "$(git config --local --get ostler.base 2>/dev/null)" = "$OSTLER_COMMIT" ]; then echo present; exit 0; fi
rm -rf .git
git init --quiet --initial-branch "$OSTLER_BRANCH" .
git remote add origin "$OSTLER_URL"
git fetch --quiet --no-tags origin "+refs/heads/$OSTLER_BASE:refs/remotes/origin/$OSTLER_BASE" || true
# The branch may have moved away from it since, or be gone.
if ! git cat-file -e "$OSTLER_COMMIT^{commit}" 2>/dev/null; then git fetch --quiet --no-tags origin "$OSTLER_COMMIT"; fi
start="$OSTLER_COMMIT"
# A session whose files were lost goes on from what it has pushed: publishing replaces its branch with what is here.
if [ "$OSTLER_PUSHED" = yes ]; then
  status=0
  git ls-remote --exit-code origin "refs/heads/$OSTLER_BRANCH" >/dev/null || status=$?
  case "$status" in
  0)
    git fetch --quiet --no-tags origin "+refs/heads/$OSTLER_BRANCH:refs/remotes/origin/$OSTLER_BRANCH"
    start="refs/remotes/origin/$OSTLER_BRANCH"
    ;;
  # There is no such branch: nothing was pushed.
  2) ;;
  # Whether there is one is not known, and a guess could cost it.
  *) exit "$status" ;;
  esac
fi
git reset --quiet --hard "$start"
git config --local ostler.base "$OSTLER_COMMIT"
echo "cloned $(git rev-parse HEAD)"
"#;

/// Removes the locks of git commands that died with their sandbox: in a new one, nobody can hold them.
const UNLOCK: &str = r#"
if [ -d /workspace/.git ]; then exec find /workspace/.git -name '*.lock' -type f -delete; fi
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

/// A script of ours.
#[derive(Clone, Copy)]
struct Script<'a> {
    /// What it does, for errors.
    doing: &'static str,
    text: &'a str,
    /// More environment.
    values: &'a [(&'a str, String)],
    /// Who its commits are by.
    author: Option<&'a Person>,
    /// Exit statuses besides 0 that are no failure.
    also: &'a [i32],
    cut: Cut,
}

/// What it means that a script wrote more than it may.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Cut {
    /// What it wrote until then is the answer.
    Counts,
    /// It failed.
    Fails,
}

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
    /// Puts the repository into the workspace and says at which commit; `None` where it was there already. Where the
    /// session has `pushed` before, that is the end of its branch, else the base commit.
    pub(super) async fn clone_repository(&self, pushed: bool) -> Result<Option<String>, WorkspaceError> {
        let purpose = &self.purpose;
        let values = [
            ("OSTLER_URL", format!("http://{GIT_HOST}/{}.git", purpose.repository)),
            ("OSTLER_BASE", purpose.base_branch.clone()),
            ("OSTLER_COMMIT", purpose.base_commit.clone()),
            ("OSTLER_BRANCH", purpose.branch.clone()),
            ("OSTLER_PUSHED", if pushed { "yes" } else { "no" }.to_owned()),
        ];
        let clone = Script {
            doing: "clone the repository",
            text: CLONE,
            values: &values,
            author: None,
            also: &[],
            cut: Cut::Fails,
        };
        let (_, output) = self.run_script(&CallId::generate().to_string(), clone).await?;
        let text = String::from_utf8_lossy(&output);
        Ok(text.lines().find_map(|line| line.strip_prefix("cloned ")).map(|commit| commit.trim().to_owned()))
    }

    /// Removes what git commands of a sandbox that died have left locked.
    pub(super) async fn remove_stale_locks(&self) -> Result<(), WorkspaceError> {
        let unlock =
            Script { doing: "remove stale locks", text: UNLOCK, values: &[], author: None, also: &[], cut: Cut::Fails };
        self.run_script(&CallId::generate().to_string(), unlock).await.map(|_| ())
    }

    /// The difference to the base commit, at most `max` bytes; the second part is whether it was cut.
    pub async fn diff(&self, max: usize) -> Result<(String, bool), WorkspaceError> {
        let values = [("OSTLER_COMMIT", self.purpose.base_commit.clone())];
        let diff = Script {
            doing: "read the difference",
            text: DIFF,
            values: &values,
            author: None,
            also: &[],
            cut: Cut::Counts,
        };
        let (_, mut output) = self.run_script(&CallId::generate().to_string(), diff).await?;
        let cut = output.len() > max;
        output.truncate(max);
        Ok((String::from_utf8_lossy(&output).into_owned(), cut))
    }

    /// Commits and pushes the work of a turn. Doing it again with nothing new is harmless. What an earlier host began for
    /// the same turn is waited for, not started a second time beside it.
    pub async fn publish(&self, turn: TurnId, commit: Commit) -> Result<Published, WorkspaceError> {
        let values = [
            ("OSTLER_COMMIT", self.purpose.base_commit.clone()),
            ("OSTLER_BRANCH", self.purpose.branch.clone()),
            ("OSTLER_MESSAGE", commit.message),
        ];
        let author = Some(&commit.author);
        let publish = Script {
            doing: "publish the work",
            text: PUBLISH,
            values: &values,
            author,
            also: &[NOTHING],
            cut: Cut::Fails,
        };
        let call = format!("publish-{turn}");
        // One that failed may have failed with the host before this one.
        let ended = match self.adopt_script(&call, publish).await {
            Ok(Some(ended)) => ended,
            Ok(None) | Err(WorkspaceError::Script { .. }) => self.run_script(&call, publish).await?,
            Err(error) => return Err(error),
        };
        let (status, output) = ended;
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

    /// Runs a script and returns its status (0 or one of [`Script::also`]) and its output.
    async fn run_script(&self, call: &str, script: Script<'_>) -> Result<(i32, Vec<u8>), WorkspaceError> {
        let nobody = Person { name: "Ostler".into(), email: "ostler@localhost".into() };
        let mut env = environment(script.author.unwrap_or(&nobody));
        env.extend(script.values.iter().map(|(name, value)| ((*name).to_owned(), value.clone())));
        env.push(("GIT_CONFIG_COUNT".into(), "1".into()));
        env.push(("GIT_CONFIG_KEY_0".into(), "core.hooksPath".into()));
        env.push(("GIT_CONFIG_VALUE_0".into(), "/dev/null".into()));
        let exec = Exec {
            call: call.to_owned(),
            argv: vec!["/bin/sh".into(), "-c".into(), script.text.into()],
            env,
            cwd: "/".into(),
            timeout_ms: u64::try_from(SCRIPT_DEADLINE.as_millis()).unwrap_or(u64::MAX),
            output_limit: super::hands::OUTPUT_LIMIT,
            overflow: Overflow::End,
            stdio: Stdio::Merged,
            label: String::new(),
        };
        let started = self.guest.exec(exec).await;
        let running = started.map_err(|source| WorkspaceError::Guest { doing: script.doing, source })?;
        self.follow_script(running, script).await
    }

    /// The end of a script that an earlier host started; `None` where the sandbox knows nothing of it.
    async fn adopt_script(&self, call: &str, script: Script<'_>) -> Result<Option<(i32, Vec<u8>)>, WorkspaceError> {
        match self.guest.attach(call, 0).await {
            Ok(running) => self.follow_script(running, script).await.map(Some),
            Err(GuestError::Refused { failure, .. }) if failure.kind == FailureKind::NotFound => Ok(None),
            Err(source) => Err(WorkspaceError::Guest { doing: script.doing, source }),
        }
    }

    async fn follow_script(&self, mut running: Running, script: Script<'_>) -> Result<(i32, Vec<u8>), WorkspaceError> {
        let doing = script.doing;
        let mut output = Vec::new();
        let followed = async {
            // A read error means that the link broke; the row below says so.
            let _ = (&mut running.output).take(2 * super::hands::OUTPUT_LIMIT).read_to_end(&mut output).await;
            running.exit().await
        };
        let row = tokio::time::timeout(SCRIPT_DEADLINE + Duration::from_secs(30), followed).await;
        let late = || WorkspaceError::Late { doing, waited: SCRIPT_DEADLINE };
        let row = row.map_err(|_| late())?.map_err(|source| WorkspaceError::Guest { doing, source })?;
        // The row was needed only until its outcome was known; an error here is the link's, and shows at its next use.
        let _ = self.guest.forget(&running.call).await;
        let (status, cause) = row.exit.map_or((-1, ExitCause::Stopped), |exit| (exit.status, exit.cause));
        let exited = cause == ExitCause::Exited && (status == 0 || script.also.contains(&status));
        if exited || cause == ExitCause::OutputLimit && script.cut == Cut::Counts {
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
