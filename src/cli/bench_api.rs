//! `sluice bench api`: PutEvents over HTTP, each event on the disk before its answer, and rules that callers make, against
//! a process of its own on this machine, which the callers share it with.

use super::bench_broker::{Child, broken};
use super::corpus::slots;
use super::{bench, output};
use crate::app::{Exit, Failed};
use crate::time;
use bytes::Bytes;
use hdrhistogram::Histogram;
use http_body_util::{BodyExt, Full};
use hyper::Request;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use std::fmt::Write as _;
use std::io::Write as _;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tokio::net::TcpStream;
use tokio::runtime::Runtime;
use tokio::task::JoinSet;

/// What to measure.
#[derive(clap::Args)]
pub struct Api {
    /// Connections, a run each; every one sends its next request when it has the answer to the last
    #[arg(long, value_delimiter = ',', default_value = "4,64")]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=1000))]
    connections: Vec<u32>,
    /// Entries a request
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=10))]
    entries: u64,
    /// Length of a run
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=600))]
    seconds: u64,
    /// Rules in files, which match a tenth of the events and deliver them to a log group: 1, 100, 1000, 10000
    #[arg(long, default_value = "1000", value_parser = bench::rules)]
    rules: u64,
    /// Rules that callers make in all, the first 1,000 by one caller, the next by eight; 0 leaves that out
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(0..=100_000))]
    made: u32,
    /// Runs of each, in turn
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..))]
    repeat: u32,
    /// Print JSON lines
    #[arg(long)]
    json: bool,
}

/// Different requests that are sent in turn.
const REQUESTS: u64 = 500;
/// How long a process may take to answer at all.
const START: Duration = Duration::from_secs(60);
/// Rules that are made at a time.
const BURST: u32 = 1_000;
const CALLERS: u32 = 8;

/// One measured run.
struct Run {
    connections: u32,
    events: u64,
    seconds: f64,
    /// Microseconds a request.
    latency: Histogram<u64>,
    /// Of the process, and its memory in bytes.
    cpu: f64,
    resident: f64,
}

