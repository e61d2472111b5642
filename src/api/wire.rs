//! The protocol of the EventBridge endpoint: AWS JSON 1.1, one path, the action in a header.

use crate::resources::Scope;
use axum::body::Body;
use axum::http::{HeaderMap, HeaderName, Response, StatusCode, header};
use axum::response::IntoResponse;
use serde_json::{Value, json};

pub use crate::resources::{ApiError, Members};

/// What an action answers: its output, or an error.
pub fn answer(result: Result<Members, ApiError>) -> Response<Body> {
    let (status, body) = match result {
        Ok(output) => (StatusCode::OK, Value::Object(output)),
        Err(error) => {
            let ours = error.code == "InternalException";
            let status = if ours { StatusCode::INTERNAL_SERVER_ERROR } else { StatusCode::BAD_REQUEST };
            (status, json!({ "__type": error.code, "message": error.message }))
        }
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

/// The account and region that a request acts in: the region of its signature's scope, and the key where that is an
/// account's number. `AWS4-HMAC-SHA256 Credential=KEY/DATE/REGION/events/aws4_request, ...`
pub fn scope(headers: &HeaderMap, home: &Scope) -> Scope {
    let signed = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok()?.split_once("Credential="));
    let mut parts = signed.and_then(|(_, scope)| scope.split(',').next()).unwrap_or_default().split('/');
    let (key, region) = (parts.next().unwrap_or_default(), parts.nth(1).unwrap_or_default());
    let is_account = key.len() == 12 && key.bytes().all(|b| b.is_ascii_digit());
    let good = |c: char| c.is_ascii_alphanumeric() || c == '-';
    let is_region = !region.is_empty() && region.len() <= 64 && region.chars().all(good);
    Scope {
        account: if is_account { key } else { &home.account }.to_owned(),
        region: if is_region { region } else { &home.region }.to_owned(),
    }
}

/// The members of a request; an empty body has none.
///
/// # Errors
/// The body is no JSON object.
pub fn members(body: &[u8]) -> Result<Members, ApiError> {
    if body.is_empty() {
        return Ok(Members::new());
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
pub fn text<'m>(members: &'m Members, name: &str) -> Result<Option<&'m str>, ApiError> {
    match members.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(_) => Err(ApiError::new("SerializationException", format!("{name} is not a string"))),
    }
}
