//! An end for scenarios that hang, and for the brokers that are running then.

use std::process::Command;
use std::sync::Mutex;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::time::Duration;

/// The brokers started, by the script and the folder to stop them with.
pub static BROKERS: Mutex<Vec<(&str, String)>> = Mutex::new(Vec::new());

fn stop(command: &[&str]) {
    let done = Command::new(command[0]).args(&command[1..]).current_dir(env!("CARGO_MANIFEST_DIR")).status();
    println!("{}: {done:?}", command.join(" "));
}

/// Ends everything where a scenario takes longer than `limit`, so that the others' results are known and nothing is left
/// running. What it returns is dropped when the scenario is over.
pub fn guard(name: &'static str, limit: Duration) -> Sender<()> {
    let (done, over) = channel();
    std::thread::spawn(move || {
        if over.recv_timeout(limit) == Err(RecvTimeoutError::Timeout) {
            println!("test {name} ... FAILED: not over after {} s", limit.as_secs());
            stop(&["pkill", "-KILL", "-P", &std::process::id().to_string()]);
            for (script, folder) in BROKERS.lock().expect("a list").iter() {
                stop(&[script, "stop", folder]);
            }
            std::process::exit(1);
        }
    });
    done
}
