//! The running host: its parts, joined, until a signal ends it.

use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use ostler_protocol::ErrorCode;
use ostler_protocol::api::{Health, PluginHook, PluginList, PluginView, RefusedPlugin, RepositoryView};
use ostler_sandbox::client::{Launcher, LauncherClientError};
use ostler_sandbox::standing::Standing;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use super::error::AppError;
use super::layout::Layout;
use super::listen::Listeners;
use super::notify::Manager;
use super::privileges::User;
use crate::agent::model::Models;
use crate::api::{self, ApiFailure, ApiLimits, ApiState, ApiToken, HealthSource, HostGuard, Previews, Repositories};
use crate::cli::discovery::{self, Location};
use crate::config::HostConfig;
use crate::door::Outside;
use crate::forge::{Access, Forge, GitRunner, RepositoryName, git_router};
use crate::plugins::{Package, PluginError, PluginHost, PluginInfo, PluginSource, Registration};
use crate::session::{Clock, Services, Sessions};
use crate::store::{Blobs, Index, SessionLogs};
use crate::telemetry::{self, chain};
use crate::workspace::{self, Workspaces};

/// Time that requests under way have when the host stops.
const DRAIN: Duration = Duration::from_secs(5);

/// Time that the launcher has to end every sandbox.
const LAUNCHER_END: Duration = Duration::from_secs(60);

/// Time that the launcher may take to exit after that.
const LAUNCHER_EXIT: Duration = Duration::from_secs(5);

/// The API token, made where it is missing, readable by the host and by root only.
pub(super) fn token(layout: &Layout, user: User) -> Result<ApiToken, AppError> {
    let path = layout.token();
    let failed = |error: &(dyn std::error::Error + 'static)| {
        AppError::new(chain(error), format!("check {}; without it a new token is made", path.display()))
    };
    let token = api::load_or_create_token(&path).map_err(|error| failed(&error))?;
    std::os::unix::fs::chown(&path, Some(user.uid), Some(user.gid)).map_err(|error| failed(&error))?;
    Ok(token)
}

/// Connects to the launcher as the next host. That a higher epoch was there is no reason to give up: this process has the data
/// folder's lock, so no other host lives. It then goes on from there.
async fn connect(layout: &Layout, index: &Index) -> Result<(Launcher, Vec<String>, u64), AppError> {
    let internal = |error: &(dyn std::error::Error + 'static)| AppError::new(chain(error), "the log has more");
    let socket = layout.launcher_socket();
    let epoch = index.next_epoch(0).await.map_err(|error| internal(&error))?;
    let (epoch, connected) = match Launcher::connect(&socket, epoch).await {
        Err(LauncherClientError::Stale { highest, .. }) => {
            tracing::warn!(epoch, highest, "the launcher knows of a later host than the index does");
            let epoch = index.next_epoch(highest).await.map_err(|error| internal(&error))?;
            (epoch, Launcher::connect(&socket, epoch).await)
        }
        connected => (epoch, connected),
    };
    let (launcher, living) = connected.map_err(|error| internal(&error))?;
    Ok((launcher, living, epoch))
}

/// Ends a launcher that has no host. For a start that failed after the launcher was there.
pub(super) fn end_launcher(layout: &Layout) {
    let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_all().build() else { return };
    let ended = runtime.block_on(async {
        let socket = layout.launcher_socket();
        let (launcher, _) = match Launcher::connect(&socket, 0).await {
            Err(LauncherClientError::Stale { highest, .. }) => Launcher::connect(&socket, highest).await?,
            connected => connected?,
        };
        launcher.shutdown().await
    });
    // Nobody listens: there is none.
    if let Err(error) = ended
        && !matches!(error, LauncherClientError::Connect { .. })
    {
        tracing::warn!(error = %chain(&error), "the launcher could not be ended; it ends by itself without a host");
    }
}

/// What was opened, read and checked before the host dropped root.
pub(super) struct Start {
    /// What the launcher has.
    pub(super) standing: Standing,
    /// Where the API listens.
    pub(super) listeners: Listeners,
    /// Digest of the image of workspaces.
    pub(super) image: String,
    /// The models.
    pub(super) models: Models,
    /// The plugins' files.
    pub(super) plugins: Vec<Package>,
    /// What every request must carry.
    pub(super) token: ApiToken,
}

/// The file that tells this machine's command line where the host is.
pub(super) struct Announcement {
    folder: PathBuf,
}

impl Announcement {
    /// Makes the folder while the process may.
    pub(super) fn prepare(folder: &Path, user: User) -> Result<Self, AppError> {
        let failed = |error: std::io::Error| {
            let message = format!("cannot make the runtime folder {}", folder.display());
            AppError::new(message, "set OSTLER_RUNTIME_DIR to a folder that can be made").because(error)
        };
        if let Some(parent) = folder.parent() {
            std::fs::create_dir_all(parent).map_err(failed)?;
        }
        match std::fs::DirBuilder::new().mode(0o755).create(folder) {
            Ok(()) => std::os::unix::fs::lchown(folder, Some(user.uid), Some(user.gid)).map_err(failed)?,
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
                // A folder that was there before is never given away, only used where it is the host's own.
                let found = std::fs::symlink_metadata(folder).map_err(failed)?;
                if !found.is_dir() || found.uid() != user.uid {
                    let message = format!("{} exists and is no folder of the host's user", folder.display());
                    return Err(AppError::new(message, "remove it, or set OSTLER_RUNTIME_DIR to another folder"));
                }
            }
            Err(error) => return Err(failed(error)),
        }
        Ok(Self { folder: folder.to_owned() })
    }

    fn publish(&self, location: &Location) -> Result<(), AppError> {
        discovery::publish(&self.folder, location)
            .map_err(|error| AppError::new(chain(&error), "check the folder that OSTLER_RUNTIME_DIR names"))
    }

    fn withdraw(&self, location: &Location) {
        if let Err(error) = discovery::withdraw(&self.folder, location) {
            tracing::warn!(error = %chain(&error), "the runtime file stays");
        }
    }
}

