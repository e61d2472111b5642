//! Whether the suite sees faults: each planted one must make its scenario fail, by the judgement that it should.

use crate::stage::Stage;
use std::collections::BTreeSet;
use std::sync::Mutex;

/// A planted fault, the scenario that finds it, and the words of its judgement.
const BUGS: [(&str, &str, &str); 12] = [
    ("CommitBeforeAck", "F01b", "events are lost"),
    ("CommitHighest", "F01b", "events are lost"),
    ("OffByOneCommit", "F13", "repeats nothing: duplicates"),
    ("IgnoreDeliveryError", "F05", "attempts of"),
    ("LateSettle", "F09b", "went backward"),
    ("FlushSkipped", "F13", "events are lost"),
    ("SpillAckIgnored", "F18b", "events that were accepted are lost"),
    ("DropWhenDlqFails", "F18b", "lost as dead letters"),
    ("AnswerBeforeSync", "F19", "answered before their sync"),
    ("IdPerAttempt", "F05", "differ in delivery ids"),
    ("RedirectFollowed", "F05", "no redirect is followed"),
    ("ReloadRuleByRule", "F11", "with parts of two sets"),
];

/// The planted fault that processes get.
static CHOSEN: Mutex<Option<&str>> = Mutex::new(None);

/// What to plant in a process that is started now.
pub fn chosen() -> Option<&'static str> {
    *CHOSEN.lock().expect("a lock")
}

fn scenario(name: &str) -> &'static crate::Scenario {
    crate::SCENARIOS.iter().find(|(known, ..)| *known == name).expect("a scenario")
}

/// Plays the scenarios without a fault, then with each one that is `wanted`; those that were not found.
pub fn hunt(stage: &mut Stage, wanted: &[String]) -> Vec<&'static str> {
    let bugs: Vec<_> =
        BUGS.into_iter().filter(|(bug, ..)| wanted.is_empty() || wanted.iter().any(|name| name == bug)).collect();
    let names: BTreeSet<&str> = bugs.iter().map(|(_, name, _)| *name).chain(["F14b"]).collect();
    let good: BTreeSet<&str> =
        names.into_iter().filter(|name| crate::play(stage, scenario(name)) == Ok(true)).collect();
    let mut missed = Vec::new();
    // This one needs such a build, and finds no fault.
    if !good.contains("F14b") {
        missed.push("F14b");
    }
    for (bug, name, judgement) in &bugs {
        let told = match good.contains(name) {
            false => "the scenario is not good without it".to_owned(),
            true => {
                *CHOSEN.lock().expect("a lock") = Some(bug);
                let result = crate::play(stage, scenario(name));
                *CHOSEN.lock().expect("a lock") = None;
                result.err().unwrap_or_else(|| "nothing".to_owned())
            }
        };
        let found = told.contains(judgement);
        println!(
            "{} {bug}: {name} says: {}",
            if found { "caught" } else { "MISSED" },
            told.lines().next().unwrap_or_default()
        );
        if !found {
            missed.push(*bug);
        }
    }
    let caught = bugs.iter().filter(|(bug, ..)| !missed.contains(bug)).count();
    println!("caught {caught} of {}", bugs.len());
    missed
}
