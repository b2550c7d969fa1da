//! `ostler shell`: a terminal in a session's sandbox on the terminal of a person.
//!
//! ```text
//!  keys ─► /dev/tty, raw ─► binary frames ─►          ┌► `Ctrl-]`: leaves, the shell goes on
//!                                            WebSocket
//!  screen ◄─ stdout ◄────── binary frames ◄─          └► the end of the shell: its status
//! ```
//!
//! What the sandbox shows reaches the person's terminal as it is, as over ssh: that is what a shell is for.

use std::fs::File;
use std::io::{IsTerminal, Read};

use crossterm::terminal::{disable_raw_mode, enable_raw_mode};
use futures::{SinkExt, StreamExt};
use ostler_protocol::SessionId;
use ostler_protocol::processes::{CreateTerminal, FromTerminal, TerminalList, TerminalView, ToTerminal, Window};
use tokio::net::TcpStream;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::{Error, Message};

use super::args::OpenShell;
use super::client::{Client, refusal};
use super::output::Printer;
use super::{CliError, ids};

/// `Ctrl-]`, as telnet and virsh have it: no program that people use in a shell wants it for itself.
const LEAVE: u8 = 0x1d;

/// Bytes of the keyboard that are sent at once.
const KEYS: usize = 4096;

/// What programs of a shell switch on and cannot switch off once it is left, in the order in which it must be undone. (xterm's
/// control sequences, and those of kitty that others have taken over; a terminal ignores those that it does not know.)
const RESET: &[u8] = concat!(
    // A sequence that broke off in the middle would swallow what follows.
    "\x18\x1b\\",
    // A screen that is held back; the other screen. That takes the cursor where it was saved: to where it is, where there is
    // no other screen, because each screen has a place of its own to save it.
    "\x1b[?2026l\x1b7\x1b[?1049l",
    // The mouse: every way to report it, every way to write it down; reports of the focus.
    "\x1b[?9l\x1b[?1000l\x1b[?1001l\x1b[?1002l\x1b[?1003l\x1b[?1004l\x1b[?1005l\x1b[?1006l\x1b[?1015l\x1b[?1016l",
    // Bracketed paste; keys as programs want them: arrows, keypad, modifiers, kitty's protocol.
    "\x1b[?2004l\x1b[?1l\x1b>\x1b[>4;0m\x1b[=0u",
    // Lines: no scroll region and no origin of its own, which would move the cursor; wrapped, not inserted.
    "\x1b7\x1b[?6l\x1b[?69l\x1b[r\x1b8\x1b[?6l\x1b[?7h\x1b[4l\x1b[20l",
    // Characters: ASCII, no attributes, no colours, no link, the palette of before.
    "\x0f\x1b(B\x1b[0m\x1b[?5l\x1b]8;;\x1b\\\x1b]104\x1b\\\x1b]110\x1b\\\x1b]111\x1b\\\x1b]112\x1b\\",
    // The cursor: shown, in its usual form.
    "\x1b[?25h\x1b[0 q",
)
.as_bytes();

/// The size of a terminal that does not tell it.
const WINDOW: Window = Window { rows: 24, columns: 80 };

pub(super) async fn execute(asked: OpenShell, client: &Client, printer: &mut Printer) -> Result<(), CliError> {
    if !printer.screen || !std::io::stdin().is_terminal() {
        return Err(CliError::NoTerminal);
    }
    let session = ids::session(asked.session, client).await?;
    open(session, &asked.name, client).await?;
    let lost = |why: String| CliError::Shell { why, session };
    let socket = connect(session, &asked.name, client).await?;
    printer.note(&format!("`{}` in {session}; Ctrl-] leaves it", asked.name));
    let raw = Raw::enter().map_err(|error| lost(error.to_string()))?;
    let left = run(socket, printer).await;
    printer.shown(RESET)?;
    drop(raw);
    match left.map_err(lost)? {
        Left::ByKey => printer.note(&format!("\nleft; `ostler shell {session} --name {}` comes back", asked.name)),
        Left::Exited(Some(status)) if status != 0 => printer.note(&format!("the shell ended with status {status}")),
        Left::Exited(_) => printer.note("the shell ended"),
        Left::Told(why) => return Err(lost(why)),
    }
    Ok(())
}

/// Opens the terminal where it is not open; one whose shell has ended makes room for a new one.
async fn open(session: SessionId, name: &str, client: &Client) -> Result<(), CliError> {
    let id = session.to_string();
    let path = ["sessions", &id, "terminals"];
    let found: TerminalList = client.get("list the terminals", &path).await?;
    match found.terminals.iter().find(|terminal| terminal.name == name) {
        Some(terminal) if terminal.exit_status.is_none() => return Ok(()),
        Some(_) => {
            let path = ["sessions", &id, "terminals", name];
            let _: TerminalView = client.delete("close the terminal", &path).await?;
        }
        None => {}
    }
    let asked = CreateTerminal { name: Some(name.to_owned()), window: size(), author: None };
    let _: TerminalView = client.post("open the terminal", &path, &asked).await?;
    Ok(())
}

