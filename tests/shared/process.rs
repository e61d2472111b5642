//! A real `sluice` process with a configuration of its own.

use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// A folder with a configuration, and the processes run on it.
pub struct Sluice {
    pub folder: TempDir,
    pub admin: String,
    /// Environment of its processes, beside our own.
    pub environment: Vec<(&'static str, String)>,
}

/// A running process; killed when dropped.
pub struct Running {
    child: Child,
    log: PathBuf,
    admin: String,
}

/// The program; another build than the tests' own, where figures are wanted.
pub fn program() -> PathBuf {
    std::env::var_os("SLUICE_BIN").map_or_else(|| env!("CARGO_BIN_EXE_sluice").into(), PathBuf::from)
}

impl Sluice {
    /// Writes a configuration. `{admin}` in it becomes a free address.
    pub fn new(config: &str) -> Self {
        let folder = TempDir::new().expect("a folder");
        let admin = format!("127.0.0.1:{}", crate::ports::free_port());
        let sluice = Self { folder, admin, environment: crate::environment() };
        sluice.write("sluice.yaml", config);
        sluice
    }

    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    pub fn write(&self, name: &str, text: &str) {
        let text = text.replace("{admin}", &self.admin);
        // Written aside and renamed, as editors do, so that no half-written file is read.
        let aside = self.path().join(format!(".{name}.new"));
        std::fs::write(&aside, text).expect("a file");
        std::fs::rename(aside, self.path().join(name)).expect("a renamed file");
    }

    pub fn start(&self, arguments: &[&str]) -> Running {
        let mut command = Command::new(program());
        command.args(["run", "-c", "sluice.yaml"]).args(arguments);
        self.spawn(&mut command)
    }

    /// Starts a command in the folder, with the log as its standard error.
    pub fn spawn(&self, command: &mut Command) -> Running {
        let log = std::fs::OpenOptions::new().create(true).append(true).open(self.path().join("log")).expect("a log");
        let child = command
            .current_dir(self.path())
            .envs(self.environment.iter().map(|(name, value)| (*name, value)))
            .stdin(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("a process");
        Running { child, log: self.path().join("log"), admin: self.admin.clone() }
    }

    /// What the processes said.
    pub fn log(&self) -> String {
        log(&self.path().join("log"))
    }

    /// Runs until the process leaves by itself.
    pub fn run(&self, arguments: &[&str]) -> (ExitStatus, String, Duration) {
        let begin = Instant::now();
        let status = self.start(arguments).wait(Duration::from_secs(30));
        (status, self.log(), begin.elapsed())
    }

    /// All lines of a log group or of the default dead-letter queue of a bus.
    pub fn lines(&self, folder: &str) -> Vec<String> {
        let mut lines = Vec::new();
        for entry in std::fs::read_dir(self.path().join("data").join(folder)).into_iter().flatten().flatten() {
            if entry.path().is_file() {
                let text = std::fs::read_to_string(entry.path()).expect("text");
                lines.extend(text.lines().map(str::to_owned));
            }
        }
        lines
    }
}

fn log(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_default()
}

/// The end of a log.
fn tail(path: &Path) -> String {
    let log = log(path);
    let lines: Vec<&str> = log.lines().collect();
    lines[lines.len().saturating_sub(40)..].join("\n")
}

impl Running {
    /// A GET of the admin endpoints: status line and body.
    pub fn get(&self, path: &str) -> Option<(String, String)> {
        let mut stream = std::net::TcpStream::connect(&self.admin).ok()?;
        stream.set_read_timeout(Some(Duration::from_secs(5))).ok()?;
        write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").ok()?;
        let mut text = String::new();
        stream.read_to_string(&mut text).ok()?;
        let (head, body) = text.split_once("\r\n\r\n")?;
        Some((head.lines().next()?.to_owned(), body.to_owned()))
    }

    /// The sum of a metric over its labels that contain `with`.
    pub fn metric(&self, name: &str, with: &str) -> f64 {
        let (_, body) = self.get("/metrics").unwrap_or_default();
        body.lines()
            .filter(|line| line.starts_with(name) && line.contains(with))
            .filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
            .sum()
    }

    pub fn until(&mut self, what: &str, patience: Duration, mut done: impl FnMut(&Self) -> bool) {
        let deadline = Instant::now() + patience;
        while !done(self) {
            let left = self.child.try_wait().expect("a status");
            assert!(left.is_none(), "the process left before: {what}\n{}", log(&self.log));
            assert!(Instant::now() < deadline, "not in time: {what}\n{}", tail(&self.log));
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Waits until no delivery waits in a retry log.
    pub fn until_nothing_waits(&mut self, patience: Duration) {
        self.until("nothing waits in a retry log", patience, |running| {
            running.get("/metrics").is_some() && running.metric("sluice_target_retry_log_events", "") == 0.0
        });
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Whether it has not ended.
    pub fn lives(&mut self) -> bool {
        self.child.try_wait().expect("a status").is_none()
    }

    /// The most memory it has had, in MiB.
    pub fn peak_mib(&self) -> f64 {
        self.memory_mib("VmHWM:")
    }

    /// The memory it has, in MiB.
    pub fn rss_mib(&self) -> f64 {
        self.memory_mib("VmRSS:")
    }

    fn memory_mib(&self, field: &str) -> f64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix(field));
        let kib = line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<f64>().ok());
        kib.unwrap_or_default() / 1024.0
    }

    pub fn signal(&self, signal: &str) {
        let status = Command::new("kill").args([signal, &self.child.id().to_string()]).status().expect("kill");
        assert!(status.success());
    }

    /// Ends it with SIGTERM; the drain must succeed.
    pub fn stop(self) {
        self.signal("-TERM");
        let status = self.wait(Duration::from_secs(25));
        assert_eq!(status.code(), Some(0), "a clean drain");
    }

    /// Ends it with SIGKILL.
    pub fn kill(mut self) {
        self.child.kill().expect("a kill");
        self.child.wait().expect("a status");
    }

    pub fn wait(mut self, patience: Duration) -> ExitStatus {
        let deadline = Instant::now() + patience;
        loop {
            if let Some(status) = self.child.try_wait().expect("a status") {
                return status;
            }
            assert!(Instant::now() < deadline, "the process does not end");
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}
