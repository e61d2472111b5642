//! The model of the EventBridge API: which members an action has, and the bounds of their types.
//!
//! In: a request's members. Out: what is wrong with them, all of it together, in the service's words. Promises: one
//! table, `model.txt`, for all actions. Leaves to others: rules between members, and what a request does.

use super::wire::ApiError;
use regex::{Regex, RegexBuilder};
use serde_json::{Map, Value};
use std::collections::HashMap;
use std::sync::{LazyLock, OnceLock};

/// Members by name.
pub type Members = Map<String, Value>;

/// Bytes that a pattern's automaton may take a thread.
const CACHE_BYTES: usize = 16 << 10;
/// Bytes of a value that a message shows, and of violations that one answer tells; the rest of them are counted.
const SHOWN_BYTES: usize = 8 << 10;
const TOLD_BYTES: usize = 64 << 10;

/// The model of every action.
#[derive(Default)]
pub struct Model {
    actions: HashMap<String, Vec<Member>>,
    types: HashMap<String, Type>,
}

struct Member {
    name: String,
    required: bool,
    shape: Shape,
}

enum Shape {
    Named(String),
    String,
    Boolean,
    Integer,
    Timestamp,
    List(Box<Shape>, Bounds),
    Map(Box<Shape>, Box<Shape>),
}

enum Type {
    Structure(Vec<Member>),
    String(Text),
    Number(Bounds),
    Enum(Vec<String>),
}

struct Text {
    bounds: Bounds,
    pattern: Option<(String, OnceLock<Option<Regex>>)>,
    secret: bool,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Bounds {
    least: Option<i64>,
    most: Option<i64>,
}

static MODEL: LazyLock<Model> = LazyLock::new(|| {
    Model::read(include_str!("model.txt")).unwrap_or_else(|why| {
        tracing::error!("the model of the API cannot be read, which is a bug: {why}");
        Model::default()
    })
});

/// The model.
pub fn model() -> &'static Model {
    &MODEL
}