/// One line of the log for each thing that this host does without.
fn say_what_is_done_without(standing: Standing) {
    if standing == Standing::Namespace {
        tracing::warn!(
            "without root of the machine: each sandbox has a copy of its image's files, and git works on repositories as the \
             user that this host runs as"
        );
    }
    match ostler_sandbox::probe::control_groups(standing) {
        Ok(found) => {
            found.gaps.iter().for_each(|gap| tracing::warn!(fix = gap.fix(), "not limited here: {}", gap.words()))
        }
        Err(error) => tracing::warn!(%error, "what limits sandboxes is not known"),
    }
}

/// Joins the parts, serves until a signal, ends everything.
pub(super) async fn serve(
    config: HostConfig,
    layout: &Layout,
    start: Start,
    announcement: Announcement,
    ready: impl FnOnce(&str),
) -> Result<(), AppError> {
    let Start { standing, listeners, image, models, plugins, token } = start;
    let internal = |error: &(dyn std::error::Error + 'static)| AppError::new(chain(error), "the log has more");
    let telemetry =
        telemetry::begin(&layout.log(), config.otlp_endpoint.as_deref()).map_err(|error| internal(&error))?;
    say_what_is_done_without(standing);
    let Listeners { main, twin, stranger } = listeners;
    if let Some(address) = stranger {
        tracing::warn!(%address, "another program listens where browsers look for previews too; there are none");
    }
    let twin = twin.map(tokio::net::TcpListener::from_std).transpose().map_err(|error| internal(&error))?;
    let listener = tokio::net::TcpListener::from_std(main).map_err(|error| internal(&error))?;
    let address = listener.local_addr().map_err(|error| internal(&error))?;
    let url = format!("http://{address}");

    let plugins = start_plugins(plugins).await?;
    let index = Index::open(&layout.index()).map_err(|error| internal(&error))?;
    let (launcher, living, epoch) = connect(layout, &index).await?;
    let forge = Forge::open(&layout.repositories(), GitRunner::in_sandboxes(launcher.clone(), epoch))
        .map_err(|error| internal(&error))?;
    let outside = Outside::new(config.egress.clone());
    let limits = workspace::limits(config.limits);
    let workspaces = Workspaces::new(launcher.clone(), image, limits, epoch, forge.clone(), outside, living);
    let about = About {
        model: models.default_name().unwrap_or_default().to_owned(),
        image: config.image.clone(),
        plugins: plugin_list(&plugins),
    };
    let services = Services {
        logs: SessionLogs::open(&layout.sessions()).map_err(|error| internal(&error))?,
        index,
        blobs: Blobs::open(&layout.blobs()).map_err(|error| internal(&error))?,
        forge: forge.clone(),
        plugins,
        workspaces,
        models,
        url: url.clone(),
        clock: Clock::system(),
    };
    let sessions = Sessions::new(services);
    sessions.recover().await.map_err(|error| internal(&error))?;

    let stopping = CancellationToken::new();
    let state = ApiState {
        sessions: Arc::new(sessions.clone()),
        processes: Arc::new(sessions.clone()),
        previews: Arc::new(Previews::new(address.port(), Clock::system()).unless(stranger)),
        repositories: Arc::new(ForgeRepositories { forge: forge.clone(), url: url.clone() }),
        health: Arc::new(about),
        git: git_router(forge, Access::Full),
        token,
        guard: HostGuard::new(address, &config.allowed_hosts, &config.allowed_origins),
        limits: ApiLimits::default(),
        streams: ApiLimits::default().stream_places(),
        stopping: stopping.clone(),
    };
    let mut interrupt = signal(SignalKind::interrupt()).map_err(|error| internal(&error))?;
    let mut terminate = signal(SignalKind::terminate()).map_err(|error| internal(&error))?;
    let location = Location { url: url.clone(), token_path: layout.token() };
    announcement.publish(&location)?;
    ready(&url);
    let manager = Manager::of_process();
    manager.ready(&url);
    let (signalled, watched) = (stopping.clone(), launcher.clone());
    tokio::spawn(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
            () = watched.gone() => {}
        }
        manager.stopping();
        signalled.cancel();
    });
    let served = api::serve((listener, twin), api::router(state), stopping, DRAIN).await;
    announcement.withdraw(&location);
    sessions.quiesce().await;
    if launcher.is_gone() {
        let message = "the launcher is gone, without which there is no sandbox";
        let hint =
            format!("start again: the sessions go on where they were; its log is {}", layout.launcher_log().display());
        return Err(AppError::new(message, hint).code(ErrorCode::SandboxFailed));
    }
    let ended = tokio::time::timeout(LAUNCHER_END, launcher.shutdown()).await;
    match ended {
        Ok(Ok(())) => {}
        Ok(Err(error)) => return Err(internal(&error)),
        Err(_) => return Err(AppError::new("the launcher did not end every sandbox in time", "its log says more")),
    }
    // Whoever starts the next host at once finds none of this one. The launcher hangs up with its last breath.
    if tokio::time::timeout(LAUNCHER_EXIT, launcher.gone()).await.is_err() {
        tracing::warn!("the launcher has ended everything and does not exit");
    }
    // The last words of everything above; it blocks, and nothing else is left to do.
    let _ = tokio::task::spawn_blocking(|| telemetry.end()).await;
    served.map_err(|error| internal(&error))
}

