//! One forked process per sandbox to be made: the only place where libcontainer runs.
//!
//! ```text
//! join the sandbox's control groups   cloned into the unified one: one kill ends everything that was started
//! resolve the image's layers
//! record, upper and work directory
//! namespace pair ─────────────► door sockets to the launcher
//! own mount namespace, tmpfs, overlay, checks of the tree, pivot into the tmpfs
//!     (for git: no image, record or door; the machine's programs and one repository in place of the overlay)
//! limits of memory, processes, devices
//! specification, build, limit of processor time, start ─► process descriptor of PID 1 to the launcher
//! sync the record, exit
//! ```
//!
//! The launcher kills a worker that is over time; nothing that a worker mounts outlives it. This module owns
//! the order of the steps. It holds no table and answers no host.

mod executor;
mod forbidden;
mod former;
mod log;
mod machine;
mod overlay;
pub(crate) mod record;
pub(crate) mod seccomp;
mod spec;
mod staging;
pub(crate) mod trial;

use std::cell::OnceCell;
use std::fs;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, chown};
use std::path::{Path, PathBuf};

use libcontainer::container::builder::ContainerBuilder;
use libcontainer::syscall::syscall::SyscallType;
use ostler_wire::launcher::{DescriptorKind, Limits, RepositoryAccess};
use ostler_wire::{Failure, FailureKind, socket};
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use serde::{Deserialize, Serialize};

use crate::cgroup::{self, Cgroups};
use crate::defence::{Defence, Weakened};
use crate::ids::Range;
use crate::process;
use crate::standing::Standing;
use crate::step::{Step, failure};
use crate::store::{ImageId, Store, StoreError};
use executor::Guest;
pub(crate) use machine::MOUNT_ATTR_NOSYMFOLLOW;
pub(crate) use overlay::{UPPER, change_mount};
use record::Record;

/// What a worker is to make.
pub(crate) struct Job {
    pub(crate) record: Record,
    /// What git is to work on, where the sandbox is for that and no workspace.
    pub(crate) repository: Option<Repository>,
    pub(crate) limits: Limits,
    pub(crate) store: Store,
    pub(crate) cgroups: Cgroups,
    /// Where the worker may mount its staging tmpfs, in its own mount namespace.
    pub(crate) mount_point: PathBuf,
    /// For tests, see [`crate::defence`].
    pub(crate) weakened: Weakened,
    /// Certificates that the sandbox is to trust.
    pub(crate) certificates: Option<PathBuf>,
}

/// A repository of the forge.
#[derive(Clone, Debug)]
pub(crate) struct Repository {
    /// The folder of the forge.
    pub(crate) forge: PathBuf,
    /// Name of the repository's own folder in it.
    pub(crate) folder: String,
    pub(crate) access: RepositoryAccess,
    /// Whose it is.
    pub(crate) uid: u32,
    pub(crate) gid: u32,
}

/// Descriptors from 3 on that PID 1 keeps: the control socket.
const CONTROL_ONLY: i32 = 1;
/// More than a worker ever has.
const ALL: i32 = 1000;

/// The descriptors of a worker, in the order in which [`process::keep_only`] places them.
pub(crate) struct Descriptors {
    /// The guest's end of the control socket, which becomes descriptor 3 of PID 1.
    pub(crate) control: OwnedFd,
    /// To the launcher.
    pub(crate) report: OwnedFd,
    /// Sealed memory file with the guest program.
    pub(crate) guest: OwnedFd,
}

/// What a worker tells the launcher.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Report {
    /// A socket of the door, in this message.
    Door(DescriptorKind),
    /// PID 1 was started; its process descriptor is in this message.
    Started {
        /// Its number on the host.
        pid: i32,
    },
    /// Nothing was started.
    Failed(Failure),
}

/// Runs the job in a forked child and reports. Returns the exit status.
pub(crate) fn run(job: &Job, descriptors: Descriptors) -> i32 {
    let prepared = process::become_child(c"ostler-worker")
        .and_then(|()| process::keep_only(vec![descriptors.control, descriptors.report, descriptors.guest]));
    let Ok([control, report, guest]) = prepared.map(<[OwnedFd; 3]>::try_from).unwrap_or_else(|_| Err(Vec::new()))
    else {
        return 1;
    };
    let worker = Worker { job, report, guest, groups: OnceCell::new(), _control: control };
    match worker.make() {
        Ok(record) => i32::from(record.is_some_and(|record| record.sync().is_err())),
        Err(failed) => {
            if worker.tell(&Report::Failed(failed), None).is_err()
                && let Some(groups) = worker.groups.get()
            {
                // Nobody is left to end what was begun.
                groups.kill();
                if !job.cgroups.can_end() {
                    process::children().into_iter().for_each(|pid| {
                        let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
                    });
                }
            }
            2
        }
    }
}

