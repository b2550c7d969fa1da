//! The last step in the sandbox: running the guest from its sealed memory file.
//!
//! There is no file of the guest in the sandbox, so none can be replaced, and no mount is needed for it.
#![expect(unsafe_code, reason = "execveat has no safe wrapper")]

use std::collections::HashMap;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};

use libcontainer::workload::{Executor, ExecutorError, ExecutorSetEnvsError, ExecutorValidationError};
use oci_spec::runtime::Spec;

use super::seccomp;

/// The guest's own environment; every command gets one of its own from the host.
const ENVIRONMENT: &std::ffi::CStr = c"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Executes a memory file, by its descriptor in the worker (forks inherit the number).
#[derive(Clone)]
pub(super) struct Guest {
    program: RawFd,
    filter: Option<&'static [libc::sock_filter]>,
}

impl Guest {
    /// With the filter of system calls that it gets last.
    pub(super) fn new(program: &OwnedFd, filter: Option<&'static [libc::sock_filter]>) -> Self {
        Self { program: program.as_raw_fd(), filter }
    }
}

impl Executor for Guest {
    fn exec(&self, _: &Spec) -> Result<(), ExecutorError> {
        let arguments = [c"ostler-guest".as_ptr(), std::ptr::null()];
        let environment = [ENVIRONMENT.as_ptr(), std::ptr::null()];
        let loaded = self.filter.map_or(Ok(()), seccomp::load);
        loaded.map_err(|error| ExecutorError::Execution(Box::new(std::io::Error::from(error))))?;
        // SAFETY: both arrays are null-terminated and their strings are static.
        unsafe {
            libc::syscall(
                libc::SYS_execveat,
                self.program,
                c"".as_ptr(),
                arguments.as_ptr(),
                environment.as_ptr(),
                libc::AT_EMPTY_PATH,
            );
        }
        Err(ExecutorError::Execution(Box::new(std::io::Error::last_os_error())))
    }

    fn validate(&self, _: &Spec) -> Result<(), ExecutorValidationError> {
        Ok(())
    }

    fn setup_envs(&self, _: HashMap<String, String>) -> Result<(), ExecutorSetEnvsError> {
        Ok(())
    }
}
