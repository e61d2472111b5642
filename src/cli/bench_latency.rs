//! `sluice bench latency`: an open loop. Events are sent when they are due, whatever has become of the earlier ones, and
//! each one's latency counts from the moment it was due, so that a stall is charged to every event that it delays.

use super::bench_broker::{Broker, Brokers, Child, Pair, Reader, broken};
use super::publish::Out;
use super::{bench, corpus::slots, output};
use crate::app::{Exit, Failed};
use crate::metrics::Usage;
use crate::time;
use hdrhistogram::Histogram;
use serde_json::json;
use std::io::Write as _;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// What to measure.
#[derive(clap::Args)]
pub struct Latency {
    #[command(flatten)]
    brokers: Brokers,
    /// Events a second to offer, a run each; 0 measures an idle process
    #[arg(long, value_delimiter = ',', default_value = "0,1000,5000")]
    #[arg(value_parser = clap::value_parser!(u32).range(0..=200_000))]
    rate: Vec<u32>,
    /// Length of a run, after a while to warm up
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=600))]
    seconds: u32,
    /// Number of rules: 1, 100, 1000, 10000
    #[arg(long, default_value = "1000", value_parser = bench::rules)]
    rules: u64,
    /// Tenths of the events that rules match and that are delivered
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=10))]
    tenths: u64,
    /// Milliseconds for which the Kafka producer of the events gathers them; they count as latency
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(0..=1000))]
    linger: u32,
    /// Print JSON lines
    #[arg(long)]
    json: bool,
}

/// Numbers from here on are sent to see whether events arrive at all.
const PROBE: u64 = 1 << 40;
/// How long events may take to begin to arrive.
const START: Duration = Duration::from_secs(30);
/// For how long no event arrives before the rest counts as lost.
const LOST: Duration = Duration::from_secs(10);
/// What is not measured at the beginning of a run.
const WARM: Duration = Duration::from_secs(2);

/// When each event is due.
struct Schedule {
    rate: u64,
    /// Events before those that are measured.
    warm: u64,
    total: u64,
    begin: OnceLock<Instant>,
}

impl Schedule {
    fn new(rate: u32, seconds: u32) -> Self {
        let rate = u64::from(rate);
        let warm = rate * WARM.as_secs();
        Self { rate, warm, total: warm + rate * u64::from(seconds), begin: OnceLock::new() }
    }

    fn due(&self, number: u64) -> Instant {
        let begin = *self.begin.get_or_init(time::now);
        begin
            + Duration::from_nanos(
                u64::try_from(u128::from(number) * 1_000_000_000 / u128::from(self.rate)).unwrap_or(0),
            )
    }
}

/// What a run's two threads tell each other.
#[derive(Default)]
struct Progress {
    ready: AtomicBool,
    arrived: AtomicU64,
    over: AtomicBool,
}

/// What came out.
struct Arrivals {
    /// Microseconds from when an event was due until it was read.
    latency: Histogram<u64>,
    seen: Vec<bool>,
    repeated: u64,
    /// Events that are not, byte for byte, one of those that should come.
    wrong: u64,
    last: Instant,
}

/// One measured run.
struct Run {
    name: &'static str,
    rate: u32,
    arrivals: Arrivals,
    delivered: u64,
    lost: u64,
    /// Events a second that got through.
    achieved: f64,
    /// Of Sluice: percent of a core, and memory.
    usage: Option<(f64, f64)>,
}

fn pause_until(moment: Instant) {
    std::thread::sleep(moment.saturating_duration_since(time::now()));
}

impl Latency {
    pub fn run(&self) -> Result<(), Failed> {
        let broker = self.brokers.open()?;
        self.head(&broker)?;
        let mut good = true;
        for &rate in &self.rate {
            for sluice in [false, true] {
                if rate == 0 && !sluice {
                    continue;
                }
                let pair = broker.pair()?;
                let run = self.measure(&broker, &pair, rate, sluice);
                broker.remove(&pair);
                let run = run?;
                good &= run.lost == 0 && run.arrivals.wrong == 0;
                self.report(&broker, &run)?;
            }
        }
        if good { Ok(()) } else { Err(Failed::new(Exit::No, "events were lost or came out changed")) }
    }

