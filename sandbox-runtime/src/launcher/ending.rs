//! From a destroy, a death or a failure to nothing left.
//!
//! ```text
//! kill everything ─► no worker, no PID 1, cgroup empty ─► cgroup directories removed
//!                          ─► Remove: renamed into trash/, removed by a child ─► answered
//!                          ─► Keep:   the record stays                        ─► answered
//! ```

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use ostler_wire::launcher::{Event, Files, Reply};
use ostler_wire::{Failure, FailureKind};
use rustix::process::{Signal, WaitStatus, kill_process, pidfd_send_signal};

use super::files::{remove_in_child, set_aside};
use super::limits;
use super::running;
use super::sandboxes::{Because, Ending, Phase, RequestKey, Sandbox};
use super::starting::check_id;
use super::state::{Launcher, in_words, log};
use crate::cgroup::Removal;
use crate::step::{Step, failure};

/// Time after which those who wait for an end are told that it takes too long.
const PATIENCE: Duration = Duration::from_secs(30);

impl Launcher {
    pub(super) fn destroy(&mut self, request: RequestKey, id: &str, files: Files) {
        if let Err(refused) = check_id(id) {
            return self.reply(request, Err(refused));
        }
        let (removed, waiting) =
            std::mem::take(&mut self.waiting).into_iter().partition::<VecDeque<_>, _>(|waiting| waiting.sandbox == id);
        self.waiting = waiting;
        for waiting in removed {
            self.reply(waiting.request, Err(destroyed()));
        }
        if !self.sandboxes.contains_key(id) {
            match self.kept.remove(id) {
                Some(record) if files == Files::Remove => {
                    let phase = Phase::Ending(Ending {
                        because: Because::Asked,
                        files,
                        until: Instant::now() + PATIENCE,
                        waiters: vec![request],
                    });
                    let only_files = Sandbox {
                        record,
                        // It was never started: nothing is ever said of it.
                        instance: 0,
                        restored: true,
                        limits: limits::LEAST,
                        allowed: None,
                        memory: None,
                        service_of: None,
                        phase,
                        sockets: None,
                        report: None,
                        worker: None,
                        init: None,
                        remover: None,
                    };
                    self.sandboxes.insert(id.to_owned(), only_files);
                    return self.advance(id);
                }
                Some(record) => drop(self.kept.insert(id.to_owned(), record)),
                None => {}
            }
            let died = self.last_words.get(id).cloned();
            return self.reply(request, Ok(Reply::Ended { died }));
        }
        self.fail(id, destroyed());
        if self.sandboxes.get(id).is_some_and(|sandbox| matches!(sandbox.phase, Phase::Living)) {
            self.end(id, Because::Asked, files);
        }
        match self.sandboxes.get_mut(id) {
            Some(Sandbox { phase: Phase::Ending(ending), .. }) => {
                if files == Files::Remove {
                    ending.files = Files::Remove;
                }
                ending.waiters.push(request);
                self.advance(id);
            }
            _ => self.reply(request, Ok(Reply::Ended { died: None })),
        }
    }

    /// Kills everything of a sandbox and goes on when it is gone.
    pub(super) fn end(&mut self, id: &str, because: Because, files: Files) {
        let Some(sandbox) = self.sandboxes.get_mut(id) else { return };
        // What serves git has no files to keep.
        let files = if sandbox.service_of.is_some() { Files::Remove } else { files };
        if let Some(worker) = sandbox.worker.filter(|_| matches!(sandbox.phase, Phase::Starting { .. })) {
            let _ = kill_process(worker, Signal::KILL);
        }
        if let Some(init) = &sandbox.init {
            let _ = pidfd_send_signal(&init.descriptor, Signal::KILL);
        }
        // A worker that still syncs its record is let finish; it is in the group only on its way to an end.
        sandbox.memory = None;
        let syncing = matches!(sandbox.phase, Phase::Living) && sandbox.worker.is_some();
        let until = Instant::now() + PATIENCE;
        sandbox.phase = Phase::Ending(Ending { because, files, until, waiters: Vec::new() });
        if !syncing && let Err(failed) = self.cgroups.kill(id) {
            log(&format!("{id}: {failed}"));
        }
        self.advance(id);
    }

