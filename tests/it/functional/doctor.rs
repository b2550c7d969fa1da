//! `ostler doctor` on this machine as it is, and with what can be broken cheaply.

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use ostler_tests::script::{END, script};
use ostler_tests::{Host, HostOptions, ModelServer};
use serde_json::Value;

/// A machine of a test: a folder that everybody can reach with configuration, script and images.
struct Machine {
    folder: tempfile::TempDir,
}

impl Machine {
    fn new() -> Result<Self> {
        let folder = tempfile::Builder::new().prefix("ostler-test-").tempdir()?;
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755))?;
        fs::write(folder.path().join("config.toml"), "")?;
        fs::write(folder.path().join("script.toml"), script(&[END]))?;
        Ok(Self { folder })
    }

    fn with_images() -> Result<Self> {
        let machine = Self::new()?;
        ostler_tests::host::copy_images(&machine.path("data"))?;
        Ok(machine)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// `ostler doctor --json` through `program` (the binary, or what starts it with less), with these arguments.
    fn doctor(&self, mut program: Command, arguments: &[&str]) -> Result<Report> {
        program.args(["doctor", "--json", "--data"]).arg(self.path("data")).args(arguments);
        program.current_dir(self.folder.path()).env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default());
        program.env("OSTLER_RUNTIME_DIR", self.path("run")).env("OSTLER_CONFIG", self.path("config.toml"));
        Report::of(program)
    }

    fn plain(&self, arguments: &[&str]) -> Result<Report> {
        self.doctor(Command::new(ostler_tests::host::binary()?), arguments)
    }
}

const SCRIPTED: [&str; 4] = ["--script", "script.toml", "--listen", "127.0.0.1:0"];

struct Report {
    code: Option<i32>,
    document: Value,
}

impl Report {
    fn of(mut program: Command) -> Result<Self> {
        let output = program.output()?;
        let told = String::from_utf8_lossy(&output.stderr);
        let document = serde_json::from_slice(&output.stdout).with_context(|| told.into_owned())?;
        Ok(Self { code: output.status.code(), document })
    }

    fn checks(&self) -> impl Iterator<Item = &Value> {
        self.document["checks"].as_array().into_iter().flatten()
    }

    /// Ids of the checks in a state.
    fn ids(&self, state: &str) -> Vec<&str> {
        self.checks().filter(|check| check["state"] == state).filter_map(|check| check["id"].as_str()).collect()
    }

    /// There is a finding of this check in this state with these words in what was found or in the fix.
    fn has(&self, id: &str, state: &str, words: &str) {
        let told = |check: &Value| format!("{} fix: {}", check["found"], check["fix"]).contains(words);
        let found = self.checks().any(|check| check["id"] == id && check["state"] == state && told(check));
        assert!(found, "no `{id}` is {state} with `{words}` in {:#}", self.document);
        assert_eq!(self.code, Some(if self.ids("Failed").is_empty() { 0 } else { 8 }));
    }
}

/// What a doctor could have left: files in the folders that it was given, its control groups.
fn traces(machine: &Machine) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for folder in [machine.folder.path().to_owned(), machine.path("data")] {
        found
            .extend(fs::read_dir(folder)?.map(|entry| entry.map(|entry| entry.path())).collect::<Result<Vec<_>, _>>()?);
    }
    let groups =
        Command::new("find").args(["/sys/fs/cgroup", "-maxdepth", "3", "-name", "ostler-doctor-*"]).output()?;
    // Other tests run doctors at the same time: what a living one has is not left.
    let ended = |line: &&str| {
        let process = line.rsplit('-').next().unwrap_or_default();
        !Path::new("/proc").join(process).exists()
    };
    found.extend(String::from_utf8_lossy(&groups.stdout).lines().filter(ended).map(PathBuf::from));
    found.sort();
    Ok(found)
}

