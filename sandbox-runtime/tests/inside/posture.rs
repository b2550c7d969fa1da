//! What a process is: namespaces, ids, capabilities, filter, limits, mounts, devices, descriptors, sockets.
//!
//! One reader for both sides: the program in the sandbox reads itself, a test reads a process of a sandbox from outside through
//! the machine's `/proc`. What a reader may not see is `null`. Only reading; nothing is tried here.

use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use crate::json::Json;

const NAMESPACES: [&str; 8] = ["cgroup", "ipc", "mnt", "net", "pid", "time", "user", "uts"];

/// The posture of a process: `self`, or its number.
pub fn read(process: &str) -> Json {
    let folder = PathBuf::from(format!("/proc/{process}"));
    let text = |name: &str| fs::read_to_string(folder.join(name)).ok();
    let status = text("status").unwrap_or_default();
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        line.map(|value| value.split_whitespace().collect::<Vec<_>>().join(" "))
    };
    let number = |name: &str| field(name).and_then(|value| value.parse().ok()).map_or(Json::Nothing, Json::Number);
    let numbers = |name: &str| field(name).map_or(Json::Nothing, |line| numbers_of(&line));
    let link = |name: &str| {
        fs::read_link(folder.join(name)).ok().map_or(Json::Nothing, |to| Json::text(to.display().to_string()))
    };
    let capability = |name: &str| field(name).map_or(Json::Nothing, Json::Text);
    let optional = |value: Option<Json>| value.unwrap_or(Json::Nothing);
    Json::object([
        ("namespaces", Json::object(NAMESPACES.map(|name| (name, link(&format!("ns/{name}")))))),
        ("uid_map", optional(text("uid_map").map(|map| rows(&map)))),
        ("gid_map", optional(text("gid_map").map(|map| rows(&map)))),
        ("uid", numbers("Uid")),
        ("gid", numbers("Gid")),
        ("groups", numbers("Groups")),
        (
            "capabilities",
            Json::object(
                [
                    ("inheritable", "CapInh"),
                    ("permitted", "CapPrm"),
                    ("effective", "CapEff"),
                    ("bounding", "CapBnd"),
                    ("ambient", "CapAmb"),
                ]
                .map(|(name, row)| (name, capability(row))),
            ),
        ),
        ("no_new_privileges", number("NoNewPrivs")),
        ("seccomp", number("Seccomp")),
        ("seccomp_filters", number("Seccomp_filters")),
        ("limits", optional(text("limits").map(|table| limits(&table)))),
        ("oom_score_adj", optional(text("oom_score_adj").map(|score| Json::text(score.trim())))),
        ("cgroup", optional(text("cgroup").map(|groups| Json::texts(sorted(groups.lines()))))),
        ("mounts", optional(text("mountinfo").map(|table| mounts(&table)))),
        ("devices", devices(&folder.join("root"), Path::new("dev"))),
        ("descriptors", descriptors(&folder)),
        ("environment", environment(&folder)),
        ("directory", link("cwd")),
        ("root", link("root")),
        ("terminal", terminal(text("stat").as_deref())),
        ("sockets", sockets(&folder)),
    ])
}

fn numbers_of(line: &str) -> Json {
    Json::List(line.split_whitespace().filter_map(|number| number.parse().ok()).map(Json::Number).collect())
}

fn rows(table: &str) -> Json {
    Json::List(table.lines().map(numbers_of).collect())
}

fn sorted<'a>(lines: impl Iterator<Item = &'a str>) -> Vec<&'a str> {
    let mut lines: Vec<&str> = lines.collect();
    lines.sort_unstable();
    lines
}

/// `Max open files  1024  4096  files`, with columns at fixed places.
fn limits(table: &str) -> Json {
    let rows = table.lines().skip(1).filter_map(|line| {
        let name = line.get(..26)?.trim().strip_prefix("Max ")?;
        let values = line.get(26..)?.split_whitespace().take(2);
        Some((name.to_owned(), Json::texts(values)))
    });
    Json::object(rows)
}

