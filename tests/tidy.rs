//! The house rules that the compiler does not know: who may use whom, how long files are, what each package is for.

#![allow(clippy::expect_used, clippy::panic)]

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// Which modules a module may use; `app`, `cli` and `main` may use all.
const EDGES: &[(&str, &[&str])] = &[
    ("event", &[]),
    ("pattern", &["event"]),
    ("matcher", &["pattern", "event"]),
    ("transform", &["event"]),
    ("schedule", &[]),
    ("catalog", &["pattern", "schedule", "transform"]),
    ("plan", &["catalog", "event", "pattern", "matcher", "transform"]),
    ("lint", &["catalog", "matcher", "pattern"]),
    ("planted", &[]),
    ("credit", &[]),
    ("ack", &["credit", "planted"]),
    ("envelope", &["ack", "catalog", "plan", "transform"]),
    ("journal", &["time"]),
    ("kafka", &["metrics", "time"]),
    ("tls", &["catalog"]),
    ("nats", &["catalog", "tls"]),
    ("webhook", &["time"]),
    ("egress", &[]),
    ("tap", &[]),
    ("metrics", &[]),
    ("time", &[]),
    (
        "source",
        &[
            "envelope",
            "ack",
            "credit",
            "plan",
            "transform",
            "catalog",
            "config",
            "metrics",
            "time",
            "kafka",
            "nats",
            "journal",
            "planted",
        ],
    ),
    (
        "deliver",
        &[
            "archive",
            "envelope",
            "ack",
            "credit",
            "catalog",
            "plan",
            "config",
            "metrics",
            "time",
            "journal",
            "kafka",
            "nats",
            "planted",
            "tls",
            "egress",
            "webhook",
            "tap",
            "transform",
        ],
    ),
    ("careful", &[]),
    (
        "worker",
        &[
            "careful",
            "envelope",
            "event",
            "matcher",
            "transform",
            "plan",
            "catalog",
            "deliver",
            "metrics",
            "planted",
            "tap",
            "time",
        ],
    ),
    ("config", &["catalog", "pattern", "schedule", "transform", "event", "plan", "time", "webhook", "egress"]),
    ("archive", &["catalog", "event", "kafka", "nats", "time"]),
    ("resources", &["catalog", "pattern", "plan", "schedule", "transform"]),
    ("store", &["resources"]),
    ("control", &["archive", "catalog", "plan", "planted", "resources", "store", "time"]),
    (
        "service",
        &[
            "archive",
            "catalog",
            "control",
            "deliver",
            "envelope",
            "event",
            "metrics",
            "plan",
            "resources",
            "schedule",
            "source",
            "time",
            "transform",
        ],
    ),
    ("reload", &["control", "catalog", "config", "metrics", "time"]),
    (
        "api",
        &[
            "archive",
            "control",
            "catalog",
            "config",
            "metrics",
            "tap",
            "time",
            "webhook",
            "event",
            "pattern",
            "transform",
            "plan",
            "envelope",
            "resources",
            "source",
            "dlq",
        ],
    ),
    (
        "dlq",
        &[
            "ack",
            "catalog",
            "config",
            "credit",
            "deliver",
            "envelope",
            "event",
            "kafka",
            "pattern",
            "plan",
            "time",
            "transform",
            "worker",
        ],
    ),
];

const CORE: [&str; 8] = ["event", "pattern", "matcher", "transform", "schedule", "catalog", "plan", "lint"];

/// Package, the file where it does its job, and what that looks like.
const JOBS: [(&str, &str, &str); 10] = [
    ("tokio", "src/app/mod.rs", "tokio::runtime::Builder"),
    ("rdkafka (in)", "src/source/kafka.rs", "BaseConsumer"),
    ("rdkafka (out)", "src/kafka/producer.rs", "BaseProducer"),
    ("simd-json", "src/event/scan.rs", "fill_tape_padded(padded, len, &mut self.buffers"),
    ("bumpalo", "src/event/decode.rs", "with_capacity_in("),
    ("crossbeam-channel", "src/envelope.rs", "bounded(LANE_BATCHES)"),
    ("hdrhistogram", "src/metrics.rs", "Mutex<Histogram<u64>>"),
    ("criterion", "benches/pipeline.rs", "criterion_group!"),
    ("quick-xml", "src/cli/test/report.rs", "Writer::new_with_indent("),
    ("mimalloc", "src/main.rs", "#[global_allocator]"),
];

