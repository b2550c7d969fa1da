//! Pieces of a Markdown page that is made of the document.

use serde_json::Value;

/// The first lines of a page.
pub(super) fn heading(title: &str, words: &str) -> String {
    format!(
        "# {title}\n\n<!-- Made of openapi.json by a test of the host; change the code, then run it with UPDATE_DOCS=1. -->\n\n\
         {words}\n\n"
    )
}

/// A table; bars in cells are escaped.
pub(super) fn table(header: &[&str], rows: &[Vec<String>]) -> String {
    let line = |cells: Vec<String>| format!("| {} |\n", cells.join(" | "));
    let mut text = line(header.iter().map(|cell| (*cell).to_owned()).collect());
    text += &line(vec!["---".to_owned(); header.len()]);
    for row in rows {
        text += &line(row.iter().map(|cell| cell.replace('|', "\\|").replace('\n', " ")).collect());
    }
    text + "\n"
}

/// A block of code.
pub(super) fn code(language: &str, text: &str) -> String {
    format!("```{language}\n{}\n```\n\n", text.trim_end())
}

/// A value as people like to read it.
pub(super) fn json(value: &Value) -> String {
    code("json", &format!("{value:#}"))
}

pub(super) fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

/// The type of a schema in words; types of the document are named.
pub(super) fn kind(schema: &Value) -> String {
    if let Some(reference) = schema["$ref"].as_str() {
        return format!("`{}`", reference.rsplit('/').next().unwrap_or_default());
    }
    if let Some(values) = schema["enum"].as_array() {
        return values.iter().map(|value| format!("`{}`", text(value))).collect::<Vec<_>>().join(", ");
    }
    if let Some(choices) = schema["oneOf"].as_array() {
        return choices.iter().map(kind).collect::<Vec<_>>().join(" or ");
    }
    match &schema["type"] {
        Value::String(name) if name == "array" => format!("list of {}", kind(&schema["items"])),
        Value::String(name) => name.clone(),
        Value::Array(names) => names.iter().map(text).collect::<Vec<_>>().join(" or "),
        _ => "any JSON".to_owned(),
    }
}

/// The limits of a schema in words, in brackets where there are any.
pub(super) fn limits(schema: &Value) -> String {
    let number = |field: &str| schema[field].as_u64();
    let mut limits = Vec::new();
    match (number("minimum"), number("maximum")) {
        (Some(least), Some(most)) => limits.push(format!("{least} to {most}")),
        // What cannot be negative needs no words.
        (Some(0) | None, None) => {}
        (Some(least), None) => limits.push(format!("at least {least}")),
        (None, Some(most)) => limits.push(format!("at most {most}")),
    }
    if let (Some(least), Some(most)) = (number("minLength"), number("maxLength")) {
        limits.push(format!("{least} to {most} characters"));
    }
    if let Some(pattern) = schema["pattern"].as_str() {
        limits.push(format!("`{pattern}`"));
    }
    if limits.is_empty() { String::new() } else { format!("({})", limits.join(", ")) }
}

/// What a field means: its own words, or those beside the reference in it.
fn meaning(field: &Value) -> String {
    let inner = field["oneOf"].as_array().into_iter().flatten().find_map(|choice| choice["description"].as_str());
    field["description"].as_str().or(inner).unwrap_or_default().to_owned()
}

/// The fields of an object as a table, without those named in `without`.
pub(super) fn fields(schema: &Value, without: &[&str]) -> String {
    let Some(properties) = schema["properties"].as_object() else { return String::new() };
    let required: Vec<&str> = schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    let row = |(name, field): (&String, &Value)| {
        let presence = if required.contains(&name.as_str()) { "" } else { "optional" };
        let words = [meaning(field), limits(field)];
        let words = words.into_iter().filter(|words| !words.is_empty()).collect::<Vec<_>>().join(" ");
        vec![format!("`{name}`"), kind(field), presence.to_owned(), words]
    };
    let shown = properties.iter().filter(|(name, _)| !without.contains(&name.as_str()));
    let rows: Vec<Vec<String>> = shown.map(row).collect();
    if rows.is_empty() { String::new() } else { table(&["Field", "Type", "", "Means"], &rows) }
}
