//! What the process says about itself: counters, histograms, health. Names follow Prometheus, prefix `sluice_`.
//!
//! Hot paths hold handles that were looked up when the plan was made, never names.

use hdrhistogram::Histogram;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::{MetricType, TypedMetric, counter::Counter, family::Family, gauge::Gauge};
use prometheus_client::registry::Registry;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Label names and values.
pub type Labels = Vec<(&'static str, String)>;

/// Bounds of exported histogram buckets, in seconds.
const BUCKETS: [f64; 16] =
    [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0];

/// A latency histogram in microseconds, two significant digits, up to an hour. Clones share it.
#[derive(Clone)]
pub struct Latency(Arc<Mutex<Histogram<u64>>>);

const HOUR_MICROS: u64 = 3_600_000_000;

/// An empty histogram of [`Latency`]'s shape.
pub fn histogram() -> Histogram<u64> {
    // The bounds are constants that the constructor accepts; an auto-resizing histogram is as good.
    Histogram::new_with_bounds(1, HOUR_MICROS, 2)
        .unwrap_or_else(|_| Histogram::new(2).unwrap_or_else(|_| unreachable!()))
}

impl Default for Latency {
    fn default() -> Self {
        Self(Arc::new(Mutex::new(histogram())))
    }
}

impl Latency {
    fn lock(&self) -> MutexGuard<'_, Histogram<u64>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Records `count` events of one duration.
    pub fn record(&self, duration: Duration, count: u64) {
        let micros = u64::try_from(duration.as_micros()).unwrap_or(HOUR_MICROS).min(HOUR_MICROS);
        self.lock().saturating_record_n(micros, count);
    }

    /// The value that `quantile` of the records do not exceed.
    pub fn quantile(&self, quantile: f64) -> Duration {
        Duration::from_micros(self.lock().value_at_quantile(quantile))
    }

    /// How many were recorded.
    pub fn count(&self) -> u64 {
        self.lock().len()
    }
}

impl std::fmt::Debug for Latency {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Latency({})", self.count())
    }
}

impl TypedMetric for Latency {
    const TYPE: MetricType = MetricType::Histogram;
}

impl EncodeMetric for Latency {
    fn encode(&self, mut encoder: MetricEncoder<'_>) -> Result<(), std::fmt::Error> {
        let histogram = self.lock();
        let (mut below, mut from) = (Vec::with_capacity(BUCKETS.len() + 1), 0);
        for bound in BUCKETS {
            let to = (bound * 1e6) as u64;
            below.push((bound, histogram.count_between(from, to)));
            from = to + 1;
        }
        let counted: u64 = below.iter().map(|(_, count)| count).sum();
        below.push((f64::INFINITY, histogram.len().saturating_sub(counted)));
        let sum = histogram.mean() * histogram.len() as f64 / 1e6;
        encoder.encode_histogram::<NoLabelSet>(if sum.is_nan() { 0.0 } else { sum }, histogram.len(), &below, None)
    }

    fn metric_type(&self) -> MetricType {
        MetricType::Histogram
    }
}