impl Model {
    /// Reads the table.
    ///
    /// # Errors
    /// The line that is none, or the type that is missing.
    pub fn read(text: &str) -> Result<Self, String> {
        let mut model = Self::default();
        for line in text.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
            let bad = || format!("not a line of the model: {line}");
            let mut words = line.splitn(3, ' ');
            let (kind, name, rest) =
                (words.next().ok_or_else(bad)?, words.next().ok_or_else(bad)?, words.next().ok_or_else(bad)?);
            let structure = rest.strip_prefix("{ ").and_then(|rest| rest.strip_suffix(" }"));
            match (kind, structure) {
                ("action", Some(members)) => {
                    model.actions.insert(name.to_owned(), read_members(members).ok_or_else(bad)?);
                }
                ("type", Some(members)) => {
                    model.types.insert(name.to_owned(), Type::Structure(read_members(members).ok_or_else(bad)?));
                }
                ("type", None) => {
                    model.types.insert(name.to_owned(), read_type(rest).ok_or_else(bad)?);
                }
                _ => return Err(bad()),
            }
        }
        model.whole().map(|()| model)
    }

    /// Names of all actions.
    pub fn actions(&self) -> impl Iterator<Item = &str> {
        self.actions.keys().map(String::as_str)
    }

    /// Checks a request; optional texts without a pattern that are empty count as absent and are taken out.
    ///
    /// # Errors
    /// The action is unknown, a member is of another type, or values are out of bounds.
    pub fn check(&self, action: &str, members: &mut Members) -> Result<(), ApiError> {
        let Some(known) = self.actions.get(action) else {
            let message = format!("{action} is not an action of this endpoint");
            return Err(ApiError::new("UnknownOperationException", message));
        };
        members.retain(|name, value| {
            let member = known.iter().find(|member| member.name == *name);
            member.is_some_and(|member| !(value.is_null() || *value == "" && self.may_be_empty(member)))
        });
        members.values_mut().for_each(without_nulls);
        let mut found = Found::default();
        self.structure(known, members, "", &mut found)?;
        if found.count == 0 { Ok(()) } else { Err(ApiError::violations(found.count, &found.told)) }
    }

    fn may_be_empty(&self, member: &Member) -> bool {
        let plain = match &member.shape {
            Shape::String => true,
            Shape::Named(name) => matches!(self.types.get(name), Some(Type::String(text)) if text.pattern.is_none()),
            _ => false,
        };
        plain && !member.required
    }

    /// Whether every type that is named is there.
    fn whole(&self) -> Result<(), String> {
        let structures = self.types.values().filter_map(|kind| match kind {
            Type::Structure(members) => Some(members),
            _ => None,
        });
        let shapes = self.actions.values().chain(structures).flatten().map(|member| &member.shape);
        shapes
            .flat_map(names)
            .find(|name| !self.types.contains_key(*name))
            .map_or(Ok(()), |name| Err(format!("type {name} is missing")))
    }

    fn structure(&self, known: &[Member], members: &Members, at: &str, found: &mut Found) -> Result<(), ApiError> {
        for member in known {
            let at = format!("{at}{}", small_first(&member.name));
            match members.get(&member.name).filter(|value| !value.is_null()) {
                Some(value) => self.value(&member.shape, value, &at, found)?,
                None if member.required => {
                    found.push(format!("Value null at '{at}' failed to satisfy constraint: Member must not be null"));
                }
                None => {}
            }
        }
        Ok(())
    }

    fn value(&self, shape: &Shape, value: &Value, at: &str, found: &mut Found) -> Result<(), ApiError> {
        match (shape, value) {
            (Shape::Named(name), _) => self.named(name, value, at, found),
            (Shape::String, Value::String(_)) | (Shape::Boolean, Value::Bool(_)) => Ok(()),
            (Shape::Integer, Value::Number(number)) if number.as_i64().is_some() => Ok(()),
            (Shape::Timestamp, Value::Number(_) | Value::String(_)) => Ok(()),
            (Shape::List(inner, bounds), Value::Array(list)) => self.list((inner, *bounds), list, at, found),
            (Shape::Map(keys, values), Value::Object(map)) => self.map((keys, values), map, at, found),
            (wanted, other) => Err(other_type(wanted, other, at)),
        }
    }

    fn named(&self, name: &str, value: &Value, at: &str, found: &mut Found) -> Result<(), ApiError> {
        let refuse = |shown: &str, constraint: &str| {
            format!("Value {shown}at '{at}' failed to satisfy constraint: {constraint}")
        };
        match (self.types.get(name), value) {
            (Some(Type::Structure(known)), Value::Object(members)) => {
                return self.structure(known, members, &format!("{at}."), found);
            }
            (Some(Type::String(text)), Value::String(value)) => {
                let shown = if text.secret { String::new() } else { format!("'{}' ", cut(value)) };
                found.extend(text.faults(value).iter().map(|constraint| refuse(&shown, constraint)));
            }
            (Some(Type::Enum(words)), Value::String(value)) => {
                if !words.contains(value) {
                    let set = format!("Member must satisfy enum value set: [{}]", words.join(", "));
                    found.push(refuse(&format!("'{}' ", cut(value)), &set));
                }
            }
            (Some(Type::Number(bounds)), Value::Number(number)) if number.as_i64().is_some() => {
                let value = number.as_i64().unwrap_or_default();
                let faults = bounds.faults(value, "value");
                found.extend(faults.iter().map(|constraint| refuse(&format!("'{value}' "), constraint)));
            }
            (_, other) => return Err(other_type(&Shape::Named(name.to_owned()), other, at)),
        }
        Ok(())
    }

    fn list(
        &self,
        (inner, bounds): (&Shape, Bounds),
        list: &[Value],
        at: &str,
        found: &mut Found,
    ) -> Result<(), ApiError> {
        let all = || {
            let mut shown = String::new();
            for value in list {
                if shown.len() > SHOWN_BYTES {
                    break;
                }
                shown.push_str(if shown.is_empty() { "" } else { ", " });
                shown.push_str(&self.shown(inner, value));
            }
            format!("Value '[{}]' at '{at}' failed to satisfy constraint", cut(&shown))
        };
        let faults = bounds.faults(i64::try_from(list.len()).unwrap_or(i64::MAX), "length");
        found.extend(faults.iter().map(|constraint| format!("{}: {constraint}", all())));
        if let Some(text) = self.text(inner) {
            let texts: Vec<&str> = list.iter().filter_map(Value::as_str).collect();
            if texts.len() < list.len() {
                return Err(ApiError::new("SerializationException", format!("an element of {at} is not a string")));
            }
            if texts.iter().any(|value| !text.faults(value).is_empty()) {
                found.push(format!("{}: Member must satisfy constraint: [{}]", all(), text.constraints().join(", ")));
            }
            return Ok(());
        }
        // Those beyond the bound are wrong by being there.
        let most = bounds.most.and_then(|most| usize::try_from(most).ok()).unwrap_or(usize::MAX);
        for (n, value) in list.iter().enumerate().take(most) {
            self.value(inner, value, &format!("{at}.{}.member", n + 1), found)?;
        }
        Ok(())
    }

    fn map(
        &self,
        (keys, values): (&Shape, &Shape),
        map: &Members,
        at: &str,
        found: &mut Found,
    ) -> Result<(), ApiError> {
        let mut refuse = |text: &Text, value: &str, what: &str| {
            if !text.faults(value).is_empty() {
                found.push(format!(
                    "Value '{}' at '{at}' failed to satisfy constraint: Map {what} must satisfy constraint: [{}]",
                    cut(value),
                    text.constraints().join(", ")
                ));
            }
        };
        for (key, value) in map {
            let Some(value) = value.as_str() else {
                return Err(ApiError::new("SerializationException", format!("a value of {at} is not a string")));
            };
            self.text(keys).into_iter().for_each(|text| refuse(text, key, "keys"));
            self.text(values).into_iter().for_each(|text| refuse(text, value, "value"));
        }
        Ok(())
    }

    fn text(&self, shape: &Shape) -> Option<&Text> {
        match shape {
            Shape::Named(name) => match self.types.get(name) {
                Some(Type::String(text)) => Some(text),
                _ => None,
            },
            _ => None,
        }
    }

    /// A value as the service's messages show it: `Tag(key=a, value=b)`.
    fn shown(&self, shape: &Shape, value: &Value) -> String {
        if let (Shape::Named(name), Value::Object(members)) = (shape, value)
            && let Some(Type::Structure(known)) = self.types.get(name)
        {
            let member = |member: &Member| {
                let value = members.get(&member.name).map_or("null".into(), |value| self.shown(&member.shape, value));
                format!("{}={value}", small_first(&member.name))
            };
            return format!("{name}({})", known.iter().map(member).collect::<Vec<_>>().join(", "));
        }
        match value {
            Value::String(_) if self.text(shape).is_some_and(|text| text.secret) => "***".to_owned(),
            Value::String(text) => text.clone(),
            other => other.to_string(),
        }
    }
}