struct Worker<'a> {
    job: &'a Job,
    report: OwnedFd,
    guest: OwnedFd,
    /// The sandbox's control groups, once they were entered.
    groups: OnceCell<cgroup::Leaf>,
    /// Descriptor 3, kept open for PID 1 to inherit.
    _control: OwnedFd,
}

impl Worker<'_> {
    fn make(&self) -> Result<Option<record::Written>, Failure> {
        let Job { record, cgroups, weakened, repository, .. } = self.job;
        if weakened.lacks(Defence::NoForeignDescriptors) {
            staging::leave_host_open()?;
        }
        let entered = cgroups.enter(&record.sandbox)?;
        let groups = self.groups.get_or_init(|| entered);
        match repository {
            Some(repository) => self.make_service(repository, groups).map(|()| None),
            None => self.make_workspace(groups).map(Some),
        }
    }

    fn make_workspace(&self, groups: &cgroup::Leaf) -> Result<record::Written, Failure> {
        let Job { record, store, mount_point, certificates, weakened, .. } = self.job;
        let ids = record.ids();
        let layers = layers(store, &record.image, ids)?;
        let files = store.sandbox(&record.sandbox);
        let were_there = files.join(UPPER).exists();
        let written = make_files(&files, record)?;
        let pair = crate::pair::make(ids)?;
        for (kind, made) in &pair.door {
            self.tell(&Report::Door(*kind), Some(made))?;
        }
        let certificates = certificates.as_deref().map(staging::read_certificates).transpose()?;
        let staging = staging::enter(mount_point)?;
        certificates.map(|content| staging.add_certificates(&content)).transpose()?;
        if were_there {
            former::wait_until_gone(&files)?;
        }
        overlay::mount(&layers, &files, shown_as(&pair), weakened)?;
        if !weakened.lacks(Defence::TreeCheck) {
            overlay::check_tree(ids)?;
        }
        self.begin(staging, &pair, groups)?;
        Ok(written)
    }

    fn make_service(&self, repository: &Repository, groups: &cgroup::Leaf) -> Result<(), Failure> {
        let Job { record, mount_point, .. } = self.job;
        let Repository { uid, gid, .. } = *repository;
        if !Standing::of_this_process().can_map_mounts() {
            // Its files cannot be shown as another's: git is the owner in there.
            let pair = crate::pair::make_closed_for(uid, gid)?;
            let staging = staging::enter(mount_point)?;
            machine::lay_out(repository, None)?;
            return self.begin(staging, &pair, groups);
        }
        let ids = record.ids();
        let pair = crate::pair::make_closed(ids)?;
        let owner = crate::pair::map_owner(uid, gid, ids.base)?;
        let staging = staging::enter(mount_point)?;
        machine::lay_out(repository, Some(owner.as_fd()))?;
        self.begin(staging, &pair, groups)
    }

    /// From a laid out root file system to a PID 1 that runs.
    fn begin(&self, staging: staging::Staging, pair: &crate::pair::Pair, groups: &cgroup::Leaf) -> Result<(), Failure> {
        staging.leave_host()?;
        groups.limit(self.job.limits)?;
        self.outlive_launcher()?;
        self.start(pair, groups)
    }

    /// From now on the end of the launcher is not the end of this process: what libcontainer has cloned does not die with
    /// it, and waits for it for ever. It goes on, finds at its next report that nobody is there, and ends everything.
    fn outlive_launcher(&self) -> Result<(), Failure> {
        rustix::process::set_parent_process_death_signal(None)
            .step("outlive the launcher", || "in the worker".to_owned())
    }

    /// Builds and starts the container and sends its process descriptor.
    fn start(&self, pair: &crate::pair::Pair, groups: &cgroup::Leaf) -> Result<(), Failure> {
        let log = log::Log::new()?;
        let _capture = tracing::subscriber::set_default(log.subscriber()?);
        let specification = spec::specification(self.job, pair.user.as_fd(), pair.network.as_fd());
        let bundle = Path::new(staging::BUNDLE);
        let text = serde_json::to_vec(&specification)
            .map_err(|error| failure(FailureKind::System, "encode specification", error.to_string()))?;
        if self.job.weakened.is_nothing() {
            forbidden::check(&text)?;
        }
        fs::write(bundle.join("config.json"), text).step("write specification", || "in staging".to_owned())?;
        let failed = |op: &str, error: &dyn std::error::Error| {
            failure(FailureKind::System, op, format!("{}{}", chain(error), log.tail()))
        };
        let executor = Guest::new(&self.guest, self.filter()?);
        let builder = ContainerBuilder::new("sandbox".to_owned(), SyscallType::default())
            .with_root_path(staging::STATE)
            .map_err(|error| failed("prepare container", &error))?;
        let mut container = builder
            .with_executor(executor)
            .with_preserved_fds(if self.job.weakened.lacks(Defence::NoForeignDescriptors) { ALL } else { CONTROL_ONLY })
            .as_init(bundle)
            .with_systemd(false)
            .with_detach(true)
            .build()
            .map_err(|error| failed("build container", &error))?;
        let pid = container.pid().map(|pid| pid.as_raw());
        let first = pid
            .and_then(Pid::from_raw)
            .ok_or_else(|| failure(FailureKind::System, "build container", format!("no process{}", log.tail())))?;
        // This process is its parent and does not reap it: the number cannot have been reused.
        let descriptor = pidfd_open(first, PidfdFlags::empty()).step("open process", || format!("{first:?}"))?;
        groups.limit_cpu(self.job.limits)?;
        container.start().map_err(|error| failed("start container", &error))?;
        self.tell(&Report::Started { pid: first.as_raw_nonzero().get() }, Some(&descriptor))
    }

    /// The filter of system calls; a specification has one only where there is none here.
    fn filter(&self) -> Result<Option<&'static [libc::sock_filter]>, Failure> {
        let weakened = &self.job.weakened;
        if weakened.lacks(Defence::SystemCallFilter) || spec::has_filter(weakened) {
            return Ok(None);
        }
        seccomp::program(spec::calls(self.job)).map(Some)
    }

    fn tell(&self, report: &Report, descriptor: Option<&OwnedFd>) -> Result<(), Failure> {
        socket::send(self.report.as_fd(), report, descriptor.map(AsFd::as_fd))
            .map_err(|error| failure(FailureKind::System, "report", format!("to the launcher: {error}")))
    }
}

