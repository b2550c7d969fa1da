//! Conversations for the scripted model.

/// A conversation of which every turn is given as TOML; the last one should have no calls.
#[must_use]
pub fn script(turns: &[&str]) -> String {
    let turns: Vec<String> = turns.iter().map(|turn| format!("[[turn]]\n{turn}\n")).collect();
    format!("version = 1\nmodel = \"test\"\n{}", turns.concat())
}

/// A turn that runs one command.
#[must_use]
pub fn shell(command: &str) -> String {
    format!("say = \"I run a command.\"\ncall = [{{ tool = \"shell\", arguments = {{ command = '''{command}''' }} }}]")
}

/// A conversation that runs commands, one in each turn.
#[must_use]
pub fn commands(commands: &[&str]) -> String {
    let mut turns: Vec<String> = commands.iter().map(|command| shell(command)).collect();
    turns.push(END.to_owned());
    script(&turns.iter().map(String::as_str).collect::<Vec<_>>())
}

/// A last turn.
pub const END: &str = "say = \"Done.\"";