    /// One rate, through Sluice or straight from producer to consumer.
    fn measure(&self, broker: &Broker, pair: &Pair, rate: u32, sluice: bool) -> Result<Run, Failed> {
        let schedule = Schedule::new(rate, self.seconds);
        let progress = Progress::default();
        let reader = broker.reader(if sluice { &pair.to } else { &pair.from })?;
        let mut child = match sluice {
            true => Some(Child::start(&pair.from, &broker.configuration(pair, &pair.from, self.rules, self.tenths))?),
            false => None,
        };
        let (usage, arrivals) = std::thread::scope(|scope| {
            let reading = scope.spawn(|| self.read(reader, &schedule, &progress));
            let usage = self.drive(broker, pair, &schedule, &progress, child.as_mut());
            progress.over.store(true, Ordering::Relaxed);
            let arrivals = reading.join().unwrap_or_else(|_| Err(broken("cannot consume", "the reader has failed")));
            Ok::<_, Failed>((usage?, arrivals?))
        })?;
        let expected = self.expected(0..schedule.total);
        let came = arrivals.seen.iter().filter(|seen| **seen).count() as u64;
        let share = arrivals.latency.len() as f64 / self.expected(schedule.warm..schedule.total).max(1) as f64;
        let offered = (schedule.total - schedule.warm) as f64 * share;
        let achieved = match rate {
            0 => 0.0,
            _ => {
                let took = arrivals.last.saturating_duration_since(schedule.due(schedule.warm)).as_secs_f64();
                offered / took.max(f64::from(self.seconds))
            }
        };
        let name = if sluice { "sluice" } else { "bare" };
        Ok(Run { name, rate, arrivals, delivered: came, lost: expected - came, achieved, usage })
    }

    fn expected(&self, numbers: std::ops::Range<u64>) -> u64 {
        numbers.filter(|&number| slots::matched(number, self.tenths)).count() as u64
    }

