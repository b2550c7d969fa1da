//! `ostler attach` on a real terminal, against a real host.

use std::fs::File;
use std::io::{Read, Write};
use std::process::{Child, Command, ExitStatus};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use ostler_tests::Host;
use ostler_tests::client::PATIENCE;
use ostler_tests::script::{END, script, shell};
use rustix::process::Signal;
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{LocalModes, Winsize, tcgetattr, tcsetwinsize};

/// A program on a pseudo-terminal, and what a person sees of it.
pub(super) struct Terminal {
    child: Child,
    master: File,
    slave: File,
    seen: Arc<(Mutex<vt100::Parser>, Condvar)>,
}

impl Terminal {
    pub(super) fn start(command: &Command, columns: u16, rows: u16) -> Result<Self> {
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY)?;
        grantpt(&master)?;
        unlockpt(&master)?;
        let name = ptsname(&master, Vec::new())?.into_string()?;
        let slave = File::options().read(true).write(true).open(&name)?;
        tcsetwinsize(&slave, winsize(columns, rows))?;
        // A session of its own: the program must not find the terminal of the person who runs the tests.
        let mut alone = Command::new("setsid");
        alone.arg("--ctty").arg(command.get_program()).args(command.get_args()).env("TERM", "xterm-256color");
        for (name, value) in command.get_envs() {
            match value {
                Some(value) => alone.env(name, value),
                None => alone.env_remove(name),
            };
        }
        let child = alone.stdin(slave.try_clone()?).stdout(slave.try_clone()?).stderr(slave.try_clone()?).spawn()?;
        let master = File::from(master);
        let seen = Arc::new((Mutex::new(vt100::Parser::new(rows, columns, 0)), Condvar::new()));
        let (mut reader, fed) = (master.try_clone()?, seen.clone());
        std::thread::spawn(move || {
            let mut bytes = [0; 4096];
            while let Ok(count @ 1..) = reader.read(&mut bytes) {
                fed.0.lock().unwrap_or_else(PoisonError::into_inner).process(&bytes[..count]);
                fed.1.notify_all();
            }
        });
        Ok(Self { child, master, slave, seen })
    }

    fn parser(&self) -> MutexGuard<'_, vt100::Parser> {
        self.seen.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn send(&mut self, keys: &str) -> Result<()> {
        self.master.write_all(keys.as_bytes()).context("press keys")
    }

    pub(super) fn resize(&mut self, columns: u16, rows: u16) -> Result<()> {
        self.parser().screen_mut().set_size(rows, columns);
        tcsetwinsize(&self.slave, winsize(columns, rows)).context("resize the terminal")
    }

    /// Waits until the screen is as it should be; gives what is on it.
    fn wait_for(&self, what: &str, there: impl Fn(&vt100::Screen) -> bool) -> Result<String> {
        let deadline = Instant::now() + PATIENCE;
        let mut parser = self.parser();
        while !there(parser.screen()) {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                bail!("{what} was not seen:\n{}", parser.screen().contents());
            }
            parser = self.seen.1.wait_timeout(parser, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        Ok(parser.screen().contents())
    }

    pub(super) fn wait_for_text(&self, text: &str) -> Result<String> {
        self.wait_for(text, |screen| screen.contents().contains(text))
    }

    /// SIGTERM.
    pub(super) fn tell_to_end(&self) -> Result<()> {
        ostler_tests::host::send_signal(self.child.id(), Signal::TERM)
    }

    /// Whether the whole screen scrolls: writes two lines at its end.
    pub(super) fn scrolls(&self) -> bool {
        let mut parser = self.parser();
        let (rows, columns) = parser.screen().size();
        parser.process(format!("\x1b[{rows};1Hlast\r\nafter it").as_bytes());
        parser.screen().rows(0, columns).nth(usize::from(rows) - 2).is_some_and(|row| row == "last")
    }

    /// Waits for the end of the program; the terminal must be as it was before.
    pub(super) fn ended(&mut self) -> Result<ExitStatus> {
        let deadline = Instant::now() + PATIENCE;
        let status = loop {
            if let Some(status) = self.child.try_wait()? {
                break status;
            }
            anyhow::ensure!(Instant::now() < deadline, "`attach` did not end");
            std::thread::sleep(Duration::from_millis(10));
        };
        let modes = tcgetattr(&self.slave)?.local_modes;
        assert!(modes.contains(LocalModes::ICANON | LocalModes::ECHO | LocalModes::ISIG), "{modes:?}");
        self.wait_for("the screen of before", is_as_before)?;
        Ok(status)
    }
}