#[test]
fn a_machine_that_runs_hosts_is_well_and_nothing_is_left_on_it() -> Result<()> {
    let machine = Machine::with_images()?;
    let before = traces(&machine)?;
    let report = machine.plain(&SCRIPTED)?;
    assert_eq!((report.ids("Failed"), report.code), (Vec::new(), Some(0)), "{:#}", report.document);
    assert_eq!(traces(&machine)?, before);
    for group in ["kernel", "control_groups", "disk", "programs", "plugins"] {
        let unwell = report.checks().filter(|check| check["group"] == group && check["state"] != "OK");
        // A disk that is nearly full and a tree without version 2 are this machine's own.
        let unwell: Vec<_> = unwell.filter(|check| check["state"] != "Warning").collect();
        assert!(unwell.is_empty(), "{unwell:#?}");
    }
    report.has("images.present", "OK", "`base` is sha256:");
    report.has("models.default", "OK", "plays a script");
    report.has("host.running", "Skipped", "no host says");
    let summary = &report.document["summary"];
    let count = |state: &str| summary[state].as_u64().unwrap_or_default();
    assert_eq!(count("ok") + count("warnings") + count("skipped"), report.checks().count() as u64);
    Ok(())
}

/// The binary at a place where everybody may run it, started with less than root has.
fn with_less(machine: &Machine, less: &[&str]) -> Result<Command> {
    let copy = machine.path("ostler");
    fs::copy(ostler_tests::host::binary()?, &copy)?;
    let mut command = Command::new("setpriv");
    command.args(less).arg(copy);
    Ok(command)
}

#[test]
fn without_root_it_says_what_it_could_not_look_at() -> Result<()> {
    let machine = Machine::with_images()?;
    let nobody = with_less(&machine, &["--reuid=65534", "--regid=65534", "--clear-groups"])?;
    let report = machine.doctor(nobody, &SCRIPTED)?;
    report.has("rights.root", "Warning", "sudo ostler doctor");
    for id in ["kernel.namespaces", "kernel.overlay", "kernel.nftables"] {
        report.has(id, "Skipped", "not tried without root: find subordinate ids");
    }
    report.has("control_groups.limits", "Skipped", "tries it when it starts");
    report.has("kernel.idmapped_mounts", "Warning", "not without root");
    for id in ["kernel.version", "kernel.seccomp", "kernel.memory_files", "images.present"] {
        report.has(id, "OK", "");
    }
    assert_eq!(report.ids("Failed"), Vec::<&str>::new(), "{:#}", report.document);
    Ok(())
}

#[test]
fn a_machine_that_refuses_namespaces_is_told_so() -> Result<()> {
    let machine = Machine::new()?;
    let report = machine.doctor(with_less(&machine, &["--bounding-set=-sys_admin"])?, &SCRIPTED)?;
    report.has("kernel.namespaces", "Failed", "unshare: a mount namespace");
    report.has("kernel.overlay", "Skipped", "not reached");
    report.has("kernel.seccomp", "OK", "");
    Ok(())
}

#[test]
fn a_typo_in_the_configuration_is_told_and_what_depends_on_it_is_skipped() -> Result<()> {
    let machine = Machine::new()?;
    fs::write(machine.path("config.toml"), "[host]\nlsten = 1\n[sandbox]\nmemory = \"lots\"\n")?;
    let report = machine.plain(&[])?;
    report.has("configuration.file", "Failed", "did you mean `listen`?");
    report.has("configuration.file", "Failed", "memory");
    report.has("images.present", "Skipped", "configuration");
    report.has("kernel.nftables", "OK", "");
    Ok(())
}

#[test]
fn whoever_has_the_port_is_named() -> Result<()> {
    let machine = Machine::new()?;
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?.to_string();
    let report = machine.plain(&["--listen", &address])?;
    report.has("host.port", "Failed", &format!("(process {})", std::process::id()));
    drop(listener);
    let report = machine.plain(&["--listen", "192.0.2.1:7878"])?;
    report.has("host.port", "Failed", "cannot listen on 192.0.2.1:7878");
    Ok(())
}

