//! What breaks a crash loop: after unclean ends in a row every event is written down before it is routed, and one that was
//! under way at two deaths in a row is parked unrouted.
//!
//! In: the data directory, positions of events. Out: whether an event is to be parked. Promises: nothing is parked for a
//! single death, or for two with progress between them. A process that ended cleanly pays nothing. Leaves to others:
//! parking (`worker`).

use std::collections::BTreeSet;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// Unclean ends in a row after which events are written down.
const ENDS: u32 = 2;
/// Parked positions that are remembered, the latest.
const PARKED: usize = 100;
/// Bytes of a position that are written down.
const LINE: usize = 1024;

/// The memory of unclean ends, in the folder `crashes` of the data directory.
pub struct Careful {
    folder: PathBuf,
    /// One file a worker, where events are written down.
    under_way: Vec<File>,
    parked: BTreeSet<String>,
}

impl Careful {
    /// Notes that a process begins, and looks how those before it have ended. `None` where events need not be written down.
    ///
    /// # Errors
    /// The folder cannot be used.
    pub fn begin(data_dir: &Path, workers: usize) -> io::Result<Option<Self>> {
        let folder = data_dir.join("crashes");
        std::fs::create_dir_all(&folder)?;
        let lines = |name: &str| -> Vec<String> {
            let text = std::fs::read_to_string(folder.join(name)).unwrap_or_default();
            text.lines().map(str::to_owned).collect()
        };
        let ends = match std::fs::read_to_string(folder.join("running")) {
            Ok(text) => text.trim().parse::<u32>().unwrap_or(0).saturating_add(1),
            Err(_) => 0,
        };
        std::fs::write(folder.join("running"), ends.to_string())?;
        if ends < ENDS {
            return Ok(None);
        }
        let now = suspects(&folder)?;
        let before: BTreeSet<String> = lines("suspects").into_iter().collect();
        let mut parked = lines("parked");
        for position in now.intersection(&before).filter(|position| !before.is_empty() && !position.is_empty()) {
            tracing::error!(position, "the process died twice on this event; it is parked");
            parked.push(position.clone());
        }
        let latest = parked.len().saturating_sub(PARKED);
        std::fs::write(folder.join("parked"), parked[latest..].join("\n"))?;
        std::fs::write(folder.join("suspects"), now.into_iter().collect::<Vec<_>>().join("\n"))?;
        let file = |n| File::create(folder.join(format!("worker-{n}")));
        let under_way = (0..workers).map(file).collect::<io::Result<_>>()?;
        tracing::warn!(ends, "the processes before this one died; events are written down before they are routed");
        Ok(Some(Self { folder, under_way, parked: parked.into_iter().skip(latest).collect() }))
    }

    /// The process ends cleanly.
    ///
    /// # Errors
    /// The folder cannot be changed; the next start takes this end for an unclean one.
    pub fn end(data_dir: &Path) -> io::Result<()> {
        match std::fs::remove_dir_all(data_dir.join("crashes")) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    /// Whether an event is parked; otherwise writes down that it is under way at this worker. The kernel keeps what was
    /// written when a process dies.
    pub fn is_parked(&self, worker: usize, position: &str) -> bool {
        if self.parked.contains(position) {
            return true;
        }
        let mut line = [b' '; LINE];
        let len = position.len().min(LINE);
        line[..len].copy_from_slice(&position.as_bytes()[..len]);
        self.write(worker, &line);
        false
    }

    /// Nothing is under way at this worker.
    pub fn idle(&self, worker: usize) {
        self.write(worker, &[b' '; LINE]);
    }

    fn write(&self, worker: usize, line: &[u8]) {
        if let Some(file) = self.under_way.get(worker)
            && let Err(error) = file.write_all_at(line, 0)
        {
            tracing::warn!("cannot write to {}: {error}", self.folder.display());
        }
    }
}

/// What was under way when the last process died.
fn suspects(folder: &Path) -> io::Result<BTreeSet<String>> {
    let mut found = BTreeSet::new();
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        if path.file_name().and_then(|name| name.to_str()).is_some_and(|name| name.starts_with("worker-")) {
            found.insert(String::from_utf8_lossy(&std::fs::read(&path)?).trim().to_owned());
            std::fs::remove_file(&path)?;
        }
    }
    found.remove("");
    Ok(found)
}
