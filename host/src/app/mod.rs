//! The composition root: makes a host of its parts, in an order in which nothing half-made is left.
//!
//! ```text
//!  check (rights, port, script, image) ─► folders ─► lock ─► launcher ─► drop root ─► runtime ─► parts ─► serve
//!                                                             └── ended again when a later step fails
//! ```

mod certificates;
mod error;
mod layout;
mod listen;
mod models;
mod notify;
mod parts;
mod privileges;

use std::fs::File;
use std::io::Write;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use ostler_protocol::ErrorCode;
use ostler_sandbox::client::{Spawned, spawn_launcher};
use ostler_sandbox::launcher::LauncherConfig;
use ostler_sandbox::store::Store;
use rustix::fs::{FlockOperation, flock};

use self::parts::Start;
use crate::config::{HostConfig, env};
use crate::store::{StoreError, check_formats};

pub use error::AppError;
pub use layout::store;
pub(crate) use layout::{Layout, closed_to_others};
pub(crate) use models::{models, needs_key};
pub(crate) use privileges::{USER, User, find, is_root};

/// Time that the launcher may take to listen.
const LAUNCHER_START: Duration = Duration::from_secs(20);

/// Runs a host until it is told to stop. `ready` is called with its address once it answers.
///
/// Must be called while the process has one thread.
///
/// # Errors
/// When something that it needs is missing or a part fails; what it made until then is ended again.
pub fn up(config: HostConfig, ready: impl FnOnce(&str)) -> Result<(), AppError> {
    if !is_root() {
        can_do_without_root()?;
    }
    privileges::raise_limits();
    let layout = Layout::at(&config.data)?;
    known_formats(&layout)?;
    let models = models(&config)?;
    let listeners = listen::bind(config.listen)?;
    let image = Store::at(&layout.store()).resolve(&config.image).map_err(|error| {
        let hint = format!(
            "import it: ostler images import ROOTFS.tar --name {} --data {}",
            config.image,
            layout.data().display()
        );
        AppError::new(crate::telemetry::chain(&error), hint).code(ErrorCode::NotFound)
    })?;
    let plugins = parts::read_plugins(&config)?;
    let user = privileges::host_user()?;
    layout.make(user)?;
    let _lock = lock(&layout)?;
    let token = parts::token(&layout, user)?;
    let standing = privileges::standing();
    let start = Start { standing, listeners, image: image.as_str().to_owned(), models, plugins, token };
    let certificates = certificates::find(config.certificates.as_deref())?;
    let spawned = start_launcher(&layout, user, &config, certificates)?;
    let outcome = run(config, &layout, user, start, ready);
    if let (Err(_), Spawned::New(mut child)) = (&outcome, spawned) {
        // The parts end the launcher when they stop; this is for a start that failed before they could.
        parts::end_launcher(&layout);
        let _ = child.try_wait();
    }
    outcome
}

/// An ordinary user's host needs user namespaces and ids.
fn can_do_without_root() -> Result<(), AppError> {
    ostler_sandbox::standing::can_enter().map(drop).map_err(|error| {
        let hint = "`ostler doctor` looks at everything that is needed; as root the host starts without this";
        AppError::new(format!("sandboxes cannot be made without root: {error}"), hint).code(ErrorCode::SandboxFailed)
    })
}

fn run(
    config: HostConfig,
    layout: &Layout,
    user: User,
    start: Start,
    ready: impl FnOnce(&str),
) -> Result<(), AppError> {
    let announce = parts::Announcement::prepare(&config.runtime, user)?;
    privileges::become_user(user)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().map_err(|error| {
        AppError::new("the runtime cannot start", "check the limits on processes and descriptors").because(error)
    })?;
    runtime.block_on(parts::serve(config, layout, start, announce, ready))
}

/// A data folder of a newer version is refused before anything in it is changed.
fn known_formats(layout: &Layout) -> Result<(), AppError> {
    check_formats(&layout.index(), &layout.sessions()).map(drop).map_err(|error| {
        let hint = match &error {
            StoreError::Newer { .. } => {
                "a newer ostler wrote it: start that one, or choose another --data; nothing was changed"
            }
            _ => "check the data folder's permissions and its disk; nothing was changed",
        };
        AppError::new(crate::telemetry::chain(&error), hint)
    })
}

/// One host per data folder: the lock lives as long as the process.
fn lock(layout: &Layout) -> Result<File, AppError> {
    let path = layout.lock();
    let failed = |error: std::io::Error| {
        AppError::new(format!("cannot lock {}", path.display()), "check the data folder's permissions").because(error)
    };
    let mut file = File::options().read(true).write(true).create(true).truncate(false).open(&path).map_err(failed)?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => {}
        Err(rustix::io::Errno::WOULDBLOCK) => {
            let holder = std::fs::read_to_string(&path).unwrap_or_default();
            let message =
                format!("another host (process {}) uses the data folder {}", holder.trim(), layout.data().display());
            return Err(AppError::new(message, "stop it first, or choose another --data"));
        }
        Err(error) => return Err(failed(error.into())),
    }
    file.set_len(0).map_err(failed)?;
    writeln!(file, "{}", std::process::id()).map_err(failed)?;
    Ok(file)
}

fn start_launcher(
    layout: &Layout,
    user: User,
    chosen: &HostConfig,
    certificates: Option<PathBuf>,
) -> Result<Spawned, AppError> {
    let failed = |error: &(dyn std::error::Error + 'static)| {
        let message = format!("the launcher does not start: {}", crate::telemetry::chain(error));
        let hint =
            format!("its log is {}; `ostler doctor` tells what this machine lacks", layout.launcher_log().display());
        AppError::new(message, hint).code(ErrorCode::SandboxFailed)
    };
    let mut config = LauncherConfig::new(layout.store(), layout.launcher_state(), layout.launcher_socket());
    // In the namespace of an ordinary user's launcher that user is root.
    (config.host_uid, config.host_gid) = if is_root() { (user.uid, user.gid) } else { (0, 0) };
    // The host is held to what it was told, should somebody take it over.
    config.most_of_workspaces = crate::workspace::limits(chosen.limits);
    config.most_of_git = crate::forge::git_limits();
    config.certificates = certificates;
    config.forge = Some(layout.repositories());
    if cfg!(debug_assertions) {
        config.guest = std::env::var_os(env::TEST_GUEST).map(PathBuf::from);
    }
    let argument = config.to_argument().map_err(|error| failed(&error))?;
    let program = std::env::current_exe().map_err(|error| failed(&error))?;
    let mut command = Command::new(program);
    command.arg("internal-launcher").arg(argument);
    // It needs nothing of the host's environment, in which keys of models stand; a test build wants its fault point.
    command.env_clear().env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin");
    command.envs(std::env::var_os(env::FAULT_POINT).map(|point| (env::FAULT_POINT, point)));
    spawn_launcher(command, &layout.launcher_socket(), &layout.launcher_log(), LAUNCHER_START)
        .map_err(|error| failed(&error))
}
