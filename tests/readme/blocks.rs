//! The README's code blocks, and how to run them.

use std::path::Path;
use std::process::Command;

pub const README: &str = include_str!("../../README.md");

/// A fenced block.
pub struct Block {
    /// The words behind the fence.
    marks: Vec<String>,
    pub text: String,
}

pub fn all() -> Vec<Block> {
    of(README)
}

/// The blocks of a document.
pub fn of(document: &str) -> Vec<Block> {
    let mut blocks = Vec::new();
    let mut open: Option<Block> = None;
    for line in document.lines() {
        match (&mut open, line.strip_prefix("```")) {
            (None, Some(marks)) => {
                open =
                    Some(Block { marks: marks.split_whitespace().map(str::to_owned).collect(), text: String::new() });
            }
            (Some(_), Some(_)) => blocks.extend(open.take()),
            (Some(block), None) => {
                block.text.push_str(line);
                block.text.push('\n');
            }
            (None, None) => {}
        }
    }
    blocks
}

impl Block {
    pub fn is(&self, mark: &str) -> bool {
        self.marks.iter().any(|known| known == mark)
    }

    /// Commands, each with the lines shown below it.
    pub fn commands(&self) -> Vec<(String, Vec<String>)> {
        let mut commands: Vec<(String, Vec<String>)> = Vec::new();
        for line in self.text.lines() {
            match (line.strip_prefix("$ "), commands.last_mut()) {
                (Some(command), _) => commands.push((command.to_owned(), Vec::new())),
                (None, Some((_, shown))) => shown.push(line.trim().to_owned()),
                (None, None) => panic!("output without a command: {line}"),
            }
        }
        commands
    }
}

/// A shell in `folder` with the built `sluice` on its path.
pub fn shell(command: &str, folder: &Path, environment: &[(&str, &str)]) -> Command {
    let command = command.replace("cargo run --release --", "sluice").replace("--for 10s", "--for 2s");
    let binary = Path::new(env!("CARGO_BIN_EXE_sluice")).parent().expect("a folder").display().to_string();
    let path = format!("{binary}:{}", std::env::var("PATH").unwrap_or_default());
    let mut shell = Command::new("bash");
    shell.args(["-c", &command]).current_dir(folder).env("PATH", path).envs(environment.iter().copied());
    shell
}

/// Runs a command; returns what it printed, with its exit code where it is not 0, and the first shown line that is
/// not in it.
pub fn run(command: &str, folder: &Path, environment: &[(&str, &str)], shown: &[String]) -> (String, Option<String>) {
    let output = shell(command, folder, environment).output().expect("bash");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let mut printed = text(&output.stdout) + &text(&output.stderr);
    if let Some(code) = output.status.code().filter(|code| *code != 0) {
        printed.push_str(&format!("exit {code}\n"));
    }
    if shown.is_empty() && !output.status.success() {
        return (printed, Some("exit 0".to_owned()));
    }
    let missing = shown.iter().find(|line| !printed.contains(line.as_str())).cloned();
    (printed, missing)
}
