//! How findings are shown: in wide and narrow terminals, and as JSON.

use crate::cli::doctor::render;
use crate::cli::terminal::Paint;
use crate::doctor::{Check, Report, State};

fn report() -> Report {
    let check = |id: &'static str, group, state, found: &str, fix: Option<&str>| Check {
        id,
        group,
        subject: None,
        state,
        found: found.into(),
        fix: fix.map(Into::into),
    };
    let reachable = check(
        "models.reachable",
        "models",
        State::Failed,
        "it refused the key (401): Incorrect \u{1b}[2Jkey provided",
        Some("check OPENAI_API_KEY, and start the host again"),
    );
    Report::new(vec![
        check("kernel.version", "kernel", State::Ok, "Linux 6.12.9", None),
        check("kernel.idmapped_mounts", "kernel", State::Skipped, "only root can try it", None),
        check(
            "images.age",
            "images",
            State::Warning,
            "imported 41 days ago: security updates since then are missing",
            Some(
                "ostler images import /srv/images/base-0123456789abcdef0123456789.tar --name base --data /var/lib/ostler",
            ),
        ),
        Check { subject: Some("openai".into()), ..reachable },
    ])
}

#[test]
fn findings_in_80_and_40_columns_and_as_json() {
    let plain = |columns| render(&report(), columns, Paint { enabled: false });
    let json = serde_json::to_string_pretty(&report()).unwrap();
    insta::assert_snapshot!(format!("{}───── 40 columns\n{}───── JSON\n{json}\n", plain(80), plain(40)));
}

#[test]
fn colour_adds_nothing_that_words_do_not_say() {
    let coloured = render(&report(), 80, Paint { enabled: true });
    let mut stripped = String::new();
    let mut rest = coloured.as_str();
    while let Some((before, after)) = rest.split_once("\u{1b}[") {
        stripped.push_str(before);
        rest = after.split_once('m').map_or("", |(_, rest)| rest);
    }
    stripped.push_str(rest);
    assert_ne!(coloured, stripped);
    assert_eq!(stripped, render(&report(), 80, Paint { enabled: false }));
}