/// What is wrong with a request: how much, and as much of it as is told.
#[derive(Default)]
struct Found {
    count: usize,
    told: Vec<String>,
    bytes: usize,
}

impl Found {
    fn push(&mut self, fault: String) {
        self.count += 1;
        if self.told.is_empty() || self.bytes + fault.len() <= TOLD_BYTES {
            self.bytes += fault.len();
            self.told.push(fault);
        }
    }

    fn extend(&mut self, faults: impl Iterator<Item = String>) {
        faults.for_each(|fault| self.push(fault));
    }
}

/// A value as far as messages show it.
fn cut(value: &str) -> &str {
    &value[..value.floor_char_boundary(SHOWN_BYTES)]
}

impl Text {
    /// What a value violates; the pattern comes before the length.
    fn faults(&self, value: &str) -> Vec<String> {
        let pattern = self.pattern.as_ref().filter(|(_, regex)| {
            let regex = regex.get_or_init(|| compile(self.pattern.as_ref().map_or("", |(text, _)| text)));
            regex.as_ref().is_some_and(|regex| !regex.is_match(value))
        });
        let length = i64::try_from(value.chars().count()).unwrap_or(i64::MAX);
        pattern.map(|(text, _)| must_match(text)).into_iter().chain(self.bounds.faults(length, "length")).collect()
    }

    /// All that its values must satisfy.
    fn constraints(&self) -> Vec<String> {
        let pattern = self.pattern.as_ref().map(|(text, _)| must_match(text));
        self.bounds.constraints("length").into_iter().flatten().chain(pattern).collect()
    }
}

impl Bounds {
    fn read(text: &str) -> Option<Self> {
        let (least, most) = text.split_once("..")?;
        let bound = |text: &str| if text.is_empty() { Some(None) } else { text.parse().ok().map(Some) };
        Some(Self { least: bound(least)?, most: bound(most)? })
    }

    fn constraints(self, what: &str) -> [Option<String>; 2] {
        [
            self.most.map(|most| format!("Member must have {what} less than or equal to {most}")),
            self.least.map(|least| format!("Member must have {what} greater than or equal to {least}")),
        ]
    }

    fn faults(self, value: i64, what: &str) -> Vec<String> {
        let [most, least] = self.constraints(what);
        let above = self.most.is_some_and(|most| value > most);
        let below = self.least.is_some_and(|least| value < least);
        most.filter(|_| above).into_iter().chain(least.filter(|_| below)).collect()
    }
}

