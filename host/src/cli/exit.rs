//! Exit codes, in one table. Those of errors of the API are in `ostler_protocol::ErrorCode`; a test keeps both alike.

/// A defect of ours.
pub const INTERNAL: u8 = 1;
/// The request was wrong.
pub const REQUEST: u8 = 3;
/// The host cannot do it now, or is not running.
pub const HOST: u8 = 6;
/// The agent's run failed.
pub const AGENT: u8 = 7;
/// The machine lacks something that is needed.
pub const ENVIRONMENT: u8 = 8;
/// A policy or the host refused.
pub const REFUSED: u8 = 5;
/// Ended by Ctrl-C.
pub const INTERRUPTED: u8 = 130;
/// Whoever read the output closed it.
pub const OUTPUT_CLOSED: u8 = 141;

/// The table as `--help` shows it.
pub const TABLE: &str = "\
Exit codes:
    0  done; for `run`: the turn is done and published, or there was nothing to publish
    1  a defect of Ostler
    2  wrong arguments
    3  the request or the configuration is wrong
    4  there is no such session, repository, branch or pull request
    5  refused: no token, not allowed, denied or halted by a policy
    6  the host is not running, or cannot do it now
    7  the agent's run failed, or a person stopped it
    8  the machine lacks something that is needed (root, git, a file)
  130  interrupted; the agent goes on
  141  the output was closed by its reader";

#[cfg(test)]
mod tests {
    use ostler_protocol::ErrorCode;

    use super::*;

    #[test]
    fn the_table_names_every_code_that_can_happen() {
        let ours = [0, 2, INTERNAL, REQUEST, HOST, AGENT, ENVIRONMENT, REFUSED, INTERRUPTED, OUTPUT_CLOSED];
        for code in ErrorCode::ALL.iter().map(|code| code.exit_code()).chain(ours) {
            assert!(TABLE.contains(&format!("\n{code:>5}  ")), "{code}");
        }
    }
}
