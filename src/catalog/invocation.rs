//! What a request to an API destination has beside its payload: fixed by target and connection, or taken from the event.
//!
//! In: parameters. Out: what an event gives for them, as a text that goes along with the delivery. Promises: pure.
//! Leaves to others: addresses, headers and bodies made of it (`deliver`).

use super::Secret;
use crate::transform::JsonPath;
use serde_json::{Map, Value};

/// Parameters of a target and of its connection, where they set the same already those of the connection alone.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Invocation {
    /// The API destination's ARN: whatever leads to it shares its rate.
    pub destination: String,
    /// Fill the `*` of the address's path, in this order; what is left over becomes further segments.
    pub path: Vec<Parameter>,
    /// Headers from the event; fixed ones are those of [`super::HttpTarget`].
    pub headers: Vec<(String, JsonPath)>,
    /// Join the query of the address.
    pub query: Vec<(String, Parameter)>,
    /// Members of a body that is a JSON object.
    pub body: Vec<(String, Secret)>,
}

/// A value.
#[derive(Debug, Clone, PartialEq)]
pub enum Parameter {
    /// The same for every event.
    Fixed(Secret),
    /// A part of the event as it came.
    Path(JsonPath),
}

impl Parameter {
    /// A text; it is a path where the whole of it is one.
    pub fn parse(text: &str) -> Self {
        // `$` alone is more often a sign of money than the whole event.
        let path = Some(text).filter(|text| text.starts_with("$.") || text.starts_with("$["));
        match path.and_then(|text| JsonPath::parse(text).ok()) {
            Some(path) => Self::Path(path),
            None => Self::Fixed(Secret::new(text)),
        }
    }

    fn path(&self) -> Option<&JsonPath> {
        match self {
            Self::Fixed(_) => None,
            Self::Path(path) => Some(path),
        }
    }
}

impl Invocation {
    /// Whether requests differ by event in more than the payload.
    pub fn takes(&self) -> bool {
        let parameters = self.path.iter().chain(self.query.iter().map(|(_, value)| value));
        !self.headers.is_empty() || parameters.into_iter().any(|parameter| parameter.path().is_some())
    }

    /// What an event gives, as `{"path":[...],"headers":{...},"query":{...}}`; `value` is what it has at a path. A header
    /// or a part of the query that it has nothing for is left out.
    ///
    /// # Errors
    /// Nothing for the address's path, which would lead elsewhere without it; or a header that would end in the middle.
    pub fn taken(&self, value: impl Fn(&JsonPath) -> Option<String>) -> Result<String, String> {
        let paths = self.path.iter().filter_map(Parameter::path);
        let path = paths.map(|path| {
            let found = value(path).filter(|text| !text.is_empty());
            found.map(Value::String).ok_or_else(|| format!("the event has nothing at {path} for the address's path"))
        });
        let path = path.collect::<Result<Vec<_>, _>>()?;
        let mut headers = Map::new();
        for (name, path) in &self.headers {
            let Some(text) = value(path) else { continue };
            if text.contains(|c: char| c.is_control() && c != '\t') {
                return Err(format!(
                    "the event's value at {path} has a control character, so it cannot be header {name}"
                ));
            }
            headers.insert(name.clone(), text.into());
        }
        let found = |(name, parameter): &(String, Parameter)| Some((name.clone(), value(parameter.path()?)?.into()));
        let query: Map<_, _> = self.query.iter().filter_map(found).collect();
        Ok(serde_json::json!({ "path": path, "headers": headers, "query": query }).to_string())
    }
}