/// Takes out members that are `null`: they count as absent.
fn without_nulls(value: &mut Value) {
    match value {
        Value::Object(members) => {
            members.retain(|_, value| !value.is_null());
            members.values_mut().for_each(without_nulls);
        }
        Value::Array(list) => list.iter_mut().for_each(without_nulls),
        _ => {}
    }
}

fn must_match(pattern: &str) -> String {
    format!("Member must satisfy regular expression pattern: {pattern}")
}

fn other_type(wanted: &Shape, found: &Value, at: &str) -> ApiError {
    let wanted = match wanted {
        Shape::Named(name) => name,
        Shape::String => "string",
        Shape::Boolean => "boolean",
        Shape::Integer => "integer",
        Shape::Timestamp => "timestamp",
        Shape::List(..) => "list",
        Shape::Map(..) => "map",
    };
    let kind = match found {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    };
    ApiError::new("SerializationException", format!("{at} must be of type {wanted} and is {kind}"))
}

fn small_first(name: &str) -> String {
    let mut letters = name.chars();
    letters.next().map_or_else(String::new, |first| first.to_lowercase().chain(letters).collect())
}

fn names(shape: &Shape) -> Vec<&str> {
    match shape {
        Shape::Named(name) => vec![name],
        Shape::List(inner, _) => names(inner),
        Shape::Map(keys, values) => [names(keys), names(values)].concat(),
        _ => Vec::new(),
    }
}

fn read_members(text: &str) -> Option<Vec<Member>> {
    text.split(", ").map(read_member).collect()
}

fn read_member(text: &str) -> Option<Member> {
    let (name, shape) = text.split_once(' ')?;
    let required = name.ends_with('!');
    Some(Member { name: name.trim_end_matches('!').to_owned(), required, shape: read_shape(shape)? })
}

fn read_shape(text: &str) -> Option<Shape> {
    if let Some(list) = text.strip_prefix('[') {
        let (inner, bounds) = list.split_once(']')?;
        let bounds = if bounds.is_empty() { Bounds::default() } else { Bounds::read(bounds.trim())? };
        return Some(Shape::List(Box::new(read_shape(inner)?), bounds));
    }
    if let Some(map) = text.strip_prefix('{') {
        let (keys, values) = map.strip_suffix('}')?.split_once(": ")?;
        return Some(Shape::Map(Box::new(read_shape(keys)?), Box::new(read_shape(values)?)));
    }
    Some(match text {
        "string" => Shape::String,
        "boolean" => Shape::Boolean,
        "integer" => Shape::Integer,
        "timestamp" => Shape::Timestamp,
        name => Shape::Named(name.to_owned()),
    })
}

fn read_type(text: &str) -> Option<Type> {
    let (kind, rest) = text.split_once(' ')?;
    match kind {
        "enum" => Some(Type::Enum(rest.split(" | ").map(str::to_owned).collect())),
        "number" => Bounds::read(rest).map(Type::Number),
        "string" | "secret" => {
            let (bounds, pattern) = rest.split_once(' ').map_or((rest, None), |(bounds, text)| (bounds, Some(text)));
            let pattern = pattern.map(|text| (text.to_owned(), OnceLock::new()));
            Some(Type::String(Text { bounds: Bounds::read(bounds)?, pattern, secret: kind == "secret" }))
        }
        _ => None,
    }
}

/// A pattern of the model, which is Java's: it matches the whole value, and its classes are ASCII.
fn compile(pattern: &str) -> Option<Regex> {
    // The one lookahead of the model: not only white space.
    let pattern = pattern.replace(r"(?!\s*$).+", r"[^\n\r]*\S[^\n\r]*");
    let (mut ascii, mut in_class, mut letters) = (String::new(), false, pattern.chars());
    while let Some(letter) = letters.next() {
        match (letter, in_class) {
            ('\\', _) => match (letters.next(), in_class) {
                (Some('d'), true) => ascii.push_str("0-9"),
                (Some('d'), false) => ascii.push_str("[0-9]"),
                (Some('w'), true) => ascii.push_str("0-9A-Za-z_"),
                (Some('w'), false) => ascii.push_str("[0-9A-Za-z_]"),
                (other, _) => ascii.extend(['\\'].into_iter().chain(other)),
            },
            ('[', true) => ascii.push_str(r"\["),
            _ => {
                in_class = if in_class { letter != ']' } else { letter == '[' };
                ascii.push(letter);
            }
        }
    }
    // Names are short: what the automaton may remember between them is a matter of memory only.
    let built = RegexBuilder::new(&format!("^(?:{ascii})$")).dfa_size_limit(CACHE_BYTES).build();
    built.inspect_err(|error| tracing::error!("model: {error}")).ok()
}