/// A database of a format that does not exist yet, as far as anybody looks.
fn newer_database(path: &Path) -> Result<()> {
    let mut header = b"SQLite format 3\0".to_vec();
    header.resize(100, 0);
    header[60..64].copy_from_slice(&99_i32.to_be_bytes());
    fs::create_dir_all(path.parent().context("a folder")?)?;
    Ok(fs::write(path, header)?)
}

#[test]
fn a_data_folder_of_a_newer_version_is_refused_and_left_as_it_is() -> Result<()> {
    for database in ["data/index/index.db", "data/sessions/01jd3kq4v5w6x7y8z9a0b1c2d3.db"] {
        let machine = Machine::with_images()?;
        let path = machine.path(database);
        newer_database(&path)?;
        let before = (fs::read(&path)?, traces(&machine)?);
        let words = format!("{} has format 99", path.display());
        machine.plain(&SCRIPTED)?.has("data.version", "Failed", &words);
        let mut up = Command::new(ostler_tests::host::binary()?);
        up.args(["up", "--data"]).arg(machine.path("data")).args(SCRIPTED).current_dir(machine.folder.path());
        up.env("OSTLER_RUNTIME_DIR", machine.path("run")).env("OSTLER_CONFIG", machine.path("config.toml"));
        let output = up.output()?;
        let told = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(8), "{told}");
        assert!(told.contains(&words) && told.contains("nothing was changed"), "{told}");
        assert_eq!((fs::read(&path)?, traces(&machine)?), before);
    }
    Ok(())
}

#[test]
fn a_data_folder_that_is_closed_open_to_others_or_incomplete_is_told() -> Result<()> {
    let machine = Machine::new()?;
    machine.plain(&SCRIPTED)?.has("data.folder", "OK", "is made at the first start");
    assert!(!machine.path("data").exists());
    fs::create_dir_all(machine.path("data/sessions"))?;
    fs::create_dir_all(machine.path("data/store/names"))?;
    fs::create_dir_all(machine.path("data/store/lost/one"))?;
    fs::write(machine.path("data/token"), "x")?;
    fs::set_permissions(machine.path("data/token"), fs::Permissions::from_mode(0o644))?;
    fs::set_permissions(machine.path("data/sessions"), fs::Permissions::from_mode(0o500))?;
    fs::set_permissions(machine.folder.path(), fs::Permissions::from_mode(0o700))?;
    let report = machine.plain(&["--plugin", "nothing"])?;
    report.has("disk.path", "Failed", &format!("chmod o+x {}", machine.folder.path().display()));
    report.has("data.folder", "Failed", "chmod u+wx");
    report.has("data.token", "Failed", "mode 0644");
    report.has("data.lost", "Warning", "files of 1 sandbox ");
    report.has("images.present", "Failed", "ostler images import ROOTFS.tar --name base");
    report.has("plugins.load", "Failed", "nothing");
    report.has("models.default", "Failed", "no model was chosen");
    Ok(())
}

#[test]
fn root_tries_nothing_in_a_folder_that_somebody_else_could_exchange() -> Result<()> {
    let machine = Machine::new()?;
    std::os::unix::fs::chown(machine.folder.path(), Some(65_534), Some(65_534))?;
    let report = machine.plain(&SCRIPTED)?;
    report.has("kernel.overlay", "Skipped", "belongs to others");
    let names = fs::read_dir(machine.folder.path())?.map(|entry| Ok(entry?.file_name()));
    let mut names: Vec<_> = names.collect::<Result<_>>()?;
    names.sort();
    assert_eq!(names, ["config.toml", "script.toml"], "nothing is left in it");
    Ok(())
}