/// Point, type, source, the mount's own options and those of the file system, by point.
fn mounts(table: &str) -> Json {
    let mut rows: Vec<(String, Json)> = table
        .lines()
        .filter_map(|line| {
            let (mount, system) = line.split_once(" - ")?;
            let mount: Vec<&str> = mount.split(' ').collect();
            let system: Vec<&str> = system.split(' ').collect();
            let ([_, _, _, root, point, options, ..], [kind, source, rest @ ..]) = (&mount[..], &system[..]) else {
                return None;
            };
            let row = Json::object([
                ("point", Json::text(*point)),
                ("type", Json::text(*kind)),
                ("source", Json::text(*source)),
                ("root", Json::text(*root)),
                ("options", Json::texts(sorted(options.split(',')))),
                ("system", Json::texts(sorted(rest.first().unwrap_or(&"").split(',')))),
            ]);
            Some(((*point).to_owned(), row))
        })
        .collect();
    rows.sort_by(|one, other| one.0.cmp(&other.0));
    Json::List(rows.into_iter().map(|(_, row)| row).collect())
}

/// Everything below `/dev` but the contents of `pts` and `shm`: kind, number, mode, and where a link leads.
fn devices(root: &Path, folder: &Path) -> Json {
    let mut found = Vec::new();
    let mut names: Vec<_> = fs::read_dir(root.join(folder)).into_iter().flatten().flatten().collect();
    names.sort_by_key(fs::DirEntry::file_name);
    for entry in names {
        let path = folder.join(entry.file_name());
        let Ok(data) = fs::symlink_metadata(root.join(&path)) else { continue };
        let kind = data.file_type();
        let kind = if kind.is_char_device() {
            format!("character {}", numbers(data.rdev()))
        } else if kind.is_block_device() {
            format!("block {}", numbers(data.rdev()))
        } else if kind.is_symlink() {
            format!("link to {}", fs::read_link(root.join(&path)).unwrap_or_default().display())
        } else if kind.is_dir() {
            "directory".to_owned()
        } else {
            "file".to_owned()
        };
        let mode = data.mode() & 0o7777;
        found.push(Json::text(format!("/{} {kind} {mode:o}", path.display())));
    }
    Json::List(found)
}

fn numbers(device: u64) -> String {
    let major = ((device >> 8) & 0xfff) | ((device >> 32) & !0xfff);
    let minor = (device & 0xff) | ((device >> 12) & !0xff);
    format!("{major}:{minor}")
}

fn descriptors(folder: &Path) -> Json {
    let Ok(entries) = fs::read_dir(folder.join("fd")) else { return Json::Nothing };
    // The folder that is being read is open too.
    let mut open: Vec<(i64, String)> = entries
        .flatten()
        .filter_map(|entry| {
            let to = fs::read_link(entry.path()).ok()?.display().to_string();
            Some((entry.file_name().to_str()?.parse().ok()?, to))
        })
        .filter(|(_, to)| !(to.starts_with("/proc/") && to.ends_with("/fd")))
        .collect();
    open.sort_unstable();
    Json::object(open.into_iter().map(|(number, to)| (number.to_string(), Json::Text(to))))
}

/// Names only.
fn environment(folder: &Path) -> Json {
    let Ok(bytes) = fs::read(folder.join("environ")) else { return Json::Nothing };
    let text = String::from_utf8_lossy(&bytes).into_owned();
    let names =
        text.split('\0').filter(|entry| !entry.is_empty()).map(|entry| entry.split('=').next().unwrap_or(entry));
    Json::texts(sorted(names))
}

/// Number of the controlling terminal, or nothing.
fn terminal(stat: Option<&str>) -> Json {
    let number = stat
        .and_then(|stat| stat.rsplit_once(") "))
        .and_then(|(_, rest)| rest.split(' ').nth(4))
        .and_then(|number| number.parse::<u64>().ok());
    match number {
        None | Some(0) => Json::Nothing,
        Some(number) => Json::text(numbers(number)),
    }
}

/// Named Unix sockets of the process's network namespace and ports that are listened on, TCP and UDP.
fn sockets(folder: &Path) -> Json {
    let table = |name: &str| fs::read_to_string(folder.join("net").join(name)).ok();
    let unix = table("unix").map_or(Json::Nothing, |table| {
        Json::texts(sorted(table.lines().skip(1).filter_map(|line| line.split_whitespace().nth(7))))
    });
    let mut fields = vec![("unix", unix)];
    // 0A is listening; a UDP socket that is only bound is 07.
    for (name, state) in [("tcp", "0A"), ("tcp6", "0A"), ("udp", "07"), ("udp6", "07")] {
        let ports = table(name).map_or(Json::Nothing, |table| {
            Json::texts(sorted(table.lines().skip(1).filter_map(|line| {
                let columns: Vec<&str> = line.split_whitespace().collect();
                (columns.get(3) == Some(&state)).then(|| columns[1])
            })))
        });
        fields.push((name, ports));
    }
    Json::object(fields)
}
