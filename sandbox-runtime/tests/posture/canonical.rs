//! A posture without what differs between two runs that are both right: numbers of namespaces, uids, paths of the store.

use serde_json::{Value, json};

use crate::reader;

/// What a process of the machine is, read from outside.
pub fn outside(pid: i32) -> Value {
    serde_json::from_str(&reader::read(&pid.to_string()).to_string()).unwrap()
}

/// The canonical form. `base` is the first uid of the sandbox on the machine, which has a whole range.
pub fn canonical(mut posture: Value, base: u32) -> Value {
    for map in ["uid_map", "gid_map"] {
        assert_eq!(posture[map], json!([[0, base, 65_536]]));
        posture[map] = json!([[0, "base", 65_536]]);
    }
    without_numbers(posture, base)
}

/// [`canonical`] with the id maps as they are.
pub fn without_numbers(mut posture: Value, base: u32) -> Value {
    let machine = outside(std::process::id() as i32);
    for (name, namespace) in posture["namespaces"].as_object_mut().unwrap() {
        if !namespace.is_null() {
            let own = *namespace != machine["namespaces"][name];
            *namespace = json!(if own { "own" } else { "the machine's" });
        }
    }
    for ids in ["uid", "gid"] {
        for id in posture[ids].as_array_mut().unwrap() {
            let number = id.as_u64().unwrap();
            // Read from outside they are the machine's.
            *id = json!(if number >= u64::from(base) { number - u64::from(base) } else { number });
        }
    }
    // The machine's own limits, which are given on.
    for limit in ["processes", "pending signals", "locked memory", "msgqueue size"] {
        posture["limits"][limit] = json!("the machine's");
    }
    posture["limits"]["open files"] = json!("65536 or the machine's");
    for group in posture["cgroup"].as_array_mut().into_iter().flatten() {
        let name = group.as_str().unwrap().rsplit(':').next().unwrap().to_owned();
        *group = json!(if name == "/" { "its root" } else { "below the machine's" });
    }
    let groups = posture["cgroup"].as_array_mut().unwrap();
    groups.sort_by_key(Value::to_string);
    groups.dedup();
    // A link to what is masked, where the kernel has it.
    posture["devices"].as_array_mut().unwrap().retain(|device| !device.as_str().unwrap().starts_with("/dev/core "));
    let mounts = posture["mounts"].as_array().unwrap();
    let lines = mounts.iter().filter(|mount| !covers(mount)).map(|mount| line(mount, base)).collect();
    posture["mounts"] = Value::Array(lines);
    for (_, limit) in posture["limits"].as_object_mut().unwrap() {
        if let [soft, hard] = limit.as_array().map_or(&[][..], Vec::as_slice) {
            *limit = json!(format!("{} {}", soft.as_str().unwrap(), hard.as_str().unwrap()));
        }
    }
    for (_, target) in posture["descriptors"].as_object_mut().into_iter().flatten() {
        let kind = target.as_str().unwrap().split(':').next().unwrap().to_owned();
        *target = json!(kind);
    }
    posture
}

/// Whether it lies over a file or folder of `/proc` or `/sys`; which there are depends on the machine.
pub fn covers(mount: &Value) -> bool {
    let point = mount["point"].as_str().unwrap();
    point.starts_with("/proc/") || point.starts_with("/sys/")
}

/// A mount in one line: where, which file system, how.
fn line(mount: &Value, base: u32) -> Value {
    let text = |name: &str| mount[name].as_str().unwrap().to_owned();
    let options = |name: &str| {
        let options = mount[name].as_array().unwrap().iter().map(|option| option.as_str().unwrap().to_owned());
        // Paths of the store, what kernels say of themselves, and how large the machine's memory is.
        let of_the_machine = ["lowerdir", "upperdir", "workdir", "uuid", "nr_inodes", "inode64"];
        let kept = options.filter(|option| !of_the_machine.iter().any(|name| option.starts_with(name)));
        let kept =
            kept.map(|option| option.replace(&(base + 5).to_string(), "base+5").replace(&base.to_string(), "base"));
        kept.collect::<Vec<_>>().join(",")
    };
    json!(format!("{} {} {} ({})", text("point"), text("type"), options("options"), options("system")))
}
