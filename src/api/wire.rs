//! The protocol of the EventBridge endpoint: AWS JSON 1.1, one path, the action in a header.

use axum::body::Body;
use axum::http::{HeaderMap, HeaderName, Response, StatusCode, header};
use axum::response::IntoResponse;
use serde_json::{Value, json};

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

    /// What is wrong with the request's members, all of it together.
    pub fn violations(violations: &[String]) -> Self {
        let plural = if violations.len() == 1 { "error" } else { "errors" };
        let message = format!("{} validation {plural} detected: {}", violations.len(), violations.join("; "));
        Self::new("ValidationException", message)
    }
}

/// What an action answers: its output, or an error.
pub fn answer(result: Result<Value, ApiError>) -> Response<Body> {
    let (status, body) = match result {
        Ok(output) => (StatusCode::OK, output),
        Err(error) => (StatusCode::BAD_REQUEST, json!({ "__type": error.code, "message": error.message })),
    };
    let request_id = uuid::Uuid::new_v4().to_string();
    let headers = [
        (header::CONTENT_TYPE, "application/x-amz-json-1.1".to_owned()),
        (HeaderName::from_static("x-amzn-requestid"), request_id),
    ];
    (status, headers, body.to_string()).into_response()
}

/// The action that a request names: `AWSEvents.PutEvents` is `PutEvents`.
pub fn action(headers: &HeaderMap) -> Option<&str> {
    headers.get("x-amz-target")?.to_str().ok()?.strip_prefix("AWSEvents.")
}

/// The region that a request acts in: that of its signature's scope.
/// `AWS4-HMAC-SHA256 Credential=KEY/DATE/REGION/events/aws4_request, ...`
pub fn region(headers: &HeaderMap) -> Option<&str> {
    let credential = headers.get(header::AUTHORIZATION)?.to_str().ok()?.split_once("Credential=")?.1;
    let region = credential.split(',').next()?.split('/').nth(2)?;
    let good = |c: char| c.is_ascii_alphanumeric() || c == '-';
    (!region.is_empty() && region.len() <= 64 && region.chars().all(good)).then_some(region)
}

/// The members of a request; an empty body has none.
///
/// # Errors
/// The body is no JSON object.
pub fn members(body: &[u8]) -> Result<serde_json::Map<String, Value>, ApiError> {
    if body.is_empty() {
        return Ok(serde_json::Map::new());
    }
    match serde_json::from_slice(body) {
        Ok(Value::Object(members)) => Ok(members),
        Ok(_) => Err(ApiError::new("SerializationException", "the body is not a JSON object")),
        Err(error) => Err(ApiError::new("SerializationException", format!("the body is not JSON: {error}"))),
    }
}

/// A member that must be a text where it is there; `null` counts as absent.
///
/// # Errors
/// It is something else.
pub fn text<'m>(members: &'m serde_json::Map<String, Value>, name: &str) -> Result<Option<&'m str>, ApiError> {
    match members.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(_) => Err(ApiError::new("SerializationException", format!("{name} is not a string"))),
    }
}