    /// Takes the next step of an end, if it is possible now.
    pub(super) fn advance(&mut self, id: &str) {
        let Some(sandbox) = self.sandboxes.get_mut(id) else { return };
        let Phase::Ending(ending) = &mut sandbox.phase else { return };
        if ending.until <= Instant::now() {
            ending.until = Instant::now() + PATIENCE;
            let waiters = std::mem::take(&mut ending.waiters);
            let words = format!("{id} is still being removed after {} s", PATIENCE.as_secs());
            self.answer(waiters, Err(failure(FailureKind::Limit, "destroy", words)));
            return;
        }
        if sandbox.has_processes() || sandbox.remover.is_some() {
            return;
        }
        if self.cgroups.is_populated(id) {
            let _ = self.cgroups.kill(id);
            return;
        }
        match self.cgroups.remove(id) {
            Ok(Removal::Busy) => {}
            Ok(Removal::Gone) => self.dispose_of_files(id),
            Err(failed) => {
                log(&format!("{id}: {failed}"));
                self.dispose_of_files(id);
            }
        }
    }

    fn dispose_of_files(&mut self, id: &str) {
        let Some(sandbox) = self.sandboxes.get_mut(id) else { return };
        let Phase::Ending(ending) = &sandbox.phase else { return };
        let place = self.store.sandbox(id);
        if ending.files == Files::Keep || !place.exists() {
            return self.finish(id, Ok(()));
        }
        match set_aside(&place, &self.store.trash(), id) {
            Ok(trash) => match remove_in_child(&trash) {
                Ok(remover) => sandbox.remover = Some(remover),
                // The next launcher removes it.
                Err(failed) => self.finish(id, Err(failed)),
            },
            Err(failed) => {
                // They are where they were, with their record and their uids.
                if let Phase::Ending(ending) = &mut sandbox.phase {
                    ending.files = Files::Keep;
                }
                self.finish(id, Err(failed));
            }
        }
    }

    pub(super) fn remover_ended(&mut self, id: &str, status: WaitStatus) {
        let Some(sandbox) = self.sandboxes.get_mut(id) else { return };
        sandbox.remover = None;
        let removed = match status.exit_status() {
            Some(0) => Ok(()),
            Some(errno) => {
                Err(std::io::Error::from_raw_os_error(errno)).step("remove files", || format!("of {id}, now in trash"))
            }
            None => {
                Err(failure(FailureKind::System, "remove files", format!("of {id}: the remover {}", in_words(status))))
            }
        };
        self.finish(id, removed);
    }

    /// Nothing of the sandbox but, perhaps, its kept files is left.
    fn finish(&mut self, id: &str, files_removed: Result<(), Failure>) {
        let Some(sandbox) = self.sandboxes.remove(id) else { return };
        let Phase::Ending(ending) = sandbox.phase else { return };
        if !self.cgroups.can_end() {
            running::forget(&self.config.state, id);
        }
        if self.sandboxes.is_empty() {
            self.cgroups.remove_parents();
        }
        let told = self.last_words.remove(id);
        let died = match &ending.because {
            Because::Died { why } => Some(why.clone()),
            // What is removed now may have died before.
            Because::Asked => told,
            Because::Failed { .. } => None,
        };
        if ending.files == Files::Keep {
            self.kept.insert(id.to_owned(), sandbox.record);
            self.last_words.extend(died.clone().map(|why| (id.to_owned(), why)));
        } else {
            self.leases.release(sandbox.record.ids());
        }
        if let Err(failed) = &files_removed {
            log(&format!("{id}: {failed}"));
        }
        self.answer(ending.waiters, files_removed.map(|()| Reply::Ended { died }));
        match ending.because {
            Because::Asked => {}
            Because::Failed { request, failure } => self.reply(request, Err(failure)),
            Because::Died { why } => {
                log(&format!("{id} died: {why}"));
                self.announce(Event::Died { sandbox: id.to_owned(), instance: sandbox.instance, why });
            }
        }
        self.start_waiting();
    }

    fn answer(&mut self, requests: Vec<RequestKey>, answer: Result<Reply, Failure>) {
        for request in requests {
            self.reply(request, answer.clone());
        }
    }
}

fn destroyed() -> Failure {
    failure(FailureKind::NotFound, "create", "the sandbox was destroyed before it was ready")
}
