//! Whether the suite sees faults: each planted one must make its scenario fail, for the reason that it should.

use crate::stage::Stage;
use std::sync::Mutex;

/// A planted fault, the scenario that finds it, and words of the finding.
const BUGS: [(&str, &str, &[&str]); 10] = [
    ("CommitBeforeAck", "F01", &["lost"]),
    ("CommitHighest", "F01", &["lost"]),
    ("OffByOneCommit", "F13", &["committed", "duplicates"]),
    ("IgnoreDeliveryError", "F05", &["attempts"]),
    ("LateSettle", "F10", &["backward", "lost"]),
    ("FlushSkipped", "F13", &["lost"]),
    ("DropWhenDlqFails", "F08", &["lost"]),
    ("IdPerAttempt", "F05", &["attempts", "delivery id"]),
    ("RedirectFollowed", "F05", &["redirect"]),
    ("ReloadRuleByRule", "F11", &["mixed"]),
];

/// The planted fault that processes get.
static CHOSEN: Mutex<Option<&str>> = Mutex::new(None);

/// What to plant in a process that is started now.
pub fn chosen() -> Option<&'static str> {
    *CHOSEN.lock().expect("a lock")
}

/// Plants one after the other; those that were not found.
pub fn hunt(stage: &mut Stage) -> Vec<&'static str> {
    let mut missed = Vec::new();
    for (bug, scenario, words) in BUGS {
        *CHOSEN.lock().expect("a lock") = Some(bug);
        let known = crate::SCENARIOS.iter().find(|(name, ..)| *name == scenario).expect("a scenario");
        let result = crate::play(stage, known);
        let found = result.as_ref().is_err_and(|why| words.iter().any(|word| why.contains(word)));
        println!("{{\"planted\":\"{bug}\",\"scenario\":\"{scenario}\",\"found\":{found}}}");
        if !found {
            missed.push(bug);
        }
    }
    missed
}