impl Api {
    pub fn run(&self) -> Result<(), Failed> {
        let runtime = Runtime::new().map_err(|error| broken("no runtime", error))?;
        let free = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr());
        let address = free.map_err(|error| broken("no port", error))?;
        let group = format!("sluice-bench-api-{}", time::wall_millis());
        let mut child = Child::start(&group, &self.configuration(address))?;
        let mut sync = histogram()?;
        sync_times(&child, &mut sync).map_err(|error| broken("cannot sync a file", error))?;
        runtime.block_on(answers(address, &mut child))?;
        let bodies: Arc<Vec<Bytes>> = Arc::new((0..REQUESTS).map(|n| self.request(n)).collect());
        let mut runs = Vec::new();
        for _ in 0..self.repeat {
            for &connections in &self.connections {
                runs.push(runtime.block_on(self.put(address, connections, &bodies, &child))?);
            }
        }
        self.report(&sync, &runs)?;
        if self.made > 0 {
            self.rules(&runtime, address, &mut child)?;
        }
        Ok(())
    }

    fn configuration(&self, address: SocketAddr) -> String {
        let mut text = format!(
            "server: {{ listen: \"{address}\", admin: \"off\", max_connections: 2048 }}\n\
             targets: {{ out: {{ log: {{ group: out }} }} }}\nrules:\n"
        );
        for number in 0..self.rules {
            let pattern = slots::pattern(number, self.rules, 1);
            let written = writeln!(text, "  r{number}: {{ pattern: '{pattern}', targets: [out] }}");
            debug_assert!(written.is_ok(), "a String takes everything");
        }
        text
    }

    /// A request's body.
    fn request(&self, nth: u64) -> Bytes {
        let entry = |number: u64| {
            let event = slots::event(number);
            let detail = event.split_once("\"detail\":").map_or("{}", |(_, rest)| &rest[..rest.len() - 1]);
            json!({ "Source": "shop.orders", "DetailType": "Order Placed", "Detail": detail })
        };
        let entries: Vec<Value> = (nth * self.entries..(nth + 1) * self.entries).map(entry).collect();
        json!({ "Entries": entries }).to_string().into()
    }

    /// One run: connections that put events as fast as they are answered.
    async fn put(
        &self,
        address: SocketAddr,
        connections: u32,
        bodies: &Arc<Vec<Bytes>>,
        child: &Child,
    ) -> Result<Run, Failed> {
        let (begin, before) = (time::now(), child.usage());
        let end = begin + Duration::from_secs(self.seconds);
        let mut callers = JoinSet::new();
        for nth in 0..connections {
            callers.spawn(put(address, nth as usize, Arc::clone(bodies), end));
        }
        let mut latency = histogram()?;
        while let Some(caller) = callers.join_next().await {
            let own = caller.map_err(|error| broken("a caller has failed", error))??;
            latency.add(own).map_err(|error| broken("latencies do not add up", error))?;
        }
        let (seconds, after) = (begin.elapsed().as_secs_f64(), child.usage());
        let cpu = (after.cpu_seconds - before.cpu_seconds) / seconds;
        Ok(Run {
            connections,
            events: latency.len() * self.entries,
            seconds,
            latency,
            cpu,
            resident: after.resident_bytes,
        })
    }

    fn report(&self, sync: &Histogram<u64>, runs: &[Run]) -> Result<(), Failed> {
        let mut out = std::io::stdout().lock();
        let micros = |histogram: &Histogram<u64>, quantile| histogram.value_at_quantile(quantile);
        if self.json {
            let line = json!({ "run": "sync", "p50_us": micros(sync, 0.5), "p99_us": micros(sync, 0.99) });
            writeln!(out, "{line}").map_err(output)?;
        } else {
            let (half, most) = (micros(sync, 0.5), micros(sync, 0.99));
            writeln!(out, "16 KiB written and synced on this disk: p50 {half} us, p99 {most} us").map_err(output)?;
            writeln!(
                out,
                "{:>11} {:>10} {:>8} {:>8} {:>8} {:>10} {:>8}",
                "connections", "events/s", "p50 ms", "p99 ms", "max ms", "% of core", "RSS MiB"
            )
            .map_err(output)?;
        }
        for run in runs {
            let rate = run.events as f64 / run.seconds;
            let millis = |quantile| micros(&run.latency, quantile) as f64 / 1e3;
            let (percent, mib) = (run.cpu * 100.0, run.resident / 1048576.0);
            let line = match self.json {
                true => json!({
                    "run": "put", "connections": run.connections, "entries": self.entries, "rules": self.rules,
                    "events_per_second": rate, "p50_ms": millis(0.5), "p99_ms": millis(0.99), "max_ms": millis(1.0),
                    "cpu_percent": percent, "resident_mib": mib,
                })
                .to_string(),
                false => format!(
                    "{:>11} {rate:>10.0} {:>8.2} {:>8.2} {:>8.2} {percent:>10.0} {mib:>8.1}",
                    run.connections,
                    millis(0.5),
                    millis(0.99),
                    millis(1.0)
                ),
            };
            writeln!(out, "{line}").map_err(output)?;
        }
        Ok(())
    }

    /// Rules that callers make, and a start with all of them after a kill.
    fn rules(&self, runtime: &Runtime, address: SocketAddr, child: &mut Child) -> Result<(), Failed> {
        let next = Arc::new(AtomicU64::new(0));
        let burst = |callers: u32, count: u32| {
            let end = next.load(Ordering::Relaxed) + u64::from(count);
            let begin = time::now();
            runtime.block_on(make(address, callers, &next, end))?;
            next.store(end, Ordering::Relaxed);
            Ok::<_, Failed>(begin.elapsed().as_secs_f64())
        };
        let count = self.made.min(BURST);
        let mut lines = vec![(format!("{count} PutRule, one caller"), burst(1, count)?)];
        let count = (self.made - count).min(BURST);
        if count > 0 {
            lines.push((format!("{count} PutRule, {CALLERS} callers"), burst(CALLERS, count)?));
            burst(CALLERS, self.made.saturating_sub(2 * BURST))?;
        }
        let begin = time::now();
        child.again()?;
        runtime.block_on(answers(address, child))?;
        lines.push((format!("a start with {} rules", self.made + self.rules as u32), begin.elapsed().as_secs_f64()));
        let mut out = std::io::stdout().lock();
        for (what, seconds) in lines {
            let line = match self.json {
                true => json!({ "run": what, "seconds": seconds }).to_string(),
                false => format!("{what}: {seconds:.2} s"),
            };
            writeln!(out, "{line}").map_err(output)?;
        }
        Ok(())
    }
}

