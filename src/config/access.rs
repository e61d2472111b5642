//! Who may call, as files say it: tokens, and access keys in a file of their own.

use super::problem::Problem;
use super::values::{Secret, text_or_map};
use super::yaml::Document;
use super::{Outside, de, outside, yaml};
use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize};
use std::collections::HashSet;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// Who may call.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ServerAuth {
    /// Tokens for `Authorization: Bearer`, of 128 bits at least: a text, or its SHA-256 and what its holder may do. Two
    /// while one replaces the other. Take them from outside: `"${file:/run/secrets/sluice-token}"`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bearer: Option<Vec<Token>>,
    /// A file of access keys, which nobody but its owner and its group may read. With it, signatures (AWS Signature
    /// Version 4) are verified, a key's account is its caller's, and policies of buses are enforced.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keys: Option<PathBuf>,
    /// Requests to `listen` from one address that may fail to authenticate within a minute; beyond, it is told to come
    /// again (`ThrottlingException`) and nothing is verified until the minute is over. Behind a proxy all callers have its
    /// address. 0: no limit.
    #[serde(default = "failures_per_minute")]
    pub failures_per_minute: u32,
}

fn failures_per_minute() -> u32 {
    300
}

/// A token: a text, whose holder may do everything, or a mapping.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
#[serde(untagged)]
pub enum Token {
    /// The token.
    Plain(Secret),
    /// The token or its hash, and a role.
    Formed(FormedToken),
}

/// One of `token` and `sha256`, and a role.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FormedToken {
    /// The token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<Secret>,
    /// Its SHA-256, 64 hexadecimal digits, as `sha256sum` prints it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sha256: Option<String>,
    /// What its holder may do.
    #[serde(default)]
    pub role: Role,
}

/// What a caller may do.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Put events.
    Put,
    /// Look: Describe, List, TestEventPattern, and what the native API shows.
    Read,
    /// Everything.
    #[default]
    Admin,
}

/// A file of access keys.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct KeysFile {
    keys: Vec<AccessKey>,
}

/// An access key.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AccessKey {
    /// As clients have it in `AWS_ACCESS_KEY_ID`.
    pub access_key_id: String,
    /// As clients have it in `AWS_SECRET_ACCESS_KEY`; 128 bits at least.
    pub secret_access_key: Secret,
    /// The caller's account, twelve digits.
    pub account: String,
    /// What the caller may do.
    #[serde(default)]
    pub role: Role,
    /// The user's name in `arn:aws:iam::ACCOUNT:user/NAME`, as policies name it; the key's id without it.
    #[serde(default)]
    pub name: Option<String>,
    /// The organisation of the account, for `aws:PrincipalOrgID` in policies.
    #[serde(default)]
    pub organization: Option<String>,
    /// The regions that the key is good for; all without it.
    #[serde(default)]
    pub regions: Vec<String>,
}

impl<'de> Deserialize<'de> for Token {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let plain = |token: String| Self::Plain(Secret::new(token));
        text_or_map(deserializer, "a token in quotes, or `sha256: HASH` and a role", plain, Self::Formed)
    }
}

impl Token {
    /// What is wrong with it, and what to do.
    pub(super) fn fault(&self) -> Option<(&'static str, &'static str)> {
        let (token, hash) = match self {
            Self::Plain(token) => (Some(token), None),
            Self::Formed(formed) => (formed.token.as_ref(), formed.sha256.as_ref()),
        };
        match (token, hash) {
            (Some(token), None) if is_strong(token.expose()) => None,
            (Some(_), None) => {
                Some(("a token has fewer than 128 bits", "take a longer one, as `openssl rand -hex 16` makes it"))
            }
            (None, Some(hash)) if hash.len() == 64 && hash.bytes().all(|b| b.is_ascii_hexdigit()) => None,
            (None, Some(_)) => Some(("`sha256` is no hash", "write 64 hexadecimal digits, as `sha256sum` prints them")),
            _ => Some(("a token has one of `token` and `sha256`", "name one of them")),
        }
    }
}