async fn connect(session: SessionId, name: &str, client: &Client) -> Result<WebSocketStream<TcpStream>, CliError> {
    let lost = |why: &dyn std::fmt::Display| CliError::Shell { why: why.to_string(), session };
    client.still_the_host()?;
    let address = client.socket_address(&["sessions", &session.to_string(), "terminals", name, "attach"]);
    let mut request = address.as_str().into_client_request().map_err(|error| lost(&error))?;
    let token = format!("Bearer {}", client.token().expose());
    let token = token.parse().map_err(|_| lost(&"the token fits no header"))?;
    request.headers_mut().insert("authorization", token);
    let host = address.host_str().unwrap_or_default().trim_start_matches('[').trim_end_matches(']');
    let port = address.port_or_known_default().unwrap_or_default();
    let connected = async {
        let stream = TcpStream::connect((host, port)).await.map_err(|error| lost(&error))?;
        stream.set_nodelay(true).map_err(|error| lost(&error))?;
        match tokio_tungstenite::client_async(request, stream).await {
            Ok((socket, _)) => Ok(socket),
            Err(Error::Http(answer)) => {
                let body = answer.body().as_deref().unwrap_or_default();
                Err(refusal("open the shell", answer.status(), body))
            }
            Err(error) => Err(lost(&error)),
        }
    };
    let waited = tokio::time::timeout(std::time::Duration::from_secs(15), connected).await;
    waited.unwrap_or_else(|_| Err(lost(&"the host did not answer in time")))
}

/// How a shell was left.
enum Left {
    ByKey,
    Exited(Option<i32>),
    Told(String),
}

async fn run(mut socket: WebSocketStream<TcpStream>, printer: &mut Printer) -> Result<Left, String> {
    let words = |error: &dyn std::fmt::Display| error.to_string();
    let mut keyboard = keyboard().map_err(|error| words(&error))?;
    let mut resized = signal(SignalKind::window_change()).map_err(|error| words(&error))?;
    let mut ended = signal(SignalKind::terminate()).map_err(|error| words(&error))?;
    let mut told = None;
    send_size(&mut socket).await?;
    loop {
        tokio::select! {
            keys = keyboard.recv() => {
                let Some(keys) = keys else { return Ok(Left::ByKey) };
                let before = keys.iter().position(|key| *key == LEAVE);
                let typed = keys[..before.unwrap_or(keys.len())].to_vec();
                socket.send(Message::Binary(typed.into())).await.map_err(|error| words(&error))?;
                if before.is_some() {
                    // Whether the host hears the farewell does not matter.
                    let _ = socket.close(None).await;
                    return Ok(Left::ByKey);
                }
            }
            _ = resized.recv() => send_size(&mut socket).await?,
            _ = ended.recv() => return Ok(Left::Told("this program was told to end".to_owned())),
            said = socket.next() => match said {
                Some(Ok(Message::Binary(bytes))) => printer.shown(&bytes).map_err(|error| words(&error))?,
                Some(Ok(Message::Text(text))) => match serde_json::from_str(&text) {
                    Ok(FromTerminal::Exited { exit_status }) => return Ok(Left::Exited(exit_status)),
                    Ok(FromTerminal::Error { message }) => told = Some(message),
                    // A newer host says more than we know.
                    Err(_) => {}
                },
                Some(Ok(Message::Close(_))) | None => {
                    return Ok(Left::Told(told.unwrap_or_else(|| "the host closed the connection".to_owned())));
                }
                Some(Ok(_)) => {}
                Some(Err(error)) => return Err(words(&error)),
            },
        }
    }
}

async fn send_size(socket: &mut WebSocketStream<TcpStream>) -> Result<(), String> {
    let Window { rows, columns } = size();
    let text = serde_json::to_string(&ToTerminal::Resize { rows, columns }).map_err(|error| error.to_string())?;
    socket.send(Message::Text(text.into())).await.map_err(|error| error.to_string())
}

fn size() -> Window {
    match crossterm::terminal::size() {
        Ok((columns @ 1.., rows @ 1..)) => Window { rows, columns },
        _ => WINDOW,
    }
}

/// What is typed, piece by piece; closed at the end of the terminal.
///
/// Read by a thread that ends with the process: nothing else can wait for a terminal without changing it for everybody
/// who has it.
fn keyboard() -> std::io::Result<mpsc::Receiver<Vec<u8>>> {
    let mut terminal = File::open("/dev/tty")?;
    let (typed, keys) = mpsc::channel(8);
    std::thread::Builder::new().name("keyboard".to_owned()).spawn(move || {
        let mut piece = vec![0; KEYS];
        while let Ok(count @ 1..) = terminal.read(&mut piece) {
            if typed.blocking_send(piece[..count].to_vec()).is_err() {
                return;
            }
        }
    })?;
    Ok(keys)
}

/// The terminal in raw mode, and back when this is dropped.
struct Raw;

impl Raw {
    fn enter() -> std::io::Result<Self> {
        enable_raw_mode().map(|()| Self)
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        // Where this fails there is no terminal any more.
        let _ = disable_raw_mode();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::ApiToken;
    use crate::api::tests::fake::{SESSION, TOKEN, TestHost};

    #[tokio::test]
    async fn what_the_host_says_against_a_shell_reaches_the_person() {
        let host = TestHost::new();
        let (address, _) = host.listen("127.0.0.1:0").await;
        let client = Client::at(&format!("http://{address}"), ApiToken::parse(TOKEN).unwrap()).unwrap();
        let refused = connect(SESSION.parse().unwrap(), "main", &client).await.err();
        assert!(
            matches!(&refused, Some(CliError::Api(error)) if error.message == "there is no sandbox that runs"),
            "{refused:?}"
        );
    }
}