/// Reads the plugins' files while the process may read what the operator may.
pub(super) fn read_plugins(config: &HostConfig) -> Result<Vec<Package>, AppError> {
    let sources = config.plugins.iter().cloned().map(PluginSource::Path);
    sources.map(PluginHost::read).collect::<Result<_, _>>().map_err(|error| bad_plugin(&error))
}

async fn start_plugins(packages: Vec<Package>) -> Result<PluginHost, AppError> {
    let host = PluginHost::start(packages).await.map_err(|error| bad_plugin(&error))?;
    // A plugin that the operator named and that is not there would be a guard that people believe in.
    match host.refused().first() {
        Some(error) => Err(bad_plugin(error)),
        None => Ok(host),
    }
}

fn bad_plugin(error: &PluginError) -> AppError {
    AppError::new(error.describe(), "repair the plugin, or start without its --plugin").code(ErrorCode::PluginFailed)
}

/// What the host says of itself.
struct About {
    model: String,
    image: String,
    plugins: PluginList,
}

/// The plugins in the words of the API.
fn plugin_list(host: &PluginHost) -> PluginList {
    let hook = |part: Registration| PluginHook {
        hook: part.hook.to_string(),
        phase: part.phase.to_string(),
        priority: part.priority,
        failure: part.failure.to_string(),
    };
    let plugin = |plugin: PluginInfo| PluginView {
        id: plugin.id,
        version: plugin.version,
        digest: plugin.digest,
        hooks: plugin.hooks.into_iter().map(hook).collect(),
    };
    let refused = |error: &PluginError| RefusedPlugin { reason: error.describe() };
    PluginList {
        plugins: host.plugins().into_iter().map(plugin).collect(),
        refused: host.refused().iter().map(refused).collect(),
    }
}

#[async_trait]
impl HealthSource for About {
    async fn health(&self) -> Result<Health, ApiFailure> {
        Ok(Health {
            status: "ok".into(),
            version: env!("CARGO_PKG_VERSION").into(),
            model: self.model.clone(),
            image: self.image.clone(),
            plugins: self.plugins.plugins.iter().map(|plugin| plugin.id.clone()).collect(),
        })
    }

    async fn plugins(&self) -> Result<PluginList, ApiFailure> {
        Ok(self.plugins.clone())
    }
}

/// The built-in forge as the API sees it.
struct ForgeRepositories {
    forge: Forge,
    url: String,
}

impl ForgeRepositories {
    fn view(&self, repository: crate::forge::Repository) -> RepositoryView {
        let clone_url = format!("{}/git/{}.git", self.url, repository.name);
        RepositoryView { name: repository.name.to_string(), default_branch: repository.default_branch, clone_url }
    }
}

fn parse(name: &str) -> Result<RepositoryName, ApiFailure> {
    name.parse().map_err(|error: crate::forge::NameError| ApiFailure::new(ErrorCode::BadRequest, error.to_string()))
}

fn refused(error: crate::forge::ForgeError) -> ApiFailure {
    ApiFailure::new(error.code(), chain(&error))
}

#[async_trait]
impl Repositories for ForgeRepositories {
    async fn create(&self, name: &str) -> Result<RepositoryView, ApiFailure> {
        let name = parse(name)?;
        self.forge.create(&name).await.map(|repository| self.view(repository)).map_err(refused)
    }

    async fn get(&self, name: &str) -> Result<RepositoryView, ApiFailure> {
        let name = parse(name)?;
        self.forge.get(&name).await.map(|repository| self.view(repository)).map_err(refused)
    }

    async fn list(&self, after: Option<&str>, limit: usize) -> Result<Vec<RepositoryView>, ApiFailure> {
        let repositories = self.forge.list(after, limit).await.map_err(refused)?;
        Ok(repositories.into_iter().map(|repository| self.view(repository)).collect())
    }
}
