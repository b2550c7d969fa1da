//! The last step in the sandbox: running the guest from its sealed memory file.
//!
//! There is no file of the guest in the sandbox, so none can be replaced, and no mount is needed for it.
#![expect(unsafe_code, reason = "execveat has no safe wrapper")]

use std::collections::HashMap;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};

use libcontainer::workload::{Executor, ExecutorError, ExecutorSetEnvsError, ExecutorValidationError};
use oci_spec::runtime::Spec;

/// The guest's own environment; every command gets one of its own from the host.
const ENVIRONMENT: &std::ffi::CStr = c"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Executes a memory file, by its descriptor in the worker (forks inherit the number).
#[derive(Clone)]
pub(super) struct Guest(RawFd);

impl Guest {
    pub(super) fn new(program: &OwnedFd) -> Self {
        Self(program.as_raw_fd())
    }
}

impl Executor for Guest {
    fn exec(&self, _: &Spec) -> Result<(), ExecutorError> {
        let arguments = [c"ostler-guest".as_ptr(), std::ptr::null()];
        let environment = [ENVIRONMENT.as_ptr(), std::ptr::null()];
        // SAFETY: both arrays are null-terminated and their strings are static.
        unsafe {
            libc::syscall(
                libc::SYS_execveat,
                self.0,
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