/// Microseconds, up to a minute.
fn histogram() -> Result<Histogram<u64>, Failed> {
    Histogram::new_with_max(60_000_000, 3).map_err(|error| broken("no histogram", error))
}

/// How long this disk takes to sync what was written, where the process keeps its data.
fn sync_times(child: &Child, times: &mut Histogram<u64>) -> std::io::Result<()> {
    let path = child.folder().join("sync");
    let mut file = std::fs::File::create(&path)?;
    for _ in 0..200 {
        file.write_all(&[b'x'; 16 << 10])?;
        let begin = time::now();
        file.sync_data()?;
        times.saturating_record(micros(begin));
    }
    std::fs::remove_file(path)
}

fn micros(since: Instant) -> u64 {
    u64::try_from(since.elapsed().as_micros()).unwrap_or(u64::MAX)
}

/// A connection.
struct Line(SendRequest<Full<Bytes>>);

impl Line {
    async fn open(address: SocketAddr) -> Result<Self, Failed> {
        let unreachable = |error: std::io::Error| broken("cannot connect", error);
        let stream = TcpStream::connect(address).await.map_err(unreachable)?;
        stream.set_nodelay(true).map_err(unreachable)?;
        let made = handshake(TokioIo::new(stream)).await;
        let (sender, connection) = made.map_err(|error| broken("cannot connect", error))?;
        tokio::spawn(connection);
        Ok(Self(sender))
    }

    async fn call(&mut self, action: &str, body: Bytes) -> Result<Bytes, Failed> {
        let request = Request::post("/")
            .header("host", "localhost")
            .header("content-type", "application/x-amz-json-1.1")
            .header("x-amz-target", format!("AWSEvents.{action}"))
            .body(Full::new(body))
            .map_err(|error| broken("no request", error))?;
        self.0.ready().await.map_err(|error| broken("the connection has ended", error))?;
        let answer = self.0.send_request(request).await.map_err(|error| broken("no answer", error))?;
        let status = answer.status();
        let body = answer.into_body().collect().await.map_err(|error| broken("no answer", error))?.to_bytes();
        match status.is_success() {
            true => Ok(body),
            false => Err(broken(&format!("{action} was refused"), String::from_utf8_lossy(&body))),
        }
    }
}

/// Waits until the process answers with all of its rules.
async fn answers(address: SocketAddr, child: &mut Child) -> Result<(), Failed> {
    let deadline = time::now() + START;
    loop {
        if let Ok(mut line) = Line::open(address).await
            && line.call("ListEventBuses", Bytes::from_static(b"{}")).await.is_ok()
        {
            return Ok(());
        }
        if child.ended() {
            return Err(broken("sluice has ended", "its reason is above"));
        }
        if time::now() > deadline {
            return Err(broken("sluice does not answer", "a minute has passed"));
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// One caller, until `end`.
async fn put(address: SocketAddr, nth: usize, bodies: Arc<Vec<Bytes>>, end: Instant) -> Result<Histogram<u64>, Failed> {
    let (mut line, mut latency) = (Line::open(address).await?, histogram()?);
    let mut next = nth;
    while time::now() < end {
        let begin = time::now();
        let answer = line.call("PutEvents", bodies[next % bodies.len()].clone()).await?;
        latency.saturating_record(micros(begin));
        if !answer.starts_with(b"{\"FailedEntryCount\":0,") {
            return Err(Failed::new(Exit::No, format!("entries were refused: {}", String::from_utf8_lossy(&answer))));
        }
        next += 1;
    }
    Ok(latency)
}

/// Callers that make rules up to number `end`, from a common count.
async fn make(address: SocketAddr, callers: u32, next: &Arc<AtomicU64>, end: u64) -> Result<(), Failed> {
    let mut all = JoinSet::new();
    for _ in 0..callers {
        let next = Arc::clone(next);
        all.spawn(async move {
            let mut line = Line::open(address).await?;
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if number >= end {
                    return Ok::<_, Failed>(());
                }
                let pattern = format!("{{\"source\":[\"made\"],\"detail\":{{\"n\":[{number}]}}}}");
                let rule = json!({ "Name": format!("made-{number}"), "EventPattern": pattern });
                line.call("PutRule", rule.to_string().into()).await?;
            }
        });
    }
    while let Some(caller) = all.join_next().await {
        caller.map_err(|error| broken("a caller has failed", error))??;
    }
    Ok(())
}
