//! An HTTP receiver that does what a test says, however bad.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// A request as it came.
#[derive(Debug, Clone)]
pub struct Request {
    pub method: String,
    pub path: String,
    /// Names in lower case.
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
    /// Which connection it came on.
    pub connection: usize,
    /// When its head had come.
    pub at: Instant,
    /// The status that it was answered with; empty where the answer was none.
    pub answer: &'static str,
}

impl Request {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }
}

/// What a receiver does to one request.
pub enum Act {
    /// Answers and goes on with the connection.
    Answer(&'static str, Vec<(&'static str, String)>, &'static str),
    /// Sends these bytes, then closes.
    Raw(Vec<u8>),
    /// Sends a good answer, one byte after each pause.
    Drip(Duration),
    /// Sends a good head at once, then a body, one byte after each pause.
    DripBody(Duration),
    /// Sends a body without end.
    Endless,
    /// Says nothing until the client goes.
    Hang,
    /// Resets the connection without reading the body.
    Reset,
}

impl Act {
    pub fn ok() -> Self {
        Self::Answer("200 OK", vec![], "{}")
    }

    pub fn status(status: &'static str) -> Self {
        Self::Answer(status, vec![], "no")
    }
}

pub struct Receiver {
    pub url: String,
    seen: Arc<Mutex<Vec<Request>>>,
    opened: Arc<AtomicUsize>,
    /// The longest answer without end that was written, in bytes.
    written: Arc<AtomicUsize>,
}

impl Receiver {
    /// Starts a receiver; `act` is given the request and how many came before it.
    pub fn start(act: impl Fn(&Request, usize) -> Act + Send + Sync + 'static) -> Self {
        Self::on(TcpListener::bind("127.0.0.1:0").expect("a port"), act)
    }

    /// The same on a port of the caller's.
    pub fn on(listener: TcpListener, act: impl Fn(&Request, usize) -> Act + Send + Sync + 'static) -> Self {
        let url = format!("http://{}/hook", listener.local_addr().expect("an address"));
        let seen: Arc<Mutex<Vec<Request>>> = Arc::default();
        let (all, act, opened) = (Arc::clone(&seen), Arc::new(act), Arc::<AtomicUsize>::default());
        let (count, written) = (Arc::clone(&opened), Arc::<AtomicUsize>::default());
        let longest = Arc::clone(&written);
        std::thread::spawn(move || {
            for (number, stream) in listener.incoming().enumerate() {
                let (all, act, longest) = (Arc::clone(&all), Arc::clone(&act), Arc::clone(&longest));
                let Ok(stream) = stream else { return };
                count.fetch_add(1, Ordering::SeqCst);
                std::thread::spawn(move || drop(serve(stream, number, (&all, &longest), &*act)));
            }
        });
        Self { url, seen, opened, written }
    }

    /// How many connections there were.
    pub fn connections(&self) -> usize {
        self.opened.load(Ordering::SeqCst)
    }

    /// The longest answer without end that was written, in bytes.
    pub fn written(&self) -> usize {
        self.written.load(Ordering::Relaxed)
    }

    /// How many requests there were.
    pub fn count(&self) -> usize {
        self.seen.lock().expect("a lock").len()
    }

    pub fn requests(&self) -> Vec<Request> {
        self.seen.lock().expect("a lock").clone()
    }
}

fn serve(
    stream: TcpStream,
    connection: usize,
    (all, longest): (&Mutex<Vec<Request>>, &AtomicUsize),
    act: &dyn Fn(&Request, usize) -> Act,
) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut out = stream;
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line)? == 0 {
            return Ok(());
        }
        let mut words = line.split_whitespace().map(str::to_owned);
        let (method, path) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        let mut headers = Vec::new();
        loop {
            let mut line = String::new();
            reader.read_line(&mut line)?;
            let Some((name, value)) = line.trim_end().split_once(':') else { break };
            headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
        }
        let mut request =
            Request { method, path, headers, body: Vec::new(), connection, at: Instant::now(), answer: "" };
        let length = request.header("content-length").and_then(|length| length.parse().ok()).unwrap_or(0);
        let before = all.lock().expect("a lock").len();
        let deed = act(&request, before);
        if !matches!(deed, Act::Reset) {
            request.body = vec![0; length];
            reader.read_exact(&mut request.body)?;
        }
        if let Act::Answer(status, ..) = &deed {
            request.answer = status;
        }
        all.lock().expect("a lock").push(request);
        match deed {
            Act::Answer(status, headers, body) => {
                let more: String = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
                write!(out, "HTTP/1.1 {status}\r\n{more}content-length: {}\r\n\r\n{body}", body.len())?;
            }
            Act::Raw(bytes) => return out.write_all(&bytes),
            Act::Drip(pause) => {
                for byte in b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}" {
                    out.write_all(&[*byte])?;
                    std::thread::sleep(pause);
                }
            }
            Act::DripBody(pause) => {
                out.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 20\r\n\r\n")?;
                for byte in [b'x'; 20] {
                    std::thread::sleep(pause);
                    out.write_all(&[byte])?;
                }
            }
            Act::Endless => {
                out.write_all(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")?;
                for written in 1.. {
                    out.write_all(b"400\r\n")?;
                    out.write_all(&[b'x'; 0x400])?;
                    out.write_all(b"\r\n")?;
                    longest.fetch_max(written << 10, Ordering::Relaxed);
                }
            }
            Act::Hang => {
                reader.read_to_end(&mut Vec::new())?;
                return Ok(());
            }
            // Closing a socket with unread bytes resets the connection.
            Act::Reset => return Ok(()),
        }
    }
}