/// Whether a text can hold 128 bits. A reference that does not resolve is reported already.
fn is_strong(text: &str) -> bool {
    let all = |fits: fn(&u8) -> bool| text.as_bytes().iter().all(fits);
    let fewest = match () {
        () if all(u8::is_ascii_digit) => 39,
        () if all(u8::is_ascii_hexdigit) => 32,
        () => 22,
    };
    text.len() >= fewest || text.contains("${")
}

/// Whether an account has twelve digits.
pub(super) fn is_account(account: &str) -> bool {
    account.len() == 12 && account.bytes().all(|b| b.is_ascii_digit())
}

/// Reads a file of keys.
pub(super) fn keys(file: &Path, from: &Outside<'_>, problems: &mut Vec<Problem>) -> Vec<AccessKey> {
    let shown = file.display();
    let read =
        std::fs::metadata(file).and_then(|about| Ok((about.permissions().mode(), std::fs::read_to_string(file)?)));
    let text = match read {
        Ok((mode, _)) if mode & 0o007 != 0 => {
            let problem = Problem::plain("E0209", format!("everybody on this machine may use {shown}"));
            problems.push(problem.help("set its mode to 0600, or to 0640 where a group is to read it"));
            return Vec::new();
        }
        Ok((_, text)) => text,
        Err(error) => {
            let problem = Problem::plain("E0002", format!("cannot read {shown}: {error}"));
            problems.push(problem.help("check the path and its permissions"));
            return Vec::new();
        }
    };
    let before = problems.len();
    let document = yaml::parse(file, text, problems).map(|mut document| {
        outside::resolve(&mut document, from, problems);
        document
    });
    let keys = document.as_ref().map(|document| de::read::<KeysFile>(document, problems).keys).unwrap_or_default();
    if keys.is_empty() && problems.len() == before {
        let mut problem = Problem::plain("E0209", format!("{shown} has no keys"));
        problem.at = document.as_ref().map(|document| document.at_path(&["keys"]));
        problems.push(problem.help("name one, or remove server.auth.keys"));
    }
    let Some(document) = document else { return keys };
    let mut seen = HashSet::new();
    for (n, key) in keys.iter().enumerate() {
        let twice = !seen.insert(&key.access_key_id);
        check(&document, (n, key, twice), problems);
    }
    keys
}

fn check(document: &Document, (n, key, twice): (usize, &AccessKey, bool), problems: &mut Vec<Problem>) {
    let of = |text: &str, more: &str, most: usize| {
        let good = |b: u8| b.is_ascii_alphanumeric() || more.as_bytes().contains(&b);
        (1..=most).contains(&text.len()) && text.bytes().all(good)
    };
    let optional = |text: Option<&String>, more: &str, most: usize| text.is_none_or(|text| of(text, more, most));
    let regions = key.regions.iter().all(|region| of(region, "-", 64) && region.to_ascii_lowercase() == *region);
    let rows = [
        ("access_key_id", of(&key.access_key_id, "_", 128), "an id has letters, digits and `_`, 128 at most"),
        ("access_key_id", !twice, "another key has this id"),
        ("secret_access_key", is_strong(key.secret_access_key.expose()), "a secret has fewer than 128 bits"),
        ("account", is_account(&key.account), "an account has twelve digits"),
        ("name", optional(key.name.as_ref(), "_+=,.@-", 64), "a name has letters, digits and `_+=,.@-`, 64 at most"),
        ("organization", optional(key.organization.as_ref(), "-", 34), "an organisation is written as o-exampleorgid"),
        ("regions", regions, "a region is written as us-east-1"),
    ];
    for (member, _, message) in rows.into_iter().filter(|(_, good, _)| !good) {
        let mut problem = Problem::plain("E0201", message).help("the README shows such a file under \"Who may call\"");
        problem.at = Some(document.at_path(&["keys", &n.to_string(), member]));
        problems.push(problem);
    }
}