/// Whether nothing of what a program may switch on is left.
fn is_as_before(screen: &vt100::Screen) -> bool {
    let shows = !screen.alternate_screen() && !screen.hide_cursor();
    let keys = !screen.bracketed_paste() && !screen.application_cursor() && !screen.application_keypad();
    let mouse = screen.mouse_protocol_mode() == vt100::MouseProtocolMode::None
        && screen.mouse_protocol_encoding() == vt100::MouseProtocolEncoding::Default;
    let plain = screen.fgcolor() == vt100::Color::Default && screen.bgcolor() == vt100::Color::Default;
    shows && keys && mouse && plain && !screen.bold() && !screen.inverse() && !screen.underline()
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // After a failed test it may still run.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn winsize(columns: u16, rows: u16) -> Winsize {
    Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 }
}

fn attach(host: &Host, session: &str) -> Result<Terminal> {
    let command = host.command(&["attach", session, "--name", "Test Person", "--email", "person@example.org"])?;
    Terminal::start(&command, 80, 24)
}

#[tokio::test]
async fn a_session_is_watched_and_prompted_on_a_screen() -> Result<()> {
    let turns = script(&[&shell("printf 'first\\nlast \\033[31mline\\n'; exit 3"), END, "say = \"Again.\"", END]);
    let (host, session) = Host::with_session(turns).await?;
    let mut terminal = attach(&host, &session.to_string())?;
    terminal.wait_for_text("live · idle")?;
    // Several rows by Ctrl-J, a paste with a line break, characters of several bytes and columns.
    terminal.send("Look at\n\u{1b}[200~日本\rfile\u{1b}[201~, plé\u{7f}ease")?;
    terminal.wait_for_text("  file, please")?;
    terminal.send("\r")?;
    terminal.wait_for_text("✗ exit 3")?;
    terminal.wait_for_text("live · done")?;
    let events = host.client.wait_until_idle(session).await?;
    let prompt = events.iter().find_map(|event| match &event.body {
        ostler_protocol::EventBody::PromptSubmitted { text, author, .. } => Some((text.clone(), author.name.clone())),
        _ => None,
    });
    assert_eq!(prompt, Some(("Look at\n日本\nfile, please".to_owned(), "Test Person".to_owned())));

    // The call is opened; what it wrote steers nothing.
    terminal.send("\u{1b}[Z\r")?;
    terminal.wait_for_text("last ^[[31mline")?;
    terminal.resize(40, 10)?;
    let small = terminal.wait_for("the small screen", |screen| {
        screen.rows(0, 40).nth(8).is_some_and(|row| row.contains("live · done · Look at"))
    })?;
    assert!(small.lines().count() <= 10, "{small}");

    terminal.send("not finished")?;
    terminal.wait_for_text("> not finished")?;
    terminal.send("\u{3}")?;
    assert_eq!(terminal.ended()?.code(), Some(130));
    let left = terminal.wait_for_text("ostler stop")?;
    assert!(left.contains("this was not sent:\nnot finished"), "{left}");
    Ok(())
}

#[tokio::test]
async fn a_host_that_dies_is_waited_for_and_a_turn_can_be_stopped() -> Result<()> {
    let (mut host, session) = Host::with_session(script(&[&shell("sleep 300"), END])).await?;
    let address = host.client.url.trim_start_matches("http://").to_owned();
    let mut terminal = attach(&host, &session.to_string())?;
    host.client.prompt(session, "work").await?;
    terminal.wait_for_text("… running")?;
    terminal.send("draft")?;
    host.kill()?;
    terminal.wait_for_text("reconnecting")?;
    host.launch_at(&address).await?;
    terminal.wait_for_text("live · working")?;
    terminal.send("\u{18}")?;
    terminal.wait_for_text("Stop the turn?")?;
    terminal.send("y")?;
    let stopped = terminal.wait_for_text("live · stopped")?;
    assert!(stopped.contains("> draft"), "{stopped}");
    terminal.tell_to_end()?;
    assert_eq!(terminal.ended()?.code(), Some(130));
    Ok(())
}

#[tokio::test]
async fn a_terminal_that_can_do_little_gets_lines() -> Result<()> {
    let (host, session) = Host::with_session(script(&[END])).await?;
    host.client.prompt(session, "work").await?;
    host.client.wait_until_idle(session).await?;
    let mut command = host.command(&["attach", &session.to_string(), "--plain"])?;
    command.env("TERM", "xterm");
    let mut terminal = Terminal::start(&command, 80, 24)?;
    terminal.wait_for_text("nothing to publish")?;
    assert!(!terminal.parser().screen().alternate_screen());
    terminal.send("\u{3}")?;
    assert_eq!(terminal.ended()?.code(), Some(130));
    Ok(())
}

#[tokio::test]
async fn a_session_that_is_not_there_is_told_without_a_screen() -> Result<()> {
    let (host, _) = Host::with_session(script(&[END])).await?;
    let mut terminal = attach(&host, "ses_01jd3kq4v5w6x7y8z9a0b1c2d3")?;
    assert_eq!(terminal.ended()?.code(), Some(4));
    terminal.wait_for_text("there is no session")?;
    Ok(())
}