/// The namespace with whose ids layers are shown; `None` where they bear them.
fn shown_as(pair: &crate::pair::Pair) -> Option<BorrowedFd<'_>> {
    Standing::of_this_process().can_map_mounts().then(|| pair.user.as_fd())
}

/// The layers of an image, top first; copies with the sandbox's ids where a mount cannot show them so.
fn layers(store: &Store, image: &str, ids: Range) -> Result<Vec<PathBuf>, Failure> {
    let unknown = || failure(FailureKind::Invalid, "resolve image", format!("{image:?} is no manifest digest"));
    let image = ImageId::parse(image).ok_or_else(unknown)?;
    let found = store.layers(&image).and_then(|layers| {
        if Standing::of_this_process().can_map_mounts() {
            return Ok(layers);
        }
        layers.iter().map(|layer| store.layer_of(ids, layer)).collect()
    });
    found.map_err(|error| {
        let kind = match error {
            StoreError::UnknownImage { .. } | StoreError::MissingLayer { .. } => FailureKind::NotFound,
            StoreError::NoSpace { .. } => FailureKind::NoSpace,
            _ => FailureKind::System,
        };
        failure(kind, "resolve image", chain(&error))
    })
}

/// Makes the directories of a sandbox where they are missing, and its record.
fn make_files(files: &Path, record: &Record) -> Result<record::Written, Failure> {
    let make = |directory: &Path, mode: u32, owner: u32| {
        fs::DirBuilder::new()
            .recursive(true)
            .mode(mode)
            .create(directory)
            .and_then(|()| chown(directory, Some(owner), Some(owner)))
            .step("make directory", || directory.display().to_string())
    };
    make(files, 0o700, 0)?;
    let written = record.write(files)?;
    // An existing upper keeps its owner: the sandbox may have changed that of its own root.
    for (name, mode) in [(UPPER, 0o755), (overlay::WORK, 0o700)] {
        let directory = files.join(name);
        if !directory.exists() {
            make(&directory, mode, record.ids().base)?;
        }
    }
    Ok(written)
}

/// An error and its sources in one line.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(source) = next {
        let words = source.to_string();
        // Transparent variants repeat what their source says.
        if !text.ends_with(&words) {
            text = format!("{text}: {words}");
        }
        next = source.source();
    }
    text
}
