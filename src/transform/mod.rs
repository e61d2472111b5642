//! What a target receives: the event, a constant, a part of it, or a template filled from it; and the other way
//! round, the envelope made of a record that is none ([`wrap`]).
//!
//! In: the event's bytes. Out: payload bytes. Promises: an untouched event passes as it came (I5); values keep their
//! spelling. Leaves to others: which target gets what (`plan`).

mod members;
mod path;
mod subject;
mod template;
pub mod wrap;

pub use members::with_members;
pub use path::{JsonPath, Selection};
pub use subject::{Subject, is_subscribable};
pub use template::{RESERVED, Template, TemplateError, check_constant};

use crate::event::{Scanner, Tree};
use std::borrow::Cow;

/// A target's input form; one of the four of the EventBridge API.
#[derive(Debug, Clone, PartialEq, Default)]
pub enum Input {
    /// The event as it came.
    #[default]
    Event,
    /// `Input`: a constant JSON text.
    Constant(Vec<u8>),
    /// `InputPath`: the part of the event that a path selects.
    Path(JsonPath),
    /// `InputTransformer`.
    Template(Template),
}

/// What reserved variables stand for.
#[derive(Debug, Clone, Copy)]
pub struct Context<'a> {
    /// `<aws.events.rule-name>`
    pub rule_name: &'a str,
    /// `<aws.events.rule-arn>`
    pub rule_arn: &'a str,
    /// `<aws.events.event.ingestion-time>`, ISO 8601.
    pub ingestion_time: &'a str,
}

/// Why an event cannot be given its target's form. Permanent: the event goes to the dead-letter queue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TransformError {
    /// The input path selects nothing.
    NothingSelected(String),
    /// A list or object stands within quotes of a JSON template.
    ContainerInQuotes(String),
    /// The filled template is no valid JSON.
    InvalidJson(String),
}

impl std::fmt::Display for TransformError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::NothingSelected(path) => write!(f, "input path {path} selects nothing in the event"),
            Self::ContainerInQuotes(name) => {
                write!(f, "<{name}> is a list or an object and stands within quotes of the input template")
            }
            Self::InvalidJson(why) => write!(f, "the filled input template is not valid JSON: {why}"),
        }
    }
}

impl std::error::Error for TransformError {}

impl Input {
    /// Gives `event`, a valid event, the target's form.
    ///
    /// # Errors
    /// [`TransformError`] when the event has nothing to offer, or the result would be no JSON.
    pub fn render<'e>(
        &'e self,
        event: &'e [u8],
        context: &Context<'_>,
        scanner: &mut Scanner,
    ) -> Result<Cow<'e, [u8]>, TransformError> {
        let parse = |scanner: &mut Scanner| {
            Tree::parse_with(event, scanner).map_err(|fault| TransformError::InvalidJson(fault.to_string()))
        };
        match self {
            Input::Event => Ok(Cow::Borrowed(event)),
            Input::Constant(text) => Ok(Cow::Borrowed(text)),
            Input::Path(path) => {
                let tree = parse(scanner)?;
                let selected = path.select(tree.root());
                let text = selected.json().ok_or_else(|| TransformError::NothingSelected(path.to_string()))?;
                Ok(Cow::Owned(text.into_owned()))
            }
            Input::Template(template) => {
                let tree = parse(scanner)?;
                template.fill(&tree, event, context, scanner).map(Cow::Owned)
            }
        }
    }
}
