//! Pages of lists: in order of names, and a token that says where the next one begins.

use super::{ApiError, Call};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::Value;

/// Elements of a page where the call has no limit.
const PAGE: usize = 100;
/// What our tokens begin with.
const MARK: &str = "sluice1:";

/// A page, and the token of the next one.
pub struct Page<T> {
    /// Its elements.
    pub elements: Vec<T>,
    /// Where the next one begins, when there is one.
    pub next: Option<String>,
}

impl<T> Page<T> {
    /// The part of `all`, which is in order of names, that a call wants.
    ///
    /// # Errors
    /// The token is none of ours.
    pub fn of<'n>(call: &Call<'_>, all: impl Iterator<Item = (&'n str, T)>) -> Result<Self, ApiError> {
        let after = position(call)?;
        let (most, prefix) = (limit(call), call.text("NamePrefix").unwrap_or_default());
        let wanted = |name: &str| name.starts_with(prefix) && after.as_ref().is_none_or(|after| name > after.as_str());
        let mut rest = all.filter(|(name, _)| wanted(name));
        let (mut elements, mut last) = (Vec::new(), "");
        for (name, element) in rest.by_ref().take(most) {
            elements.push(element);
            last = name;
        }
        let next = rest.next().is_some().then(|| token(last));
        Ok(Self { elements, next })
    }

    /// The same for what is in order of insertion, by numbers that only grow.
    ///
    /// # Errors
    /// The token is none of ours.
    pub fn inserted(call: &Call<'_>, all: impl Iterator<Item = (u64, T)>) -> Result<Self, ApiError> {
        let after = position(call)?.map(|at| at.parse::<u64>().map_err(|_| unknown_token())).transpose()?;
        let mut rest = all.filter(|(number, _)| after.is_none_or(|after| *number > after));
        let (mut elements, mut last) = (Vec::new(), 0);
        for (number, element) in rest.by_ref().take(limit(call)) {
            elements.push(element);
            last = number;
        }
        let next = rest.next().is_some().then(|| token(&last.to_string()));
        Ok(Self { elements, next })
    }
}

fn limit(call: &Call<'_>) -> usize {
    let limit = call.members.get("Limit").or_else(|| call.members.get("MaxResults")).and_then(Value::as_u64);
    limit.map_or(PAGE, |limit| usize::try_from(limit).unwrap_or(PAGE))
}

fn position(call: &Call<'_>) -> Result<Option<String>, ApiError> {
    let Some(token) = call.text("NextToken") else { return Ok(None) };
    let read = URL_SAFE_NO_PAD.decode(token).ok().and_then(|bytes| String::from_utf8(bytes).ok());
    read.and_then(|text| text.strip_prefix(MARK).map(str::to_owned)).map(Some).ok_or_else(unknown_token)
}

fn token(last: &str) -> String {
    URL_SAFE_NO_PAD.encode(format!("{MARK}{last}"))
}

fn unknown_token() -> ApiError {
    ApiError::invalid("Parameter NextToken is not valid. Reason: it was not given out by this endpoint.")
}
