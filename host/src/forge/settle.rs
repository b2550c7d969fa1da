//! After a push: which references did change? Asked of the repository, not of what git told the client.
//!
//! Runs whenever a `git receive-pack` has ended, also where it was killed or its client is gone: a reference may have moved
//! before that.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use ostler_sandbox::fault;
use tokio::time::timeout;

use super::process::Answer;
use super::push::RefUpdate;
use super::repositories::succeeded;
use super::{Access, BranchName, Forge, ForgeError, PushObserver, Pushed, RepositoryName};
use crate::telemetry::chain;

/// Time that an observer has for one reference.
const OBSERVER: Duration = Duration::from_secs(10);

/// How many references git is asked for at once: their names must fit on a command line.
const AT_ONCE: usize = 100;

/// A push that has ended.
pub(super) struct Settlement {
    pub(super) forge: Forge,
    pub(super) name: RepositoryName,
    pub(super) access: Access,
    pub(super) updates: Vec<RefUpdate>,
    pub(super) observer: Option<Arc<dyn PushObserver>>,
}

/// Tells the observer what changed, and gives a repository that was empty its default branch.
pub(super) async fn settle(push: Settlement) {
    fault::point("forge.push-stored");
    let changed = match changed(&push).await {
        Ok(changed) => changed,
        Err(error) => {
            tracing::error!(repository = %push.name, error = %chain(&error), "cannot tell what a push changed");
            return;
        }
    };
    if push.access == Access::Full
        && let Err(error) = adopt_default_branch(&push, &changed).await
    {
        tracing::error!(repository = %push.name, error = %chain(&error), "cannot set the default branch");
    }
    for update in changed {
        tracing::info!(repository = %push.name, session = ?push.access.session(), reference = update.reference, commit = update.new, "pushed");
        let Some(observer) = &push.observer else { continue };
        let event = Pushed {
            repository: push.name.clone(),
            session: push.access.session(),
            commit: (!update.is_delete()).then(|| update.new.clone()),
            reference: update.reference.clone(),
        };
        if timeout(OBSERVER, observer.pushed(event)).await.is_err() {
            tracing::error!(repository = %push.name, reference = update.reference, "nobody took note of a push");
        }
    }
}

async fn changed(push: &Settlement) -> Result<Vec<&RefUpdate>, ForgeError> {
    let mut now: HashMap<String, String> = HashMap::new();
    for some in push.updates.chunks(AT_ONCE) {
        let mut arguments = vec!["for-each-ref", "--format=%(objectname) %(refname)", "--"];
        arguments.extend(some.iter().map(|update| update.reference.as_str()));
        let answer: Answer = push.forge.query(&push.name, "for-each-ref", &arguments, 1 << 20).await?;
        let text = String::from_utf8_lossy(&succeeded("for-each-ref", answer)?).into_owned();
        now.extend(
            text.lines()
                .filter_map(|line| line.split_once(' '))
                .map(|(object, name)| (name.to_owned(), object.to_owned())),
        );
    }
    let is_new = |update: &RefUpdate| match now.get(&update.reference) {
        Some(object) => *object == update.new,
        None => update.is_delete(),
    };
    Ok(push.updates.iter().filter(|update| update.old != update.new && is_new(update)).collect())
}

/// The first branch that comes into an empty repository becomes its default one, where `main` is not among them.
async fn adopt_default_branch(push: &Settlement, changed: &[&RefUpdate]) -> Result<(), ForgeError> {
    let default = push.forge.get(&push.name).await?.default_branch.parse::<BranchName>()?;
    let heads = || {
        changed
            .iter()
            .filter(|update| !update.is_delete())
            .filter_map(|update| update.reference.strip_prefix("refs/heads/"))
    };
    if heads().next().is_none() || push.forge.tip(&push.name, &default).await?.is_some() {
        return Ok(());
    }
    let chosen = heads().find(|name| *name == "master").or_else(|| heads().next());
    match chosen {
        Some(branch) => push.forge.set_default_branch(&push.name, branch).await,
        None => Ok(()),
    }
}
