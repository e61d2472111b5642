//! A caller of PutEvents, and a book of what it was answered.

use crate::oracle::detail;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::ops::Range;
use std::time::Duration;

/// A connection to the events' address.
pub struct Caller {
    stream: BufReader<TcpStream>,
    address: String,
}

impl Caller {
    pub fn new(address: &str) -> Self {
        let stream = TcpStream::connect(address).expect("a connection");
        stream.set_read_timeout(Some(Duration::from_secs(30))).expect("a timeout");
        stream.set_nodelay(true).expect("no delay");
        Self { stream: BufReader::new(stream), address: address.to_owned() }
    }

    /// A call of PutEvents with a body of any kind: status and answer. `None` where the connection breaks.
    pub fn call(&mut self, body: &[u8]) -> Option<(u16, Vec<u8>)> {
        self.act("PutEvents", body)
    }

    /// The same of any action.
    pub fn act(&mut self, action: &str, body: &[u8]) -> Option<(u16, Vec<u8>)> {
        let head = format!(
            "POST / HTTP/1.1\r\nHost: {}\r\nX-Amz-Target: AWSEvents.{action}\r\nContent-Type: application/x-amz-json-1.1\r\n\
             Authorization: AWS4-HMAC-SHA256 Credential=A/20240131/eu-west-1/events/aws4_request, SignedHeaders=host\r\n\
             Content-Length: {}\r\n\r\n",
            self.address,
            body.len()
        );
        self.stream.get_mut().write_all(&[head.as_bytes(), body].concat()).ok()?;
        let (mut status, mut length, mut line) = (0, 0, String::new());
        loop {
            line.clear();
            self.stream.read_line(&mut line).ok().filter(|count| *count > 0)?;
            if let Some(rest) = line.strip_prefix("HTTP/1.1 ") {
                status = rest.split(' ').next()?.parse().ok()?;
            }
            match line.trim_end().split_once(": ") {
                Some((name, value)) if name.eq_ignore_ascii_case("content-length") => length = value.parse().ok()?,
                None if line == "\r\n" => break,
                _ => {}
            }
        }
        let mut answer = vec![0; length];
        self.stream.read_exact(&mut answer).ok()?;
        Some((status, answer))
    }
}

/// The entry of an event of producer 0, filled up by `pad` bytes.
pub fn entry(n: u64, pad: usize) -> Value {
    let mut detail = detail(0, n);
    detail.truncate(detail.len() - 1);
    detail += &format!(",\"fill\":\"{}\"}}", "y".repeat(pad));
    json!({ "Source": "faults", "DetailType": "step", "Detail": detail })
}

/// What was answered.
#[derive(Default)]
pub struct Book {
    /// Events that were accepted: number by id.
    pub accepted: BTreeMap<String, u64>,
    /// Numbers of events that were refused.
    pub refused: BTreeSet<u64>,
    /// The words of the last refusal.
    pub why: String,
}

impl Book {
    /// Puts events and notes the answers; how many were refused.
    pub fn put(&mut self, caller: &mut Caller, numbers: Range<u64>, pad: usize) -> usize {
        let before = self.refused.len();
        let numbers: Vec<u64> = numbers.collect();
        for some in numbers.chunks(10) {
            let entries: Vec<Value> = some.iter().map(|n| entry(*n, pad)).collect();
            let body = json!({ "Entries": entries }).to_string();
            let (status, answer) = caller.call(body.as_bytes()).expect("an answer");
            let answer: Value = serde_json::from_slice(&answer).expect("JSON");
            assert_eq!(status, 200, "what cannot be kept is refused entry by entry: {answer}");
            for (n, result) in some.iter().zip(answer["Entries"].as_array().expect("a list")) {
                match result["EventId"].as_str() {
                    Some(id) => drop(self.accepted.insert(id.to_owned(), *n)),
                    None => {
                        assert_eq!(result["ErrorCode"], "InternalFailure", "{result}");
                        self.why = result["ErrorMessage"].as_str().unwrap_or_default().to_owned();
                        self.refused.insert(*n);
                    }
                }
            }
        }
        self.refused.len() - before
    }

    /// How many of the accepted events that a route `gets` are not among these payloads.
    pub fn lost<'a>(&self, payloads: impl Iterator<Item = &'a [u8]>, gets: impl Fn(u64) -> bool) -> usize {
        let found: BTreeSet<String> = payloads.filter_map(|payload| Some(read(payload)?.0)).collect();
        self.accepted.iter().filter(|(id, n)| gets(**n) && !found.contains(*id)).count()
    }

    /// How many of these payloads are of events that were refused.
    pub fn uncalled<'a>(&self, payloads: impl Iterator<Item = &'a [u8]>) -> usize {
        payloads.filter_map(read).filter(|(id, n)| self.refused.contains(n) && !self.accepted.contains_key(id)).count()
    }
}

/// An event's id and number.
fn read(payload: &[u8]) -> Option<(String, u64)> {
    let event: Value = serde_json::from_slice(payload).ok()?;
    Some((event["id"].as_str()?.to_owned(), event["detail"]["n"].as_u64()?))
}
