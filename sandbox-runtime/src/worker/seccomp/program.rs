//! The filter as the kernel takes it, compiled once.
//!
//! libcontainer compiles the filter of a specification for every container, which takes longer than everything else in the
//! making of a sandbox. So it gets none, and the last step before the guest loads this one.
#![expect(unsafe_code, reason = "seccomp has no safe wrapper")]

use std::fs::File;
use std::io::{Read, Seek};
use std::sync::OnceLock;

use libseccomp::error::SeccompError;
use libseccomp::{ScmpAction, ScmpArgCompare, ScmpCompareOp, ScmpFilterContext, ScmpSyscall};
use ostler_wire::{Failure, FailureKind};
use rustix::fs::{MemfdFlags, memfd_create};
use rustix::io::Errno;
use serde_json::Value;

use super::{Calls, profile};
use crate::process::last_errno;
use crate::step::failure;

/// Most instructions that the kernel takes. Source: `BPF_MAXINSNS` in the kernel's `uapi/linux/bpf_common.h`.
const MOST: usize = 4096;

/// Bytes of an instruction.
const SIZE: usize = size_of::<libc::sock_filter>();

/// Why the profile did not become a program.
#[derive(Debug, thiserror::Error)]
enum NotCompiled {
    /// The library refused something.
    #[error("libseccomp: {0}")]
    Library(#[from] SeccompError),
    /// Part of a rule is none.
    #[error("`{0}` is no part of a rule")]
    Rule(String),
}

/// The program. The launcher asks before it forks, so that no worker has to compile.
pub(crate) fn program(calls: Calls) -> Result<&'static [libc::sock_filter], Failure> {
    static ALL: OnceLock<Vec<libc::sock_filter>> = OnceLock::new();
    static FILES: OnceLock<Vec<libc::sock_filter>> = OnceLock::new();
    static UNPACKING: OnceLock<Vec<libc::sock_filter>> = OnceLock::new();
    let place = match calls {
        Calls::All => &ALL,
        Calls::Files => &FILES,
        Calls::Unpacking => &UNPACKING,
    };
    if let Some(compiled) = place.get() {
        return Ok(compiled);
    }
    let failed = |words: String| failure(FailureKind::System, "compile the system call filter", words);
    let filter = compile(&profile(calls)).map_err(|error| failed(error.to_string()))?;
    let bytes = export(&filter).map_err(|error| failed(error.to_string()))?;
    let instructions: Vec<_> = bytes.chunks_exact(SIZE).filter_map(instruction).collect();
    if instructions.is_empty() || instructions.len() * SIZE != bytes.len() || instructions.len() > MOST {
        return Err(failed(format!("it has {} bytes; at most {MOST} instructions are possible", bytes.len())));
    }
    Ok(place.get_or_init(|| instructions))
}

/// Gives this process the filter, for good. It has one thread, and no new privileges.
pub(crate) fn load(filter: &[libc::sock_filter]) -> Result<(), Errno> {
    let program = libc::sock_fprog { len: filter.len() as u16, filter: filter.as_ptr().cast_mut() };
    // SAFETY: the kernel copies as many instructions as the length says, and writes none.
    let result = unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, 0, &raw const program) };
    if result == 0 { Ok(()) } else { Err(last_errno()) }
}

/// The library writes it to a descriptor only.
fn export(filter: &ScmpFilterContext) -> std::io::Result<Vec<u8>> {
    let mut file = File::from(memfd_create("ostler-filter", MemfdFlags::CLOEXEC)?);
    filter.export_bpf(&file).map_err(std::io::Error::other)?;
    let mut bytes = Vec::new();
    file.rewind()?;
    file.read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn instruction(bytes: &[u8]) -> Option<libc::sock_filter> {
    let [c0, c1, jt, jf, k0, k1, k2, k3] = *bytes.first_chunk()?;
    let (code, k) = (u16::from_ne_bytes([c0, c1]), u32::from_ne_bytes([k0, k1, k2, k3]));
    Some(libc::sock_filter { code, jt, jf, k })
}

/// A name that this libseccomp does not know is left out, as by libcontainer: such a call gets the default answer.
fn compile(profile: &Value) -> Result<ScmpFilterContext, NotCompiled> {
    let mut filter = ScmpFilterContext::new(ScmpAction::Errno(errno(&profile["defaultErrnoRet"])?))?;
    // A binary tree: the order of calls does not matter for how long one takes.
    filter.set_ctl_optimize(2)?;
    for rule in profile["syscalls"].as_array().into_iter().flatten() {
        let action = match rule["errnoRet"].is_null() {
            true => ScmpAction::Allow,
            false => ScmpAction::Errno(errno(&rule["errnoRet"])?),
        };
        let arguments: Vec<ScmpArgCompare> =
            rule["args"].as_array().into_iter().flatten().map(comparison).collect::<Result<_, _>>()?;
        let names = rule["names"].as_array().into_iter().flatten().filter_map(Value::as_str);
        for call in names.filter_map(|name| ScmpSyscall::from_name(name).ok()) {
            match arguments.is_empty() {
                true => filter.add_rule(action, call)?,
                false => filter.add_rule_conditional(action, call, &arguments)?,
            };
        }
    }
    Ok(filter)
}

fn comparison(argument: &Value) -> Result<ScmpArgCompare, NotCompiled> {
    let unreadable = || NotCompiled::Rule(argument.to_string());
    let value = |name: &str| argument[name].as_u64().ok_or_else(unreadable);
    let operation = match argument["op"].as_str() {
        Some("SCMP_CMP_MASKED_EQ") => ScmpCompareOp::MaskedEqual(value("valueTwo")?),
        Some("SCMP_CMP_GE") => ScmpCompareOp::GreaterEqual,
        Some("SCMP_CMP_EQ") => ScmpCompareOp::Equal,
        _ => return Err(unreadable()),
    };
    let index = u32::try_from(value("index")?).map_err(|_| unreadable())?;
    Ok(ScmpArgCompare::new(index, operation, value("value")?))
}

fn errno(value: &Value) -> Result<i32, NotCompiled> {
    let number = value.as_i64().and_then(|number| i32::try_from(number).ok());
    number.ok_or_else(|| NotCompiled::Rule(value.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_filter_is_compiled_once_and_fits_the_kernel() {
        for (calls, least) in [(Calls::All, 200), (Calls::Files, 200), (Calls::Unpacking, 50)] {
            let first = program(calls).unwrap();
            assert!(first.len() > least, "{}", first.len());
            assert!(std::ptr::eq(first, program(calls).unwrap()));
        }
        assert_ne!(program(Calls::All).unwrap().len(), program(Calls::Files).unwrap().len());
    }
}
