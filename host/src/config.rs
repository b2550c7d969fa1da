//! What an operator can choose, and every name by which it is chosen.
//!
//! Owns the shapes, the defaults and the names of environment variables. Flags are read by `cli`, which knows that
//! flags count more than the environment.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;

/// Every environment variable that Ostler reads of its own accord.
pub mod env {
    /// Address of the host, for the command line.
    pub const URL: &str = "OSTLER_URL";
    /// API token, for the command line.
    pub const TOKEN: &str = "OSTLER_TOKEN";
    /// Folder in which a running host says where it is.
    pub const RUNTIME_DIR: &str = "OSTLER_RUNTIME_DIR";
    /// Folder of the host's state.
    pub const DATA: &str = "OSTLER_DATA";
    /// What is logged, in the words of `tracing_subscriber`.
    pub const LOG: &str = "OSTLER_LOG";
    /// The user's own runtime folder, by the XDG base directory specification.
    pub const XDG_RUNTIME_DIR: &str = "XDG_RUNTIME_DIR";
    /// The point at which a test build ends itself; the installed program does not read it.
    pub const FAULT_POINT: &str = ostler_sandbox::fault::VARIABLE;
    /// No colour, by <https://no-color.org>.
    pub const NO_COLOR: &str = "NO_COLOR";
    /// What the terminal can do; `dumb` means no colour.
    pub const TERM: &str = "TERM";
}

/// Default folder of the host's state.
pub const DEFAULT_DATA: &str = "/var/lib/ostler";
/// Default address of the API: loopback, because what it serves is a shell on the operator's machine.
pub const DEFAULT_LISTEN: &str = "127.0.0.1:7878";
/// Default model.
pub const DEFAULT_MODEL: &str = "scripted/demo";
/// Default image of a workspace.
pub const DEFAULT_IMAGE: &str = "base";
/// Name of the token file in the folder of the host's state.
pub const TOKEN_FILE: &str = "token";

/// What `ostler up` runs with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostConfig {
    /// Folder of the host's state; made when it is not there.
    pub data: PathBuf,
    /// Folder in which the host says where it is.
    pub runtime: PathBuf,
    /// Address of the API. Port 0 takes a free one.
    pub listen: SocketAddr,
    /// Further names by which the host may be addressed, without a port.
    pub allowed_hosts: Vec<String>,
    /// Web origins that may call the API.
    pub allowed_origins: Vec<String>,
    /// Model of a session that names none.
    pub model: String,
    /// Conversation that the scripted model plays.
    pub script: Option<PathBuf>,
    /// Image of every workspace.
    pub image: String,
    /// Folders of the plugins to load, in order.
    pub plugins: Vec<PathBuf>,
    /// Limits of every sandbox.
    pub limits: SandboxLimits,
}

/// Limits of a sandbox.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SandboxLimits {
    /// Memory; swap is off.
    pub memory: ByteSize,
    /// Processes and threads.
    pub pids: u32,
    /// Processor time.
    pub cpus: Cpus,
}

impl Default for SandboxLimits {
    /// Room for the tests of a small program, on a machine that runs several sandboxes.
    fn default() -> Self {
        Self { memory: ByteSize(2 << 30), pids: 1024, cpus: Cpus { millis: 2000 } }
    }
}

/// A number of bytes, written such as `512M` or `2GiB`; every unit is a power of 1,024.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ByteSize(pub u64);

/// Processor time per wall time, written in cores such as `1.5`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Cpus {
    /// Thousandths of a core.
    pub millis: u32,
}

/// A text that is not the quantity that was expected.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not {expected}")]
pub struct QuantityError {
    text: String,
    expected: &'static str,
}

impl FromStr for ByteSize {
    type Err = QuantityError;

    fn from_str(text: &str) -> Result<Self, QuantityError> {
        let error = || QuantityError { text: text.to_owned(), expected: "a size such as `512M` or `2G`" };
        let digits = text.bytes().take_while(u8::is_ascii_digit).count();
        let (number, unit) = text.split_at(digits);
        let unit = unit.to_ascii_lowercase();
        let shift = match unit.strip_suffix("ib").or(unit.strip_suffix('b')).unwrap_or(&unit) {
            "" => 0,
            "k" => 10,
            "m" => 20,
            "g" => 30,
            "t" => 40,
            _ => return Err(error()),
        };
        let number: u64 = number.parse().map_err(|_| error())?;
        number.checked_mul(1 << shift).filter(|bytes| *bytes > 0).map(Self).ok_or_else(error)
    }
}

impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let units = [("G", 30_u32), ("M", 20), ("K", 10)];
        match units.iter().find(|(_, shift)| self.0 > 0 && self.0.trailing_zeros() >= *shift) {
            Some((unit, shift)) => write!(f, "{}{unit}", self.0 >> shift),
            None => write!(f, "{}", self.0),
        }
    }
}

impl FromStr for Cpus {
    type Err = QuantityError;

    fn from_str(text: &str) -> Result<Self, QuantityError> {
        let cores: Option<f64> = text.parse().ok();
        match cores.map(|cores| (cores * 1000.0).round()) {
            // The kernel's smallest quota is 1 ms in 100 ms.
            Some(millis) if (10.0..=1_024_000.0).contains(&millis) => Ok(Self { millis: millis as u32 }),
            _ => Err(QuantityError { text: text.to_owned(), expected: "a number of cores such as `1.5`" }),
        }
    }
}

impl fmt::Display for Cpus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", f64::from(self.millis) / 1000.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_with_their_units() {
        for (text, bytes) in [("1", 1), ("4k", 4096), ("512M", 512 << 20), ("2GiB", 2 << 30), ("1tb", 1 << 40)] {
            assert_eq!(text.parse(), Ok(ByteSize(bytes)), "{text}");
        }
        for text in ["", "0", "M", "-1", "1.5G", "1 G", "1x", "99999999999T", "1gibb"] {
            assert!(text.parse::<ByteSize>().is_err(), "{text}");
        }
        assert_eq!(ByteSize(2 << 30).to_string(), "2G");
        assert_eq!(ByteSize(1536 << 20).to_string(), "1536M");
    }

    #[test]
    fn cores_are_read_in_thousandths() {
        assert_eq!("1.5".parse(), Ok(Cpus { millis: 1500 }));
        assert_eq!(Cpus { millis: 1500 }.to_string(), "1.5");
        for text in ["", "0", "-1", "NaN", "inf", "0.001", "two"] {
            assert!(text.parse::<Cpus>().is_err(), "{text}");
        }
    }
}
