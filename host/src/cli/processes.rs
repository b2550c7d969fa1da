//! `ostler process`, `ports` and `preview`: what runs in a session's sandbox beside the agent.

use std::time::Duration;

use ostler_protocol::processes::{
    CreatePreview, PortList, PortView, PreviewView, ProcessList, ProcessOutput, ProcessView, StartProcess,
};

use super::args::{Ports, Preview, Process, ProcessCommand};
use super::client::Client;
use super::output::Printer;
use super::terminal::{clean, duration, one_line};
use super::{CliError, ids, table};

/// Pause between two looks at the output of a command that is followed.
const LOOK: Duration = Duration::from_millis(300);

/// Longest beginning of a command line in a list, in characters.
const COMMAND: usize = 60;

pub(super) async fn execute(process: Process, client: &Client, printer: &mut Printer) -> Result<(), CliError> {
    match process.command {
        ProcessCommand::Start { session, command, name, json } => {
            let session = ids::session(session, client).await?.to_string();
            let asked = StartProcess { name, command, author: None };
            let started: ProcessView =
                client.post("start the command", &["sessions", &session, "processes"], &asked).await?;
            if json {
                return printer.json(&started);
            }
            let name = &started.name;
            printer.note(&format!("`{name}` runs; `ostler process output {session} {name}` shows what it writes"));
            Ok(())
        }
        ProcessCommand::List { session, json } => {
            let session = ids::session(session, client).await?.to_string();
            let found: ProcessList = client.get("list the commands", &["sessions", &session, "processes"]).await?;
            if json {
                return printer.json(&found);
            }
            if found.processes.is_empty() {
                printer.note("no command runs in the background of this session");
                return Ok(());
            }
            printer.data(&rows(&found.processes))?;
            for process in &found.processes {
                if let Some(why) = process.service.as_ref().and_then(|service| service.why.as_deref()) {
                    printer.note(&format!("service `{}`: {}", clean(&process.name), clean(why)));
                }
            }
            Ok(())
        }
        ProcessCommand::Output { session, name, follow } => {
            let session = ids::session(session, client).await?.to_string();
            output(&session, &name, follow, client, printer).await
        }
        ProcessCommand::Restart { session, name, json } => {
            let session = ids::session(session, client).await?.to_string();
            let path = ["sessions", &session, "processes", &name, "restart"];
            let started: ProcessView = client.post("start the service", &path, &serde_json::json!({})).await?;
            if json {
                return printer.json(&started);
            }
            printer.note(&format!("`{}` was started; it is {} now", clean(&started.name), service_state(&started)));
            Ok(())
        }
        ProcessCommand::Stop { session, name, json } => {
            let session = ids::session(session, client).await?.to_string();
            let path = ["sessions", &session, "processes", &name, "stop"];
            let ended: ProcessView = client.post("stop the command", &path, &serde_json::json!({})).await?;
            if json {
                return printer.json(&ended);
            }
            let how = if ended.service.is_some() { service_state(&ended) } else { state(&ended) };
            printer.note(&format!("`{}` {how}", clean(&ended.name)));
            Ok(())
        }
    }
}

/// Prints what is kept, and what still comes where it is followed.
async fn output(
    session: &str,
    name: &str,
    follow: bool,
    client: &Client,
    printer: &mut Printer,
) -> Result<(), CliError> {
    let path = ["sessions", session, "processes", name, "output"];
    let mut offset = 0;
    // What comes meanwhile is for those who follow.
    let mut enough = None;
    loop {
        let piece: ProcessOutput =
            client.query("read the output of the command", &path, &format!("offset={offset}")).await?;
        if piece.offset > offset {
            let lost = piece.offset - offset;
            printer.warning(&format!("{lost} bytes are not kept any more"));
        }
        printer.foreign(&piece.output)?;
        let goes_on = piece.next_offset > offset;
        offset = piece.next_offset;
        let enough = *enough.get_or_insert(piece.written);
        if goes_on && offset < if follow { piece.written } else { enough } {
            continue;
        }
        if let Some(status) = piece.exit_status {
            printer.note(&format!("`{name}` has ended with status {status}"));
            return Ok(());
        }
        if !follow {
            return Ok(());
        }
        tokio::time::sleep(LOOK).await;
    }
}

fn rows(processes: &[ProcessView]) -> String {
    let row = |process: &ProcessView| {
        [clean(&process.name), state(process), duration(process.age_ms), one_line(&process.command, COMMAND)]
    };
    table::render(["NAME", "STATE", "STARTED", "COMMAND"], processes.iter().map(row))
}

fn service_state(process: &ProcessView) -> String {
    process.service.as_ref().map_or_else(String::new, |service| service.state.as_str().to_owned())
}

fn state(process: &ProcessView) -> String {
    if let Some(service) = &process.service {
        return format!("service, {}", service.state.as_str());
    }
    process.exit_status.map_or_else(|| "runs".to_owned(), |status| format!("ended ({status})"))
}

pub(super) async fn ports(asked: Ports, client: &Client, printer: &mut Printer) -> Result<(), CliError> {
    let session = ids::session(asked.session, client).await?.to_string();
    let found: PortList = client.get("list the ports", &["sessions", &session, "ports"]).await?;
    if asked.json {
        return printer.json(&found);
    }
    if found.ports.is_empty() {
        printer.note("nothing listens in the sandbox of this session");
        return Ok(());
    }
    let row = |port: &PortView| {
        let process = port.process.as_deref().map_or_else(|| "-".to_owned(), clean);
        [port.port.to_string(), clean(&port.address), process]
    };
    printer.data(&table::render(["PORT", "ADDRESS", "PROCESS"], found.ports.iter().map(row)))?;
    if found.truncated {
        printer.warning("there are more ports than the host lists");
    }
    Ok(())
}

pub(super) async fn preview(asked: Preview, client: &Client, printer: &mut Printer) -> Result<(), CliError> {
    let session = ids::session(asked.session, client).await?.to_string();
    let request = CreatePreview { port: asked.port };
    let preview: PreviewView = client.post("make the preview", &["sessions", &session, "previews"], &request).await?;
    if asked.json {
        return printer.json(&preview);
    }
    printer.line(&clean(&preview.url))?;
    printer.note("open it in a browser on the host's machine; whoever has the address can use it for 8 hours");
    Ok(())
}

#[cfg(test)]
mod tests {
    use ostler_protocol::processes::ServiceState;
    use ostler_protocol::processes::ServiceView;

    use super::*;

    #[test]
    fn commands_are_rows_that_no_name_can_break() {
        let process = |name: &str, exit_status| ProcessView {
            name: name.into(),
            command: "npm start\nrm -rf \u{1b}[2J".into(),
            exit_status,
            age_ms: 61_000,
            written: 0,
            kept_from: 0,
            service: None,
        };
        let service = ServiceView { state: ServiceState::Starting, why: None, restarts: 0 };
        let service = ProcessView { service: Some(service), ..process("database", None) };
        insta::assert_snapshot!(rows(&[service, process("web", None), process("build", Some(2))]), @r"
        NAME      STATE              STARTED    COMMAND
        database  service, starting  1 min 1 s  npm start … (+1 lines)
        web       runs               1 min 1 s  npm start … (+1 lines)
        build     ended (2)          1 min 1 s  npm start … (+1 lines)
        ");
    }
}
