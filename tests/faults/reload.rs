//! F11: files that change under load, for good and ill.

use crate::caller::Caller;
use crate::load::Load;
use crate::oracle::letters;
use crate::ports::free_port;
use crate::process::Sluice;
use crate::receiver::{Act, Receiver};
use crate::setup::{LONG, committed, reads};
use crate::stage::{Stage, until};
use serde_json::{Value, json};
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// A set of rules: all of an event's deliveries go to targets of one side. Many rules of the same kind, so that a
/// set that takes effect piece by piece is seen.
fn side((listen, source): (&str, &str), side: &str, hung: &str, rules: usize) -> String {
    let mut text = format!(
        "data_dir: data\nserver: {{ listen: \"{listen}\", admin: \"{{admin}}\", shutdown: {{ drain_timeout: 5s }} }}\nsources:\n  in: {{ {source} }}\n\
         targets:\n  hung: {{ http: {{ url: \"{hung}\", timeout: 60s }}, retry: {{ max_attempts: 1 }} }}\n"
    );
    for name in 0..rules {
        text += &format!("  {side}-{name}: {{ log: {{ group: /{side}/{name} }} }}\n");
    }
    text += "rules:\n  a-hung: { pattern: { detail: { n: [1] } }, targets: [hung] }\n";
    for name in 0..rules {
        text += &format!("  r-{name}: {{ pattern: {{ detail: {{ p: [0] }} }}, targets: [{side}-{name}] }}\n");
    }
    text
}

/// What an invalid file looks like.
fn invalid(good: &str, which: u64) -> String {
    match which % 4 {
        0 => format!("{good}  broken: {{ pattern: {{ source: [{{ no-such-operator: 1 }}] }}, targets: [out-0] }}\n"),
        1 => format!("{good}  broken: {{ pattern: [\n"),
        2 => format!("{good}  broken: {{ pattern: {{ source: [a] }}, targets: [nowhere] }}\n"),
        _ => good.replace("targets:", "targetz:"),
    }
}

/// F11.
pub fn files_change(stage: &Stage) {
    const RULES: usize = 24;
    let (reloads, rate) = (stage.pick(100, 20), 2000);
    let (kafka, topic) = (stage.kafka(), stage.name("f11"));
    kafka.topics(&[(&topic, 4, &[])]);
    let hung = Receiver::start(|_, _| Act::Hang);
    let listen = format!("127.0.0.1:{}", free_port());
    let source = reads(&kafka.servers, &topic, "");
    let text = |name: &str| side((&listen, &source), name, &hung.url, RULES);
    let sluice = Sluice::new(&text("left"));
    let load = Load::start(kafka, &topic, 4, (0, 0), rate, u64::MAX);
    let running = sluice.start(&[]);
    let count = |result: &str| running.metric("sluice_config_reloads_total", &format!("result=\"{result}\""));
    until("events flow, and one hangs", LONG, || hung.count() > 0);
    let editor = Editor::start(&listen);
    let (mut rng, mut took, mut bad) = (stage.rng(), Vec::new(), 0.0);
    let mut right = false;
    for reload in 0..reloads {
        let good = text(if right { "left" } else { "right" });
        match rng.below(5) {
            0 if reload > 0 => {
                bad += 1.0;
                let served = count("good");
                sluice.write("sluice.yaml", &invalid(&good, rng.next()));
                until("the invalid file is refused", LONG, || count("bad") >= bad);
                assert_eq!(count("good"), served, "an invalid file leaves the old set");
            }
            kind => {
                if kind == 1 {
                    // Half of it first, as somebody who does not write aside and rename.
                    std::fs::write(sluice.path().join("sluice.yaml"), &good[..good.len() / 2]).expect("half a file");
                }
                let served = count("good");
                sluice.write("sluice.yaml", &good);
                let begin = Instant::now();
                until("the new set serves", LONG, || count("good") > served);
                took.push(begin.elapsed());
                bad = count("bad");
                right = !right;
            }
        }
    }
    stage.note("edits", editor.stop());
    let events = load.stop();
    stage.note("events", events);
    stage.note("reloads", took.len());
    stage.note("invalid", bad);
    stage.note("reload_seconds", crate::stage::worst(&took));
    until("every event is delivered but the one that hangs; else it is lost", LONG, || committed(kafka, &topic));
    running.kill();
    assert!(bad > 0.0 && took.len() > 5, "there were reloads of every kind");
    sides(stage, &sluice, events, RULES);
    assert!(letters(&sluice).is_empty(), "nothing is given up");
    assert!(
        crate::stage::worst(&took) <= Duration::from_millis(2500).as_secs_f64(),
        "{took:?}: a reload waits for no target"
    );
}

/// Makes, changes and removes a rule through the API, again and again; what an answer said is so when it is asked.
struct Editor {
    thread: std::thread::JoinHandle<u64>,
    stop: Arc<AtomicBool>,
}

impl Editor {
    fn start(listen: &str) -> Self {
        let (listen, stop) = (listen.to_owned(), Arc::<AtomicBool>::default());
        let ends = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            let (mut caller, mut edits) = (Caller::new(&listen), 0);
            let mut call = |action: &str, body: Value| {
                let (status, answer) = caller.act(action, body.to_string().as_bytes()).expect("an answer");
                (status, serde_json::from_slice::<Value>(&answer).expect("JSON"))
            };
            while !ends.load(Ordering::Relaxed) {
                let pattern = format!("{{\"source\":[\"edit-{edits}\"]}}");
                let put = call("PutRule", json!({ "Name": "edited", "EventPattern": pattern }));
                assert_eq!(put.0, 200, "{}", put.1);
                let described = call("DescribeRule", json!({ "Name": "edited" })).1;
                assert_eq!(described["EventPattern"], pattern, "the rule is as it was made last");
                assert_eq!(call("DeleteRule", json!({ "Name": "edited" })).0, 200);
                assert_eq!(call("DescribeRule", json!({ "Name": "edited" })).0, 400, "the rule is gone");
                edits += 1;
            }
            edits
        });
        Self { thread, stop }
    }

    /// How often it came round.
    fn stop(self) -> u64 {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().expect("every answer is right")
    }
}

/// Each event is on one side, whole and once.
fn sides(stage: &Stage, sluice: &Sluice, events: u64, rules: usize) {
    let mut seen: HashMap<u64, [usize; 2]> = HashMap::new();
    for (number, side) in ["left", "right"].into_iter().enumerate() {
        for line in (0..rules).flat_map(|rule| sluice.lines(&format!("logs/{side}/{rule}"))) {
            let value: serde_json::Value = serde_json::from_str(&line).expect("a whole line");
            seen.entry(value["detail"]["n"].as_u64().expect("a number")).or_default()[number] += 1;
        }
    }
    let lost = (0..events).filter(|n| !seen.contains_key(n)).count();
    let mixed = seen.values().filter(|sides| **sides != [rules, 0] && **sides != [0, rules]).count();
    stage.note("lost", lost);
    stage.note("mixed", mixed);
    assert_eq!(lost, 0, "events are lost");
    assert_eq!(mixed, 0, "events were matched with parts of two sets: mixed");
}