fn top() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn files(folder: &str, end: &str) -> Vec<PathBuf> {
    let (mut found, mut todo) = (Vec::new(), vec![top().join(folder)]);
    while let Some(folder) = todo.pop() {
        for entry in std::fs::read_dir(&folder).expect("a folder").flatten() {
            let path = entry.path();
            if path.is_dir() {
                todo.push(path);
            } else if path.to_string_lossy().ends_with(end) {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn name(path: &Path) -> String {
    path.strip_prefix(top()).expect("a file of ours").display().to_string()
}

/// The top-level module of a file under `src`.
fn module(path: &Path) -> String {
    let inside = path.strip_prefix(top().join("src")).expect("under src");
    let first = inside.components().next().expect("a name").as_os_str().to_string_lossy().into_owned();
    first.trim_end_matches(".rs").to_owned()
}

/// The modules that a text names after `crate::`, in `use` lists and in paths.
fn uses(text: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for (at, _) in text.match_indices("crate::") {
        let rest = &text[at + "crate::".len()..];
        let names = match rest.strip_prefix('{') {
            Some(list) => list.split_once('}').map_or("", |(list, _)| list),
            None => rest,
        };
        for name in names.split(',').take(if rest.starts_with('{') { usize::MAX } else { 1 }) {
            let word: String = name.trim().chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
            found.insert(word);
        }
    }
    found
}

#[test]
fn modules_use_only_what_they_may() {
    let table: BTreeMap<&str, &[&str]> = EDGES.iter().copied().collect();
    let mut wrong = Vec::new();
    for path in files("src", ".rs") {
        let module = module(&path);
        if matches!(module.as_str(), "app" | "cli" | "main" | "lib") {
            continue;
        }
        let allowed = table.get(module.as_str()).unwrap_or_else(|| panic!("module {module} is not in the table"));
        for used in uses(&read(&path)) {
            if used != module && !allowed.contains(&used.as_str()) {
                wrong.push(format!("{} uses {used}", name(&path)));
            }
        }
    }
    assert!(wrong.is_empty(), "edges that the table does not have:\n{}", wrong.join("\n"));
}

#[test]
fn the_core_is_pure() {
    let banned = [
        "std::fs",
        "std::io::",
        "std::net::Tcp",
        "std::net::Udp",
        "std::thread",
        "std::time::Instant",
        "SystemTime",
        "static ",
        "tokio",
        "rdkafka",
        "tracing",
        "std::env",
    ];
    for path in files("src", ".rs").iter().filter(|path| CORE.contains(&module(path).as_str())) {
        for (number, line) in read(path).lines().enumerate().filter(|(_, line)| !line.trim_start().starts_with("//")) {
            let word = banned.iter().find(|word| line.contains(**word) && !line.contains("'static"));
            assert!(
                word.is_none(),
                "{}:{}: `{}` has no place in the core",
                name(path),
                number + 1,
                word.unwrap_or(&"")
            );
        }
    }
}

#[test]
fn each_package_does_its_job() {
    for (package, file, job) in JOBS {
        assert!(read(&top().join(file)).contains(job), "{package} should do its job in {file}: `{job}`");
    }
    assert!(read(&top().join("src/event/scan.rs")).contains("structural_indexes()"));
}

#[test]
fn files_fit_one_reading() {
    for path in files("src", ".rs").into_iter().chain(files("tests", ".rs")).chain(files("benches", ".rs")) {
        let lines = read(&path).lines().count();
        assert!(lines <= 600, "{} has {lines} lines; more than 600 are two files", name(&path));
    }
    let architecture = read(&top().join("ARCHITECTURE.md")).lines().count();
    assert!(architecture <= 250, "ARCHITECTURE.md has {architecture} lines, at most 250");
}

#[test]
fn every_module_says_what_it_is() {
    for path in files("src", ".rs") {
        let text = read(&path);
        let documented = text.starts_with("//!") || text.starts_with("#![doc");
        assert!(documented, "{} begins without a module comment", name(&path));
    }
}

#[test]
fn features_are_switched_in_one_file() {
    for path in files("src", ".rs").iter().filter(|path| !path.ends_with("src/lib.rs")) {
        assert!(!read(path).contains("cfg(feature"), "{}: cfg(feature) belongs into lib.rs", name(path));
    }
}

/// Planted faults are for the fault suite alone.
#[test]
fn no_release_has_planted_faults() {
    let manifest = read(&top().join("Cargo.toml"));
    assert!(manifest.contains("\ndefault = [\"sidecar\"]\n") && manifest.contains("\nplanted = []\n"));
    assert!(!read(&top().join("Dockerfile")).contains("planted"));
}

/// Words that a finished tree does not have; spelled in halves so that this file has none of them.
#[test]
fn nothing_is_left_open() {
    let words =
        [concat!("TO", "DO"), concat!("FIX", "ME"), concat!("X", "XX"), concat!("#[ig", "nore"), concat!("to", "do!(")];
    let places = [concat!("/wo", "rk/"), concat!("/ro", "ot/")];
    let sources = files("src", ".rs")
        .into_iter()
        .chain(files("tests", ""))
        .chain(files("benches", ".rs"))
        .chain(files("config", ""));
    for path in sources {
        let Ok(text) = std::fs::read_to_string(&path) else { continue };
        for word in words.iter().chain(&places) {
            assert!(!text.contains(word), "{} contains `{word}`", name(&path));
        }
    }
}

#[test]
fn architecture_names_every_module() {
    let text = read(&top().join("ARCHITECTURE.md"));
    for (module, _) in EDGES {
        assert!(text.contains(&format!("`{module}`")), "ARCHITECTURE.md does not name `{module}`");
    }
}
