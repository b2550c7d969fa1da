//! Nothing is left behind.

use std::collections::HashMap;
use std::fs;

use anyhow::{Context, Result};
use ostler_tests::Host;
use ostler_tests::script::{END, script, shell};

/// Process number of the host's launcher, from the command line that every launcher has.
pub(super) fn launcher_pid(host: &Host) -> Result<u32> {
    let folder = host.folder.path().to_string_lossy().into_owned();
    let found = processes()?
        .into_iter()
        .find(|(_, process)| process.command.contains("internal-launcher") && process.command.contains(&folder));
    found.map(|(pid, _)| pid).context("the launcher runs")
}

/// Ends one process at once.
pub(super) fn kill_process(pid: u32) -> Result<()> {
    ostler_tests::host::send_signal(pid, rustix::process::Signal::KILL)?;
    wait_for_end(pid)
}

/// Waits until a process that is ending has ended.
fn wait_for_end(pid: u32) -> Result<()> {
    let deadline = std::time::Instant::now() + ostler_tests::client::PATIENCE;
    while fs::exists(format!("/proc/{pid}"))? && !is_zombie(pid) {
        anyhow::ensure!(std::time::Instant::now() < deadline, "{pid} did not end");
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    Ok(())
}

fn is_zombie(pid: u32) -> bool {
    fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| stat.contains(") Z "))
}

/// Every process that descends from `root`, children before grandchildren.
pub(super) fn descendants(root: u32) -> Result<Vec<u32>> {
    let all = processes()?;
    let mut found = Vec::new();
    let mut front = vec![root];
    while let Some(parent) = front.pop() {
        let mut children: Vec<u32> =
            all.iter().filter(|(_, process)| process.parent == parent).map(|(pid, _)| *pid).collect();
        children.sort_unstable();
        found.extend(&children);
        front.extend(children);
    }
    Ok(found)
}

struct Process {
    parent: u32,
    command: String,
}

fn processes() -> Result<HashMap<u32, Process>> {
    let mut all = HashMap::new();
    for entry in fs::read_dir("/proc")? {
        let name = entry?.file_name();
        let Ok(pid) = name.to_string_lossy().parse::<u32>() else { continue };
        // A process may end while it is looked at.
        let Ok(stat) = fs::read_to_string(format!("/proc/{pid}/stat")) else { continue };
        let Some((_, rest)) = stat.rsplit_once(") ") else { continue };
        let Some(parent) = rest.split_whitespace().nth(1).and_then(|parent| parent.parse().ok()) else { continue };
        let command = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let command = String::from_utf8_lossy(&command).replace('\0', " ");
        all.insert(pid, Process { parent, command });
    }
    Ok(all)
}

/// Cgroups in any hierarchy whose path names `id`.
fn cgroups_of(id: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut front = vec![std::path::PathBuf::from("/sys/fs/cgroup")];
    while let Some(folder) = front.pop() {
        let Ok(entries) = fs::read_dir(&folder) else { continue };
        for entry in entries.flatten() {
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                let path = entry.path();
                if path.to_string_lossy().contains(id) {
                    found.push(path.to_string_lossy().into_owned());
                }
                front.push(path);
            }
        }
    }
    found
}

#[tokio::test]
async fn a_clean_stop_leaves_no_process_mount_or_cgroup() -> Result<()> {
    let turns = script(&[&shell("setsid sleep 4000 & echo started"), END]);
    let (mut host, session) = Host::with_session(turns).await?;
    host.client.prompt(session, "go").await?;
    host.client.wait_until_idle(session).await?;
    let launcher = launcher_pid(&host)?;
    let lived = descendants(launcher)?;
    assert!(!lived.is_empty(), "the sandbox lives between prompts");
    assert!(!cgroups_of(&session.bare()).is_empty(), "the sandbox has a cgroup");

    assert_eq!(host.stop()?, Some(0), "{}", host.log());

    // The launcher hangs up as the kernel closes its sockets, shortly before it is gone; what it killed last may be as far.
    for pid in lived.iter().chain([&launcher]) {
        wait_for_end(*pid)?;
    }
    assert_eq!(cgroups_of(&session.bare()), Vec::<String>::new());
    let folder = host.folder.path().to_string_lossy().into_owned();
    let mounts = fs::read_to_string("/proc/self/mountinfo")?;
    assert!(!mounts.contains(&folder), "{mounts}");
    host.launch().await?;
    assert_eq!(host.client.events(session).await?.first().map(|event| event.seq), Some(1));
    Ok(())
}