#[test]
fn a_key_is_never_shown_and_a_file_of_one_is_judged_by_who_may_read_it() -> Result<()> {
    const CANARY: &str = "sk-canary-4711";
    let machine = Machine::new()?;
    let key = machine.path("key");
    fs::write(&key, CANARY)?;
    let config = format!("[providers.anthropic]\napi_key_file = \"{}\"\n", key.display());
    fs::write(machine.path("config.toml"), config)?;
    let arguments = ["--model", "anthropic/m", "--offline"];
    let nobody = ["--reuid=65534", "--regid=65534", "--clear-groups"];
    for (mode, less, state, words) in [
        (0o600, &[][..], "OK", "from the file"),
        (0o644, &[], "Failed", "chmod 600"),
        (0o600, &nobody, "Skipped", "denied"),
    ] {
        fs::set_permissions(&key, fs::Permissions::from_mode(mode))?;
        let report = machine.doctor(with_less(&machine, less)?, &arguments)?;
        report.has("models.key", state, words);
        report.has("models.default", if state == "OK" { "OK" } else { "Skipped" }, "");
        assert!(!report.document.to_string().contains("canary"), "{:#}", report.document);
    }
    let mut bare = Command::new("env");
    bare.args(["SSL_CERT_DIR=/nonexistent", "SSL_CERT_FILE=/nonexistent"]).arg(ostler_tests::host::binary()?);
    fs::set_permissions(&key, fs::Permissions::from_mode(0o600))?;
    machine.doctor(bare, &arguments)?.has("models.certificates", "Failed", "ca-certificates");
    Ok(())
}

#[test]
fn git_that_is_missing_is_told() -> Result<()> {
    let machine = Machine::new()?;
    let mut command = Command::new("env");
    command.arg("PATH=/nonexistent").arg(ostler_tests::host::binary()?);
    machine.doctor(command, &SCRIPTED)?.has("programs.git", "Failed", "apt-get install git");
    Ok(())
}

#[tokio::test]
async fn a_model_that_is_there_is_told_from_one_that_is_only_nearly() -> Result<()> {
    let server = ModelServer::playing(&script(&[END])).await?;
    let machine = Machine::new()?;
    for (model, state, words) in [("stand-in", "OK", "list"), ("stnd-in", "Warning", "did you mean `stand-in`?")] {
        fs::write(machine.path("config.toml"), provider(server.address))?;
        let report = blocking(&machine, &["--model", &format!("local/{model}")]).await?;
        report.has("models.reachable", "OK", "1 model");
        report.has("models.name", state, words);
        report.has("clock.offset", "OK", "within five minutes");
    }
    let report = blocking(&machine, &["--model", "local/stand-in", "--offline"]).await?;
    report.has("models.reachable", "Skipped", "--offline");
    Ok(())
}

async fn blocking(machine: &Machine, arguments: &[&str]) -> Result<Report> {
    let path = machine.folder.path().to_owned();
    let arguments: Vec<String> = arguments.iter().map(|word| (*word).to_owned()).collect();
    tokio::task::spawn_blocking(move || {
        let mut program = Command::new(ostler_tests::host::binary()?);
        program.args(["doctor", "--json", "--data"]).arg(path.join("data")).args(arguments).env_clear();
        program.env("PATH", "/usr/bin:/bin").env("OSTLER_RUNTIME_DIR", path.join("run"));
        Report::of({
            program.env("OSTLER_CONFIG", path.join("config.toml"));
            program
        })
    })
    .await?
}

fn provider(address: SocketAddr) -> String {
    format!("[providers.local]\nkind = \"openai\"\nbase_url = \"http://{address}/v1\"\n")
}

/// A server that gives every request the same answer, or none.
fn server(answer: Option<String>) -> Result<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    std::thread::spawn(move || {
        let mut open = Vec::new();
        for mut stream in listener.incoming().map_while(Result::ok) {
            match &answer {
                Some(answer) => {
                    let mut request = [0; 4096];
                    let _ = stream.read(&mut request).and_then(|_| stream.write_all(answer.as_bytes()));
                }
                None => open.push(stream),
            }
        }
    });
    Ok(address)
}

