//! The table of times, computed from a session's events.

use crate::error::{Error, Result};
use crate::json::Value;

/// One line of the table: what happened, and when after the prompt was accepted, in milliseconds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// What happened.
    pub what: &'static str,
    /// Milliseconds after the prompt was accepted; negative for what was before.
    pub after_ms: i64,
}

/// Computes the table. An event that never happened is an error: the demo promises each of them.
///
/// # Errors
/// [`Error::Differs`] that names the missing event.
pub fn table(events: &[Value]) -> Result<Vec<Row>> {
    let first = |kind: &str| events.iter().find(|event| event.text("type") == Some(kind));
    let at = |kind: &str| {
        first(kind).and_then(|event| event.integer("at_ms")).ok_or_else(|| Error::Differs {
            what: "the session's log".to_owned(),
            expected: format!("an event `{kind}`"),
            found: format!("{} events, none of this kind", events.len()),
        })
    };
    let asked = at("model_requested")?;
    // The response is logged when it is complete; the time to its first token is inside it.
    at("model_responded")?;
    let to_first_token = first("model_responded").and_then(|event| event.integer("first_token_ms")).unwrap_or_default();
    let moments = [
        ("prompt accepted", at("prompt_submitted")?),
        ("workspace ready", at("workspace_ready")?),
        ("first model request", asked),
        ("first token", asked + to_first_token),
        ("first tool", at("tool_started")?),
        ("done", at("turn_finished")?),
        ("pull request open", at("pull_request_opened")?),
    ];
    let begin = moments[0].1;
    Ok(moments.into_iter().map(|(what, moment)| Row { what, after_ms: moment - begin }).collect())
}

/// The table as text: one aligned line per row.
pub fn show(rows: &[Row]) -> String {
    let lines = rows.iter().map(|row| format!("{:<22}{:>8} ms", row.what, row.after_ms));
    lines.collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::json;

    fn log(lines: &[&str]) -> Vec<Value> {
        lines.iter().map(|line| json::parse(line).unwrap()).collect()
    }

    const LOG: &[&str] = &[
        r#"{"seq":1,"at_ms":1000,"type":"session_created"}"#,
        r#"{"seq":2,"at_ms":1010,"type":"prompt_submitted"}"#,
        r#"{"seq":3,"at_ms":1011,"type":"workspace_requested"}"#,
        r#"{"seq":4,"at_ms":1150,"type":"workspace_ready","took_ms":139}"#,
        r#"{"seq":5,"at_ms":1160,"type":"model_requested","step":1}"#,
        r#"{"seq":6,"at_ms":1300,"type":"model_responded","step":1,"first_token_ms":15}"#,
        r#"{"seq":7,"at_ms":1302,"type":"tool_started"}"#,
        r#"{"seq":8,"at_ms":1400,"type":"model_requested","step":2}"#,
        r#"{"seq":9,"at_ms":1900,"type":"turn_finished","outcome":"done"}"#,
        r#"{"seq":10,"at_ms":1990,"type":"pull_request_opened"}"#,
    ];

    #[test]
    fn the_first_of_each_event_counts_from_the_prompt() {
        let rows = table(&log(LOG)).unwrap();
        let of: Vec<(&str, i64)> = rows.iter().map(|row| (row.what, row.after_ms)).collect();
        assert_eq!(
            of,
            [
                ("prompt accepted", 0),
                ("workspace ready", 140),
                ("first model request", 150),
                ("first token", 165),
                ("first tool", 292),
                ("done", 890),
                ("pull request open", 980),
            ]
        );
        assert!(show(&rows).ends_with("pull request open          980 ms"), "{}", show(&rows));
    }

    #[test]
    fn an_event_that_never_happened_is_named() {
        let without: Vec<&str> = LOG.iter().copied().filter(|line| !line.contains("pull_request_opened")).collect();
        let error = table(&log(&without)).unwrap_err();
        assert!(error.to_string().contains("pull_request_opened"), "{error}");
    }
}
