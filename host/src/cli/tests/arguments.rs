//! The words of the command line itself.

use clap::{CommandFactory, Parser};

use crate::cli::Arguments;
use crate::cli::args::{Command, PrCommand};
use crate::config::{ByteSize, Flag, KEYS, Value};

/// Every command that people see, the whole first, each before those below it.
pub fn commands(columns: usize) -> Vec<clap::Command> {
    let mut whole = Arguments::command().term_width(columns);
    whole.build();
    let mut commands = Vec::new();
    let mut waiting = vec![whole];
    while let Some(command) = waiting.pop() {
        if command.get_name() == "help" || command.is_hide_set() {
            continue;
        }
        waiting.extend(command.get_subcommands().cloned().collect::<Vec<_>>().into_iter().rev());
        commands.push(command);
    }
    commands
}

/// What every command says of itself, in so many columns.
fn help(columns: usize, show: impl Fn(&mut clap::Command) -> String) -> String {
    let one = |mut command: clap::Command| {
        let help = show(&mut command);
        format!("───── {}\n\n{help}\n", command.get_bin_name().unwrap_or("ostler"))
    };
    commands(columns).into_iter().map(one).collect()
}

#[test]
fn the_help_of_every_command() {
    insta::assert_snapshot!(help(100, |command| command.render_long_help().to_string()));
}

#[test]
fn the_short_help_of_every_command() {
    insta::assert_snapshot!(help(100, |command| command.render_help().to_string()));
}

#[test]
fn the_short_help_of_every_command_in_forty_columns() {
    insta::assert_snapshot!(help(40, |command| command.render_help().to_string()));
}

#[test]
fn the_help_of_every_command_in_forty_columns() {
    insta::assert_snapshot!(help(40, |command| command.render_long_help().to_string()));
}

#[test]
fn the_tree_is_sound() {
    Arguments::command().debug_assert();
}

#[test]
fn wrong_arguments_are_told_what_is_right() {
    let mut text = String::new();
    for words in [
        &["ostler"][..],
        &["ostler", "rnu"],
        &["ostler", "run"],
        &["ostler", "attach", "pr_01jd3kq4v5w6x7y8z9a0b1c2d3"],
        &["ostler", "attach", "01jd3kq4v5w6x7y8z9a0b1c2d3"],
        &["ostler", "diff", "ses_01jd3kq4v5w6x7y8z9a0b1c2d3x"],
        &["ostler", "pr", "show", "1"],
        &["ostler", "pr", "shwo"],
        &["ostler", "images", "imprt"],
        &["ostler", "plugins", "lst"],
        &["ostler", "sessions", "--jsno"],
        &["ostler", "prompt", "ses_01", "x", "--nowait"],
        &["ostler", "completions", "bahs"],
        &["ostler", "up", "--memory", "lots"],
        &["ostler", "up", "--listen", "everywhere"],
        &["ostler", "up", "--pids", "1"],
        &["ostler", "up", "--model", "gpt"],
        &["ostler", "up", "--allow-host", "a:80"],
        &["ostler", "config", "validate", "a.toml", "--config", "b.toml"],
        &["ostler", "pr"],
        &["ostler", "images", "import", "x.tar"],
    ] {
        let error = Arguments::try_parse_from(words).unwrap_err();
        assert_eq!(error.exit_code(), 2, "{words:?}");
        let first =
            error.to_string().lines().take_while(|line| !line.starts_with("Usage")).collect::<Vec<_>>().join("\n");
        text.push_str(&format!("$ {}\n{}\n\n", words.join(" "), first.trim_end()));
    }
    insta::assert_snapshot!(text);
}

#[test]
fn the_words_of_the_readme_are_understood() {
    let parse = |words: &str| Arguments::try_parse_from(words.split(' ')).map(|arguments| arguments.command).unwrap();
    let up = "ostler up --data /d --listen 127.0.0.1:0 --model scripted/demo --script s.toml --image base --plugin p --plugin q --memory 512M --cpus 1.5";
    let Command::Up(up) = parse(up) else { panic!() };
    let given = up.settings.given();
    let plugins = Value::List(vec!["p".into(), "q".into()]);
    assert!(given.contains(&Flag { key: "plugins.paths", value: plugins }), "{given:?}");
    assert!(given.contains(&Flag { key: "sandbox.memory", value: Value::Size(ByteSize(512 << 20)) }), "{given:?}");
    assert_eq!(given.len(), 8, "{given:?}");
    let Command::Run(run) = parse("ostler run --repo /r --branch b --name N --email e@x --model m prompt") else {
        panic!()
    };
    assert_eq!((run.prompt.as_str(), run.branch.as_deref()), ("prompt", Some("b")));
    let Command::Attach(attach) = parse("ostler attach ses_01jd3kq4v5w6x7y8z9a0b1c2d3 --json --follow-until-idle")
    else {
        panic!()
    };
    assert!(attach.json && attach.follow_until_idle);
    let Command::Pr(pr) = parse("ostler pr show pr_01jd3kq4v5w6x7y8z9a0b1c2d3 --json") else { panic!() };
    assert!(matches!(pr.command, PrCommand::Show { json: true, .. }));
    assert!(matches!(parse("ostler images import x.tar --name base --data /d"), Command::Images(_)));
    let probe = format!("ostler {} {{}}", crate::doctor::PROBE_VERB);
    assert!(matches!(parse(&probe), Command::InternalProbe(probe) if probe.plan == "{}"));
    assert!(matches!(parse("ostler internal-unpack {}"), Command::InternalUnpack(unpack) if unpack.plan == "{}"));
    assert!(matches!(parse("ostler internal-launcher {}"), Command::InternalLauncher(l) if l.configuration == "{}"));
}

#[test]
fn every_flag_of_up_sets_the_key_that_the_table_says() {
    let mut tree = Arguments::command();
    tree.build();
    let up = tree.find_subcommand("up").unwrap();
    let of_up = up.get_arguments().filter(|argument| !argument.is_global_set());
    let mut flags: Vec<String> = of_up.filter_map(|argument| Some(format!("--{}", argument.get_long()?))).collect();
    flags.retain(|flag| flag != "--help");
    flags.sort();
    let mut known: Vec<&str> = KEYS.iter().filter_map(|key| key.flag).collect();
    known.sort_unstable();
    assert_eq!(flags, known);
    for key in KEYS {
        let Some(flag) = key.flag else { continue };
        let text = key.example.trim_matches(['[', ']', '"']);
        let words = ["ostler", "up", flag, text];
        let Command::Up(up) = Arguments::try_parse_from(words).unwrap().command else { panic!() };
        assert_eq!(up.settings.given(), [Flag { key: key.path, value: key.kind.read(text).unwrap() }]);
    }
}
