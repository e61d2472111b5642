//! Requests signed with AWS Signature Version 4, by a reading of the specification of its own; or signed badly.

use ring::{digest, hmac};
use std::fmt::Write;

pub const ID: &str = "AKIDALICE";
pub const SECRET: &str = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY";

/// A request that is to be signed. Every part can be made wrong.
#[derive(Clone)]
pub struct Signed {
    pub id: String,
    pub secret: String,
    pub region: String,
    pub service: String,
    pub terminator: String,
    /// Seconds since the epoch.
    pub at: i64,
    /// Names in small letters, sorted.
    pub headers: Vec<(String, String)>,
    /// What the head has beside them.
    pub unsigned: Vec<(String, String)>,
    /// What is signed as the body's hash, where it is not that.
    pub hash: Option<String>,
    pub body: Vec<u8>,
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").expect("a text");
        text
    })
}

fn sha256(bytes: &[u8]) -> String {
    hex(digest::digest(&digest::SHA256, bytes).as_ref())
}

pub fn now() -> i64 {
    sluice::time::wall_millis() / 1000
}

impl Signed {
    pub fn new(host: &str, action: &str, body: &[u8]) -> Self {
        let at = now();
        let headers = [
            ("content-type", "application/x-amz-json-1.1"),
            ("host", host),
            ("x-amz-date", &sluice::time::basic(at)),
            ("x-amz-target", &format!("AWSEvents.{action}")),
        ];
        let text = |text: &str| text.to_owned();
        Self {
            id: text(ID),
            secret: text(SECRET),
            region: text("eu-west-1"),
            service: text("events"),
            terminator: text("aws4_request"),
            at,
            headers: headers.map(|(name, value)| (text(name), text(value))).to_vec(),
            unsigned: Vec::new(),
            hash: None,
            body: body.to_vec(),
        }
    }

    pub fn by(mut self, id: &str, secret: &str) -> Self {
        (self.id, self.secret) = (id.to_owned(), secret.to_owned());
        self
    }

    pub fn dated(mut self, at: i64) -> Self {
        self.at = at;
        self.set("x-amz-date", &sluice::time::basic(at));
        self
    }

    pub fn set(&mut self, name: &str, value: &str) {
        self.headers.retain(|(known, _)| known != name);
        self.headers.push((name.to_owned(), value.to_owned()));
        self.headers.sort();
    }

    /// Takes a header out of what is signed.
    pub fn unsign(mut self, name: &str) -> Self {
        let found = self.headers.iter().position(|(known, _)| known == name).expect("a header");
        let header = self.headers.remove(found);
        self.unsigned.push(header);
        self
    }

    pub fn body_hash(&self) -> String {
        sha256(&self.body)
    }

    pub fn authorization(&self) -> String {
        let date = sluice::time::basic(self.at);
        let (day, mark) = (&date[..8], |key: &[u8], text: &str| {
            hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), text.as_bytes()).as_ref().to_vec()
        });
        let names: Vec<_> = self.headers.iter().map(|(name, _)| name.as_str()).collect();
        let names = names.join(";");
        let lines: String = self.headers.iter().map(|(name, value)| format!("{name}:{value}\n")).collect();
        let hash = self.hash.clone().unwrap_or_else(|| sha256(&self.body));
        let canonical = format!("POST\n/\n\n{lines}\n{names}\n{hash}");
        let scope = format!("{day}/{}/{}/{}", self.region, self.service, self.terminator);
        let text = format!("AWS4-HMAC-SHA256\n{date}\n{scope}\n{}", sha256(canonical.as_bytes()));
        let parts = [day, &self.region, &self.service, &self.terminator, &text];
        let signature = parts.iter().fold(format!("AWS4{}", self.secret).into_bytes(), |key, part| mark(&key, part));
        let id = &self.id;
        format!("AWS4-HMAC-SHA256 Credential={id}/{scope}, SignedHeaders={names}, Signature={}", hex(&signature))
    }

    /// All headers, signed.
    pub fn head(&self) -> Vec<(String, String)> {
        let authorization = ("authorization".to_owned(), self.authorization());
        self.headers.iter().chain(&self.unsigned).cloned().chain([authorization]).collect()
    }

    /// The request as it goes over the wire.
    pub fn bytes(&self) -> Vec<u8> {
        let lines: String = self.head().iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
        let length = self.body.len();
        let head = format!("POST / HTTP/1.1\r\n{lines}content-length: {length}\r\nconnection: close\r\n\r\n");
        [head.as_bytes(), &self.body].concat()
    }
}