    /// Waits until events arrive, sends what is due and waits for its arrival. Returns what the child used meanwhile.
    fn drive(
        &self,
        broker: &Broker,
        pair: &Pair,
        schedule: &Schedule,
        progress: &Progress,
        mut child: Option<&mut Child>,
    ) -> Result<Option<(f64, f64)>, Failed> {
        let mut out = broker.out(&pair.from, &self.linger.to_string())?;
        let probe = (PROBE..).find(|&number| slots::matched(number, self.tenths)).unwrap_or(PROBE);
        send(&mut out, probe)?;
        let deadline = time::now() + START;
        while !progress.ready.load(Ordering::Relaxed) {
            if child.as_mut().is_some_and(|child| child.ended()) {
                return Err(broken("sluice has ended", "its reason is above"));
            }
            if time::now() > deadline {
                return Err(broken("no event arrives", "half a minute has passed"));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        let begin = time::now();
        let read = || child.as_ref().map(|child| (time::now(), child.usage()));
        let mut before = None;
        if schedule.rate == 0 {
            pause_until(begin + WARM);
            before = read();
        } else if schedule.begin.set(begin).is_err() {
            return Err(Failed::new(Exit::Bug, "a schedule begins once"));
        }
        for number in 0..schedule.total {
            pause_until(schedule.due(number));
            if number == schedule.warm {
                before = read();
            }
            send(&mut out, number)?;
        }
        pause_until(begin + WARM + Duration::from_secs(u64::from(self.seconds)));
        let after = read();
        let sent = out.finish();
        if sent != schedule.total + 1 {
            return Err(broken("cannot produce", format!("{sent} of {} events were acknowledged", schedule.total + 1)));
        }
        self.settle(schedule, progress);
        Ok(before.zip(after).map(spent))
    }

    /// Waits until all that should come has come, or nothing comes any more.
    fn settle(&self, schedule: &Schedule, progress: &Progress) {
        let expected = self.expected(0..schedule.total);
        let (mut arrived, mut since) = (0, time::now());
        while arrived < expected && since.elapsed() < LOST {
            std::thread::sleep(Duration::from_millis(20));
            let now = progress.arrived.load(Ordering::Relaxed);
            if now != arrived {
                (arrived, since) = (now, time::now());
            }
        }
    }

    fn read(&self, mut reader: Reader<'_>, schedule: &Schedule, progress: &Progress) -> Result<Arrivals, Failed> {
        let mut arrivals = Arrivals {
            latency: Histogram::new(3).map_err(|error| Failed::new(Exit::Bug, error.to_string()))?,
            seen: vec![false; usize::try_from(schedule.total).unwrap_or(0)],
            repeated: 0,
            wrong: 0,
            last: time::now(),
        };
        loop {
            let Some(payload) = reader.next(Duration::from_millis(100))? else {
                if progress.over.load(Ordering::Relaxed) {
                    return Ok(arrivals);
                }
                continue;
            };
            let now = time::now();
            let known = slots::number(&payload).filter(|&number| slots::event(number).as_bytes() == payload);
            match known {
                Some(PROBE..) => progress.ready.store(true, Ordering::Relaxed),
                // Without Sluice in between, all arrive.
                Some(number) if !slots::matched(number, self.tenths) => {}
                Some(number) => {
                    if arrivals.note(number, now, schedule) {
                        progress.arrived.fetch_add(1, Ordering::Relaxed);
                    }
                }
                None => arrivals.wrong += 1,
            }
        }
    }
}

impl Arrivals {
    /// Notes an event; returns whether it is new.
    fn note(&mut self, number: u64, now: Instant, schedule: &Schedule) -> bool {
        let Some(seen) = usize::try_from(number).ok().and_then(|number| self.seen.get_mut(number)) else {
            self.wrong += 1;
            return false;
        };
        if std::mem::replace(seen, true) {
            self.repeated += 1;
            return false;
        }
        if number >= schedule.warm {
            let micros = now.saturating_duration_since(schedule.due(number)).as_micros();
            // It grows as it needs to: no latency is too long for it.
            self.latency.record(u64::try_from(micros).unwrap_or(u64::MAX)).unwrap_or_default();
            self.last = now;
        }
        true
    }
}

fn send(out: &mut Out, number: u64) -> Result<(), Failed> {
    let sent = out.send(Some(&number.to_string()), slots::event(number).as_bytes());
    sent.map_err(|error| broken("cannot produce", error))
}

/// Percent of a core between two readings, and the memory of the second.
fn spent(((from, before), (to, after)): ((Instant, Usage), (Instant, Usage))) -> (f64, f64) {
    let seconds = to.saturating_duration_since(from).as_secs_f64();
    (100.0 * (after.cpu_seconds - before.cpu_seconds) / seconds, after.resident_bytes)
}

/// What is told of the latencies.
const QUANTILES: [(&str, f64); 5] = [("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("p99.9", 0.999), ("max", 1.0)];

impl Latency {
    fn head(&self, broker: &Broker) -> Result<(), Failed> {
        if self.json {
            return Ok(());
        }
        let mut out = std::io::stdout().lock();
        let bytes = slots::event(0).len();
        writeln!(
            out,
            "{}, events of {bytes} bytes, {} in ten delivered, {} rules, {} s a rate; bare is without sluice in between",
            broker.name(),
            self.tenths,
            self.rules,
            self.seconds
        )
        .map_err(output)?;
        writeln!(
            out,
            "{:<8} {:>10} {:>10} {:>9} {:>9} {:>9} {:>9} {:>9} {:>8} {:>8} {:>6} {:>9}",
            "",
            "offered/s",
            "achieved/s",
            "p50 ms",
            "p90 ms",
            "p99 ms",
            "p99.9 ms",
            "max ms",
            "% core",
            "RSS MiB",
            "lost",
            "repeated"
        )
        .map_err(output)
    }

    fn report(&self, broker: &Broker, run: &Run) -> Result<(), Failed> {
        let latency = &run.arrivals.latency;
        let millis = |quantile| (!latency.is_empty()).then(|| latency.value_at_quantile(quantile) as f64 / 1e3);
        let line = if self.json {
            let quantiles: serde_json::Map<_, _> =
                QUANTILES.iter().map(|(name, quantile)| ((*name).to_owned(), json!(millis(*quantile)))).collect();
            json!({
                "run": run.name, "broker": broker.name(), "rules": self.rules, "tenths_delivered": self.tenths,
                "linger_ms": self.linger, "seconds": self.seconds, "offered_per_second": run.rate, "achieved_per_second": run.achieved,
                "latency_ms": quantiles, "cpu_percent": run.usage.map(|(cpu, _)| cpu),
                "resident_mib": run.usage.map(|(_, resident)| resident / 1048576.0), "delivered": run.delivered,
                "lost": run.lost, "repeated": run.arrivals.repeated, "wrong": run.arrivals.wrong,
            })
            .to_string()
        } else {
            let shown = |value: Option<f64>, digits| value.map_or("-".into(), |value| format!("{value:.digits$}"));
            let mut line = format!("{:<8} {:>10} {:>10.0}", run.name, run.rate, run.achieved);
            for (_, quantile) in QUANTILES {
                line += &format!(" {:>9}", shown(millis(quantile), 2));
            }
            let cpu = shown(run.usage.map(|(cpu, _)| cpu), 2);
            let resident = shown(run.usage.map(|(_, resident)| resident / 1048576.0), 1);
            line + &format!(" {cpu:>8} {resident:>8} {:>6} {:>9}", run.lost, run.arrivals.repeated)
        };
        writeln!(std::io::stdout().lock(), "{line}").map_err(output)
    }
}
