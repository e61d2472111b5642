//! Times the Rust port of quamina on files of rules and events; prints one JSON object (see load/README.md).

use quamina::Quamina;
use std::error::Error;
use std::fs;
use std::time::Instant;

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().collect();
    let [_, rules, events, repeat] = arguments.as_slice() else { return Err("RULES EVENTS REPEAT".into()) };
    let rules = fs::read_to_string(rules)?;
    let patterns = rules
        .lines()
        .map(|line| Ok(serde_json::from_str::<serde_json::Value>(line)?["pattern"].to_string()))
        .collect::<Result<Vec<String>, Box<dyn Error>>>()?;
    let events = fs::read(events)?;
    let events: Vec<&[u8]> = events.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()).collect();

    let begin = Instant::now();
    let mut quamina = Quamina::new();
    for (number, pattern) in patterns.iter().enumerate() {
        quamina.add_pattern(number, pattern)?;
    }
    let pass = || -> Result<usize, Box<dyn Error>> {
        let mut matches = 0;
        for event in &events {
            matches += quamina.matches_for_event(event)?.len();
        }
        Ok(matches)
    };
    // The first event has the automaton finished.
    quamina.matches_for_event(events.first().ok_or("no events")?)?;
    let build = begin.elapsed().as_secs_f64();
    let matches = pass()?;
    let mut nanos = Vec::new();
    for _ in 0..repeat.parse::<usize>()?.max(1) {
        let begin = Instant::now();
        pass()?;
        nanos.push(begin.elapsed().as_nanos() as f64 / events.len() as f64);
    }
    nanos.sort_by(f64::total_cmp);
    let status = fs::read_to_string("/proc/self/status")?;
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap_or("0 kB");
    let peak: u64 = peak.trim().trim_end_matches(" kB").parse()?;
    println!(
        "{{\"build_seconds\":{build:.6},\"matches\":{matches},\"ns_per_event\":[{:.1},{:.1},{:.1}],\"peak_rss_bytes\":{}}}",
        nanos[0],
        nanos[nanos.len() / 2],
        nanos[nanos.len() - 1],
        peak * 1024
    );
    Ok(())
}