macro_rules! families {
    ($($(#[doc = $help:literal])+ $field:ident: $kind:ty = $name:literal;)+) => {
        /// Every metric family. Handles come from [`Metrics::counter`] and the like.
        #[derive(Default)]
        pub struct Families {
            $($(#[doc = $help])+ pub $field: Family<Labels, $kind>,)+
        }

        impl Families {
            fn register(&self, registry: &mut Registry) {
                $(registry.register($name, concat!($($help),+).trim().trim_end_matches('.'), self.$field.clone());)+
            }
        }
    };
}

families! {
    /// Records read by a source.
    source_events: Counter = "source_received_events";
    /// Bytes of records read by a source.
    source_bytes: Counter = "source_received_bytes";
    /// Records that are no valid events.
    source_rejected: Counter = "source_rejected_events";
    /// Records between the committed position and the end of the partition.
    source_lag: Gauge = "source_lag_events";
    /// Messages that a server gave once more.
    source_redelivered: Counter = "source_redelivered_events";
    /// Messages that a stream removed before they were read; they are lost.
    source_removed: Counter = "source_removed_events";
    /// Partitions paused because their deliveries do not settle.
    source_paused: Gauge = "source_paused_partitions";
    /// Events in flight: read and not settled.
    source_in_flight: Gauge = "source_in_flight_events";
    /// Rebalances of a consumer group seen.
    source_rebalances: Counter = "source_rebalances";
    /// Events routed on a bus, by whether some rule matched.
    bus_events: Counter = "bus_events";
    /// Time from reading a record to the worker taking it.
    queue_duration: Latency = "queue_duration_seconds";
    /// Time to decode, match and hand over one event, averaged over its batch.
    match_duration: Latency = "match_duration_seconds";
    /// Events a rule matched.
    rule_matches: Counter = "rule_matches";
    /// Deliveries that ended, by outcome.
    target_deliveries: Counter = "target_deliveries";
    /// Attempts to deliver.
    target_attempts: Counter = "target_attempts";
    /// Attempts that failed and are repeated later.
    target_retries: Counter = "target_retries";
    /// Deliveries open at a target.
    target_in_flight: Gauge = "target_in_flight";
    /// Time from an attempt to its acknowledgement.
    target_duration: Latency = "target_delivery_duration_seconds";
    /// Time from reading an event to its acknowledgement by a target.
    event_age: Latency = "event_age_seconds";
    /// Deliveries that wait in a target's retry log.
    retry_log_events: Gauge = "target_retry_log_events";
    /// Bytes of a target's retry log on disk.
    retry_log_bytes: Gauge = "target_retry_log_bytes";
    /// Whether a target's breaker is open: one probe at a time is let through.
    breaker_open: Gauge = "target_breaker_open";
    /// Damaged records of a journal that were skipped; what they held is lost.
    journal_skipped: Counter = "journal_skipped_records";
    /// Events of a schedule that were sent.
    schedule_fires: Counter = "schedule_fires";
    /// Due times of a schedule that were left out: more were missed than are caught up.
    schedule_skipped: Counter = "schedule_skipped_fires";
    /// Time from when a schedule was due to its event being kept.
    schedule_delay: Latency = "schedule_delay_seconds";
    /// Places in archives that are damaged and left out.
    archive_damaged: Counter = "archive_damaged_places";
    /// Events written to a dead-letter queue.
    dlq_events: Counter = "dlq_events";
    /// Failed writes to a dead-letter queue; they are repeated.
    dlq_write_errors: Counter = "dlq_write_errors";
    /// Dead letters that their queue does not take; their partitions wait with them.
    blocked: Gauge = "blocked";
    /// Events dropped on purpose.
    dropped_events: Counter = "dropped_events";
    /// Reloads of the configuration, by result.
    config_reloads: Counter = "config_reloads";
    /// Whether the last reload was good.
    config_last_reload_successful: Gauge = "config_last_reload_successful";
    /// Counts swaps of the plan.
    ruleset_generation: Gauge = "ruleset_generation";
    /// Rules, by bus and state.
    ruleset_rules: Gauge = "ruleset_rules";
    /// Time a worker was at work.
    worker_busy: Counter<f64, AtomicU64> = "worker_busy_seconds";
    /// The version that runs.
    build_info: Gauge = "build_info";
}

/// All metrics and the health of one process.
pub struct Metrics {
    /// The families.
    pub families: Families,
    /// Health.
    pub health: Health,
    registry: Mutex<Registry>,
    rule_labels: Mutex<usize>,
    schedule_labels: Mutex<BTreeSet<String>>,
    max_rules: usize,
}

impl Metrics {
    /// Fresh metrics with at most `max_rules` rule labels.
    pub fn new(max_rules: usize) -> Self {
        let families = Families::default();
        let mut registry = Registry::with_prefix("sluice");
        families.register(&mut registry);
        registry.register_collector(Box::new(Process));
        let version = vec![("version", env!("CARGO_PKG_VERSION").to_owned())];
        families.build_info.get_or_create(&version).set(1);
        Self {
            families,
            health: Health::default(),
            registry: Mutex::new(registry),
            rule_labels: Mutex::new(0),
            schedule_labels: Mutex::default(),
            max_rules,
        }
    }

    /// The counter of a rule; beyond the bound of labels, the shared one of its bus.
    pub fn rule(&self, bus: &str, rule: &str, shadow: bool) -> Counter {
        let state = if shadow { "shadow" } else { "enabled" };
        let labels = |rule: &str| vec![("bus", bus.to_owned()), ("rule", rule.to_owned()), ("state", state.to_owned())];
        let mut used = self.rule_labels.lock().unwrap_or_else(PoisonError::into_inner);
        let own = labels(rule);
        if let Some(known) = self.families.rule_matches.get(&own) {
            return known.clone();
        }
        if *used >= self.max_rules {
            return self.families.rule_matches.get_or_create_owned(&labels("_other"));
        }
        *used += 1;
        self.families.rule_matches.get_or_create_owned(&own)
    }

    /// A schedule's counter in a family; beyond the bound of labels, a shared one.
    pub fn schedule(&self, family: &Family<Labels, Counter>, schedule: &str) -> Counter {
        let mut known = self.schedule_labels.lock().unwrap_or_else(PoisonError::into_inner);
        let own = known.contains(schedule) || known.len() < self.max_rules && known.insert(schedule.to_owned());
        family.get_or_create_owned(&labels([("schedule", if own { schedule } else { "_other" })]))
    }

    /// The Prometheus text format.
    pub fn render(&self) -> String {
        let mut out = String::new();
        let registry = self.registry.lock().unwrap_or_else(PoisonError::into_inner);
        // Writing to a String cannot fail.
        let written = prometheus_client::encoding::text::encode(&mut out, &registry);
        debug_assert!(written.is_ok(), "writing to a String cannot fail");
        out
    }
}

/// Labels from pairs.
pub fn labels<const N: usize>(pairs: [(&'static str, &str); N]) -> Labels {
    pairs.into_iter().map(|(name, value)| (name, value.to_owned())).collect()
}

/// Whether the process is fit for traffic, and why not.
#[derive(Default)]
pub struct Health {
    started: AtomicBool,
    draining: AtomicBool,
    reasons: Mutex<BTreeMap<String, String>>,
    notes: Mutex<BTreeMap<String, String>>,
}

impl Health {
    /// Everything is running.
    pub fn set_started(&self) {
        self.started.store(true, Ordering::Release);
    }

    /// Whether it ever was.
    pub fn started(&self) -> bool {
        self.started.load(Ordering::Acquire)
    }

    /// The process is on its way out.
    pub fn set_draining(&self) {
        self.draining.store(true, Ordering::Release);
    }

    /// Notes why `part` is not ready, or that it is.
    pub fn set(&self, part: &str, reason: Option<String>) {
        let mut reasons = self.reasons.lock().unwrap_or_else(PoisonError::into_inner);
        match reason {
            Some(reason) => reasons.insert(part.to_owned(), reason),
            None => reasons.remove(part),
        };
    }

    /// Notes what is wrong with `part` while the process is fit for traffic all the same, or that nothing is.
    pub fn note(&self, part: &str, note: Option<String>) {
        let mut notes = self.notes.lock().unwrap_or_else(PoisonError::into_inner);
        match note {
            Some(note) => notes.insert(part.to_owned(), note),
            None => notes.remove(part),
        };
    }

    /// What is wrong without making the process unfit.
    pub fn notes(&self) -> BTreeMap<String, String> {
        self.notes.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Why the process is not ready; empty when it is.
    pub fn not_ready(&self) -> BTreeMap<String, String> {
        let mut reasons = self.reasons.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if !self.started() {
            reasons.insert("start".into(), "starting".into());
        }
        if self.draining.load(Ordering::Acquire) {
            reasons.insert("drain".into(), "draining".into());
        }
        reasons
    }
}

/// Memory, processor time and descriptors, as the kernel counts them.
#[derive(Debug)]
struct Process;

impl Collector for Process {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let usage = Usage::read();
        let mut gauge = |name: &str, help: &str, value: f64| {
            let encoder = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
            Gauge::<f64, AtomicU64>::default().tap(value).encode(encoder)
        };
        gauge("process_resident_memory_bytes", "Resident memory", usage.resident_bytes)?;
        gauge("process_cpu_seconds", "Processor time used", usage.cpu_seconds)?;
        gauge("process_open_fds", "Open descriptors", usage.open_fds)
    }
}

trait Tap {
    fn tap(self, value: f64) -> Self;
}

impl Tap for Gauge<f64, AtomicU64> {
    fn tap(self, value: f64) -> Self {
        self.set(value);
        self
    }
}

/// What the process uses; zeros where the kernel does not tell.
#[derive(Debug, Clone, Copy, Default)]
pub struct Usage {
    /// Resident memory.
    pub resident_bytes: f64,
    /// User and system time.
    pub cpu_seconds: f64,
    /// Open descriptors.
    pub open_fds: f64,
}

impl Usage {
    /// What this process uses.
    pub fn read() -> Self {
        Self::of("self")
    }

    /// The most bytes that this process has had resident.
    pub fn peak() -> u64 {
        let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
        let kib = status.lines().find_map(|line| line.strip_prefix("VmHWM:")?.trim().strip_suffix(" kB")?.parse().ok());
        kib.map_or(0, |kib: u64| kib << 10)
    }

    /// What a process uses, by its number.
    pub fn of(process: &str) -> Self {
        let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
        // Fields after the command name, which may hold anything: utime is the 12th, stime the 13th; 100 ticks a second.
        let fields: Vec<f64> = stat
            .rsplit_once(") ")
            .map(|(_, rest)| rest.split(' ').map(|field| field.parse().unwrap_or(0.0)).collect())
            .unwrap_or_default();
        let field = |n: usize| fields.get(n).copied().unwrap_or(0.0);
        Self {
            resident_bytes: field(21) * 4096.0,
            cpu_seconds: (field(11) + field(12)) / 100.0,
            open_fds: std::fs::read_dir(format!("/proc/{process}/fd")).map_or(0.0, |fds| fds.count() as f64),
        }
    }
}
