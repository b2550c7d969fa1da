//! The document of the API as a judge: is what a host answered what the document says?
//!
//! Every answer that [`crate::Client`] gets is judged, so every functional test is a test of the document too.

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, LazyLock, Mutex, PoisonError};

use anyhow::{Context, Result, bail};
use jsonschema::Validator;
use serde_json::{Value, json};

/// The committed document.
pub static DOCUMENT: LazyLock<Result<Document>> = LazyLock::new(Document::load);

/// The document of the API.
pub struct Document {
    /// The document itself.
    pub value: Value,
    validators: Mutex<HashMap<String, Arc<Validator>>>,
}

/// An operation of the document.
#[derive(Clone, Copy, Debug)]
pub struct Operation<'a> {
    /// Its method, in capitals.
    pub method: &'a str,
    /// Its path, with names in braces.
    pub path: &'a str,
    /// What the document says of it.
    pub body: &'a Value,
}

/// The committed document.
pub fn document() -> Result<&'static Document> {
    DOCUMENT.as_ref().map_err(|error| anyhow::anyhow!("{error:#}"))
}

impl Document {
    fn load() -> Result<Self> {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/src/reference/openapi.json");
        let text = std::fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
        Ok(Self { value: serde_json::from_str(&text)?, validators: Mutex::default() })
    }

    /// Every operation.
    #[must_use]
    pub fn operations(&self) -> Vec<Operation<'_>> {
        let mut operations = Vec::new();
        for (path, item) in self.value["paths"].as_object().into_iter().flatten() {
            for (method, body) in item.as_object().into_iter().flatten() {
                let method = match method.as_str() {
                    "get" => "GET",
                    "put" => "PUT",
                    "post" => "POST",
                    "delete" => "DELETE",
                    other => other,
                };
                operations.push(Operation { method, path, body });
            }
        }
        operations
    }

    /// The operation that a request means; `None` where the document has no such path or method.
    #[must_use]
    pub fn operation(&self, method: &str, path: &str) -> Option<Operation<'_>> {
        let path = path.split('?').next().unwrap_or_default();
        let mut operations = self.operations().into_iter();
        // A path without names is meant before one whose name it could be.
        operations.find(|operation| operation.method == method && operation.path == path).or_else(|| {
            self.operations().into_iter().find(|operation| operation.method == method && fits(operation.path, path))
        })
    }

    /// Whether an answer is one that the document knows. Paths that are not in it are not judged.
    pub fn judge(&self, method: &str, path: &str, status: u16, kind: &str, body: &Value) -> Result<()> {
        let Some(operation) = self.operation(method, path) else { return Ok(()) };
        let what = format!("{method} {} answered {status} `{kind}`", operation.path);
        let response = self.resolve(&operation.body["responses"][status.to_string()]);
        if !response.is_object() {
            bail!("{what}, a status that the document does not know: {body}");
        }
        let content = &response["content"][kind];
        if !content.is_object() {
            bail!("{what}, a content type that the document does not know");
        }
        if kind != "application/json" {
            return Ok(());
        }
        self.check(&content["schema"], body).with_context(|| format!("{what}, which is not what the document says"))
    }

    /// Whether a value is of the type with this name.
    pub fn check_type(&self, name: &str, value: &Value) -> Result<()> {
        self.check(&json!({ "$ref": format!("#/components/schemas/{name}") }), value)
    }

    fn check(&self, schema: &Value, value: &Value) -> Result<()> {
        let validator = self.validator(schema)?;
        let errors: Vec<String> =
            validator.iter_errors(value).map(|error| format!("{} at `{}`", error, error.instance_path())).collect();
        if errors.is_empty() { Ok(()) } else { bail!("{}: {value}", errors.join("; ")) }
    }

    fn validator(&self, schema: &Value) -> Result<Arc<Validator>> {
        let mut validators = self.validators.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(validator) = validators.get(&schema.to_string()) {
            return Ok(Arc::clone(validator));
        }
        let whole = json!({ "allOf": [schema], "components": self.value["components"] });
        let built = jsonschema::draft202012::new(&whole).map_err(|error| anyhow::anyhow!("{schema}: {error}"))?;
        let built = Arc::new(built);
        validators.insert(schema.to_string(), Arc::clone(&built));
        Ok(built)
    }

    /// What a part of the document is, or refers to.
    #[must_use]
    pub fn resolve<'a>(&'a self, part: &'a Value) -> &'a Value {
        match part["$ref"].as_str() {
            Some(reference) => self.value.pointer(reference.trim_start_matches('#')).unwrap_or(&Value::Null),
            None => part,
        }
    }
}

/// Whether a path is one of those that a path with names stands for.
fn fits(named: &str, path: &str) -> bool {
    let (named, path): (Vec<&str>, Vec<&str>) = (named.split('/').collect(), path.split('/').collect());
    let same = |(named, part): (&&str, &&str)| named.starts_with('{') && !part.is_empty() || named == part;
    named.len() == path.len() && named.iter().zip(&path).all(same)
}
