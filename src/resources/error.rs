//! Errors as the EventBridge API has them.

use super::FILES;

/// An error of the EventBridge API.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApiError {
    /// As in `ValidationException`.
    pub code: &'static str,
    /// The service's words.
    pub message: String,
}

impl ApiError {
    /// An error.
    pub fn new(code: &'static str, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }

    /// What is wrong with the request's members: how many violations, and those that are told.
    pub fn violations(count: usize, told: &[String]) -> Self {
        let plural = if count == 1 { "error" } else { "errors" };
        Self::invalid(format!("{count} validation {plural} detected: {}", told.join("; ")))
    }

    /// The request is against a rule of the service.
    pub fn invalid(message: impl Into<String>) -> Self {
        Self::new("ValidationException", message)
    }

    /// What is named is not there.
    pub fn missing(message: impl Into<String>) -> Self {
        Self::new("ResourceNotFoundException", message)
    }

    /// The name is taken.
    pub fn exists(message: impl Into<String>) -> Self {
        Self::new("ResourceAlreadyExistsException", message)
    }

    /// There are as many as may be.
    pub fn too_many() -> Self {
        Self::new("LimitExceededException", "The requested resource exceeds the maximum number allowed.")
    }

    /// What is named is not the caller's to change.
    pub fn managed(what: &str, by: &str) -> Self {
        let help = match by {
            FILES => "it stands in a configuration file; change it there",
            _ => "use Force where the action has it",
        };
        Self::new("ManagedRuleException", format!("{what} is managed by {by}: {help}."))
    }
}

impl std::fmt::Display for ApiError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.code, self.message)
    }
}

impl std::error::Error for ApiError {}
