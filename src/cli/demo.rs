//! `sluice demo`: orders are generated, routed and counted before your eyes; at the end the log files are read back, and
//! what the HTTP destination got is counted. The EventBridge endpoint takes further events meanwhile.

use super::Logging;
use super::destination::{Destination, free_address};
use super::orders::Order;
use crate::app::{App, Exit, Failed, Options};
use crate::config::{self, Outside};
use crate::deliver::dispatcher::group_folder;
use crate::metrics::{Metrics, labels};
use crate::time;
use std::collections::HashSet;
use std::io::{BufRead, BufReader, BufWriter, IsTerminal, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// See it work: no file, no broker, no account
#[derive(clap::Args)]
pub struct Demo {
    /// Stop after this long, as in 10s; otherwise Ctrl-C
    #[arg(long = "for", value_parser = time::parse_duration)]
    duration: Option<Duration>,
    /// Orders a second
    #[arg(long, default_value_t = 2000)]
    rate: u32,
    /// Where the log groups go; a temporary folder otherwise
    #[arg(long)]
    data_dir: Option<PathBuf>,
    /// Where the EventBridge endpoint listens; a free port when that one is taken
    #[arg(long, default_value = "127.0.0.1:4566")]
    listen: SocketAddr,
}

const CONFIG: &str = include_str!("../../config/demo.yaml");

/// What the generator sent, by its own arithmetic; the order is that of [`GROUPS`].
#[derive(Default)]
struct Sent {
    counts: [AtomicU64; 4],
}

/// Rule, the log group that its events end in, and what the generator counts for it.
type Group = (&'static str, &'static str, fn(&Order) -> bool);

const GROUPS: [Group; 4] = [
    ("OrdersDevRule", "/aws/events/orders", |_| true),
    ("EUOrdersRule", "/aws/events/eu-orders", Order::is_eu),
    ("USLabSupplyRule", "/aws/events/us-lab-supplies", Order::is_us_lab),
    ("BigOrdersRule", "/aws/events/big-orders", Order::is_big),
];

impl Demo {
    pub fn run(self, logging: &Logging) -> Result<(), Failed> {
        logging.start("warn", config::model::LogFormat::Text)?;
        let own = self.data_dir.is_none();
        let data_dir =
            self.data_dir.unwrap_or_else(|| std::env::temp_dir().join(format!("sluice-demo-{}", std::process::id())));
        let fail = |error: std::io::Error| Failed::new(Exit::Io, format!("cannot use {}: {error}", data_dir.display()));
        std::fs::create_dir_all(&data_dir).map_err(fail)?;
        let before = GROUPS.map(|(_, group, _)| read_back(&data_dir, group).unwrap_or_default().0);
        let path = data_dir.join("demo.yaml");
        std::fs::write(&path, CONFIG).map_err(fail)?;
        let listen = free_address(self.listen).map_err(fail)?;
        let destination = Destination::serve().map_err(fail)?;
        let outside = |name: &str| match name {
            "DEMO_LISTEN" => Some(listen.to_string()),
            "DEMO_DESTINATION" => Some(destination.url.clone()),
            _ => None,
        };
        let mut loaded = config::load(&[path], &Outside { env: &outside, only_rules: false })
            .map_err(|problems| Failed::new(Exit::Config, problems.to_string()))?;
        loaded.config.data_dir = data_dir.clone();

        let (reader, writer) = std::io::pipe().map_err(fail)?;
        let (sent, stop) = (Arc::new(Sent::default()), Arc::new(AtomicBool::new(false)));
        println!("{}", intro(self.rate, listen));
        let extra =
            Some(("generator".to_owned(), "Orders".to_owned(), Box::new(reader) as Box<dyn std::io::Read + Send>));
        let app = App::start(loaded, Options { extra, ..Options::default() })?;
        let generator = {
            let (sent, stop, stopping, rate) = (Arc::clone(&sent), Arc::clone(&stop), app.stopping(), self.rate);
            // Once the router drains, the pipe closes, and the source reads what is in it.
            std::thread::spawn(move || {
                generate(writer, rate, &sent, || stop.load(Ordering::Relaxed) || stopping.is_set())
            })
        };
        let metrics = Arc::clone(&app.metrics);
        let mut view = View::new();
        let begin = time::now();
        let ran = app.run(|metrics| {
            view.show(metrics, false);
            if self.duration.is_some_and(|duration| begin.elapsed() >= duration) {
                // The pipe closes, the source reads what is in it, and the run ends by itself.
                stop.store(true, Ordering::Relaxed);
            }
            true
        });
        view.show(&metrics, true);
        stop.store(true, Ordering::Relaxed);
        let generated = generator.join().is_ok();
        ran?;
        let others = metrics.families.source_events.get_or_create(&labels([("source", "http")])).get();
        let good = generated
            && summary(&data_dir, &sent, before, others)
            && destination.summary(sent.counts[1].load(Ordering::Relaxed), others);
        println!("\n{}", next_steps(&data_dir, own));
        if good { Ok(()) } else { Err(Failed::new(Exit::No, "what was sent and what was read back differ")) }
    }
}

/// Writes orders at the rate until told to stop.
fn generate(writer: std::io::PipeWriter, rate: u32, sent: &Sent, stop: impl Fn() -> bool) {
    let mut out = BufWriter::with_capacity(64 << 10, writer);
    let begin = time::now();
    let mut number = 0u64;
    while !stop() {
        let due = (begin.elapsed().as_secs_f64() * f64::from(rate)) as u64;
        while number < due {
            let order = Order::new(number);
            if writeln!(out, "{}", order.event(time::wall_millis())).is_err() {
                return;
            }
            for (count, (_, _, counts)) in sent.counts.iter().zip(GROUPS) {
                if counts(&order) {
                    count.fetch_add(1, Ordering::Relaxed);
                }
            }
            number += 1;
        }
        if out.flush().is_err() {
            return;
        }
        // Paces the stream.
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn intro(rate: u32, listen: SocketAddr) -> String {
    format!(
        "Sluice demo: {rate} orders a second onto the bus `Orders`, four rules, log groups as targets.\n\
         EU orders also go to an HTTP destination that wants a user name and a password.\n\
         The rules are in config/demo.yaml; no broker and no account is involved. Send an order of your own:\n  \
         aws events put-events --endpoint-url http://{listen} --region us-east-1 --entries \\\n    \
         '[{{\"EventBusName\":\"Orders\",\"Source\":\"com.aws.orders\",\"DetailType\":\"Order\",\"Detail\":\"{{\\\"location\\\":\\\"eu-west\\\"}}\"}}]'"
    )
}

/// The running display: redrawn on a terminal, a line a second otherwise.
struct View {
    terminal: bool,
    shown_at: Instant,
    events: u64,
    drawn: usize,
}

impl View {
    fn new() -> Self {
        Self { terminal: std::io::stdout().is_terminal(), shown_at: time::now(), events: 0, drawn: 0 }
    }

    fn show(&mut self, metrics: &Metrics, last: bool) {
        let elapsed = self.shown_at.elapsed();
        if elapsed < Duration::from_secs(1) && !last {
            return;
        }
        let families = &metrics.families;
        let events = families.source_events.get_or_create(&labels([("source", "generator")])).get();
        let rate = (events - self.events) as f64 / elapsed.as_secs_f64().max(0.001);
        (self.shown_at, self.events) = (time::now(), events);
        let age = families.event_age.get_or_create_owned(&labels([("target", "all-orders")]));
        let quantile = |q| age.quantile(q).as_secs_f64() * 1000.0;
        let (p50, p99) = (quantile(0.5), quantile(0.99));
        let mut lines = vec![format!("{rate:>8.0} events/s   {events:>10} events   p50 {p50:.2} ms   p99 {p99:.2} ms")];
        for (rule, group, _) in GROUPS {
            let own = labels([("bus", "Orders"), ("rule", rule), ("state", "enabled")]);
            let matches = families.rule_matches.get_or_create(&own).get();
            let target = targets_of(rule);
            let own = labels([("target", target), ("outcome", "delivered")]);
            let delivered = families.target_deliveries.get_or_create(&own).get();
            lines.push(format!("  {rule:<16} {matches:>10} matched   {delivered:>10} delivered   {group}"));
        }
        let mut out = std::io::stdout().lock();
        let text = match self.terminal {
            true => format!("{}{}", "\x1b[1A\x1b[2K".repeat(self.drawn), lines.join("\n")),
            false => lines.iter().map(|line| line.trim()).collect::<Vec<_>>().join(" | "),
        };
        self.drawn = lines.len();
        // A display that nobody reads is no reason to stop.
        writeln!(out, "{text}").and_then(|()| out.flush()).unwrap_or_default();
    }
}

/// The target whose deliveries end in a rule's log group.
fn targets_of(rule: &str) -> &'static str {
    match rule {
        "EUOrdersRule" => "eu-orders",
        "USLabSupplyRule" => "us-lab-supplies",
        "BigOrdersRule" => "big-orders-log",
        _ => "all-orders",
    }
}

/// Compares what was sent with what lies in the log files; prints both.
fn summary(data_dir: &Path, sent: &Sent, before: [usize; 4], others: u64) -> bool {
    println!("\n{:<18} {:>10} {:>10} {:>10}   log group", "rule", "sent", "read back", "repeated");
    let mut good = true;
    for (((rule, group, _), sent), before) in GROUPS.iter().zip(&sent.counts).zip(before) {
        let sent = sent.load(Ordering::Relaxed);
        let (lines, distinct) = read_back(data_dir, group).unwrap_or_default();
        let (lines, repeated) = (lines - before.min(lines), lines - distinct);
        // What came over the endpoint is not the generator's.
        let same = (sent..=sent + others).contains(&(lines as u64)) && (before > 0 || repeated == 0);
        good &= same;
        println!("{rule:<18} {sent:>10} {lines:>10} {repeated:>10}   {group}{}", if same { "" } else { "   DIFFERS" });
    }
    println!("{}", if good { "every order is where it belongs" } else { "SOMETHING IS MISSING OR TOO MUCH" });
    good
}

/// Lines of a log group, and how many different order ids they have.
fn read_back(data_dir: &Path, group: &str) -> std::io::Result<(usize, usize)> {
    let (mut lines, mut ids) = (0, HashSet::new());
    for entry in std::fs::read_dir(group_folder(data_dir, group))? {
        let path = entry?.path();
        if path.is_file() {
            for line in BufReader::new(std::fs::File::open(path)?).lines() {
                let event: serde_json::Value = serde_json::from_str(&line?)?;
                lines += 1;
                ids.insert(event["id"].to_string());
            }
        }
    }
    Ok((lines, ids.len()))
}

fn next_steps(data_dir: &Path, own: bool) -> String {
    let data_dir = data_dir.display();
    let kept = if own { " (a temporary folder; remove it when you are done)" } else { "" };
    format!(
        "The log groups are in {data_dir}{kept}. Try next:\n  \
         sluice logs ls --data-dir {data_dir}\n  \
         sluice logs search /aws/events/eu-orders --data-dir {data_dir} --pattern '{{\"detail\":{{\"value\":[{{\"numeric\":[\">\",1190]}}]}}}}'\n  \
         sluice config init --kind pipe my-sluice\n  \
         sluice config init --kind stream my-stream"
    )
}