fn answer(status: &str, headers: &str, body: &str) -> String {
    format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\nconnection: close\r\n{headers}\r\n{body}", body.len())
}

/// The time in so many minutes, as HTTP writes it.
fn date(minutes: &str) -> Result<String> {
    let words = format!("{minutes} minutes");
    let output = Command::new("date")
        .args(["-u", "-d", &words, "+date: %a, %d %b %Y %H:%M:%S GMT"])
        .env("LC_ALL", "C")
        .output()?;
    Ok(format!("{}\r\n", String::from_utf8_lossy(&output.stdout).trim()))
}

#[test]
fn a_provider_that_refuses_is_a_web_page_or_says_nothing_is_told_and_so_is_a_clock_that_is_off() -> Result<()> {
    let machine = Machine::new()?;
    let refusal = answer("401 Unauthorized", "", r#"{"error":{"message":"Incorrect API key provided"}}"#);
    let page = answer("200 OK", "content-type: text/html\r\n", "<!DOCTYPE html><html></html>");
    let list = |minutes: &str| -> Result<String> { Ok(answer("200 OK", &date(minutes)?, r#"{"data":[{"id":"m"}]}"#)) };
    for (answer, id, state, words) in [
        (Some(refusal), "models.reachable", "Failed", "refused the key (401): Incorrect API key"),
        (Some(page), "models.reachable", "Failed", "base_url"),
        (None, "models.reachable", "Failed", "sent nothing for 5 s"),
        (Some(list("+90")?), "clock.offset", "Failed", "behind the provider's"),
        (Some(list("-90")?), "clock.offset", "Failed", "ahead of the provider's"),
        (Some(list("-10")?), "clock.offset", "Warning", "ahead of the provider's"),
        (Some(list("-1")?), "clock.offset", "OK", "within five minutes"),
    ] {
        fs::write(machine.path("config.toml"), provider(server(answer)?))?;
        machine.plain(&["--model", "local/m"])?.has(id, state, words);
    }
    fs::write(machine.path("config.toml"), provider(SocketAddr::from(([127, 0, 0, 1], 9))))?;
    machine.plain(&["--model", "local/m"])?.has("models.reachable", "Failed", "could not reach");
    machine.plain(&[])?.has("models.reachable", "Warning", "could not reach");
    Ok(())
}

#[tokio::test]
async fn a_host_that_runs_is_well_and_one_that_died_is_told() -> Result<()> {
    let mut host = Host::start(HostOptions { script: script(&[END]), ..HostOptions::default() }).await?;
    let address = host.client.url.trim_start_matches("http://").to_owned();
    let doctor = |host: &Host| -> Result<Command> {
        let mut command = host.command(&["doctor", "--json", "--listen", &address, "--script"])?;
        command.arg(host.folder.path().join("script.toml")).arg("--data").arg(host.data());
        Ok(command)
    };
    let command = doctor(&host)?;
    let report = tokio::task::spawn_blocking(|| Report::of(command)).await??;
    assert_eq!(report.ids("Failed"), Vec::<&str>::new(), "{:#}", report.document);
    report.has("host.running", "OK", "so its launcher lives");
    report.has("host.port", "OK", "is the running host's");
    report.has("data.lock", "OK", &format!("process {}", host.pid()?));
    report.has("data.launcher", "OK", "it lives");
    report.has("data.version", "OK", "format");
    report.has("data.token", "OK", "only its owner");
    host.kill()?;
    let command = doctor(&host)?;
    let report = tokio::task::spawn_blocking(|| Report::of(command)).await??;
    report.has("host.running", "Warning", "does not answer");
    report.has("data.launcher", "Warning", "ostler up");
    report.has("data.lock", "OK", "no host uses it");
    Ok(())
}
