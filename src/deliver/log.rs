//! Log groups: one JSON line an event, in rotated files, a stream a day and process; standard output; the default
//! dead-letter queues, which are files of the same kind; and archives, which have files of their own.
//!
//! One thread writes what has gathered, flushes once, then settles all of it: a single event does not wait, many
//! share a write.

use super::retry::Failure;
use super::{Delivery, Outlet, Sink, dead_letter};
use crate::archive::Appender;
use crate::time;
use crossbeam_channel::Sender;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, PoisonError};

/// A file of a stream is closed beyond this size and the next one begun.
const FILE_BYTES: u64 = 64 << 20;
/// Bytes of lines that are written at once: what has gathered may be as much as all sources may have in flight.
const AT_ONCE: usize = 1 << 20;

/// Where lines go.
pub struct LineSink {
    writer: Arc<Writer>,
    output: Mutex<Output>,
    /// Whether lines must be on disk before they settle.
    sync: bool,
}

enum Output {
    Stdout,
    Stream(Stream),
    Archive(Arc<Appender>),
}

/// The open file of a log group.
struct Stream {
    folder: PathBuf,
    day: String,
    part: u32,
    file: Option<(File, u64)>,
}

impl LineSink {
    /// Standard output.
    pub fn stdout(writer: &Arc<Writer>) -> Self {
        Self { writer: Arc::clone(writer), output: Mutex::new(Output::Stdout), sync: false }
    }

    /// Files in `folder`, which is made when the first line comes.
    pub fn folder(writer: &Arc<Writer>, folder: PathBuf, sync: bool) -> Self {
        let stream = Stream { folder, day: String::new(), part: 0, file: None };
        Self { writer: Arc::clone(writer), output: Mutex::new(Output::Stream(stream)), sync }
    }

    /// An archive, whose lines are on disk before they settle.
    pub fn archive(writer: &Arc<Writer>, archive: Arc<Appender>) -> Self {
        Self { writer: Arc::clone(writer), output: Mutex::new(Output::Archive(archive)), sync: true }
    }

    /// Queues a delivery for the writer. The queue is bounded by the credit of the events in it.
    pub fn submit(&self, delivery: Delivery) {
        self.writer.queue.lock().unwrap_or_else(PoisonError::into_inner).push(delivery);
        self.writer.arrived.notify_one();
    }

    /// Ends the open file if it is in `folder`; the next line begins another.
    pub fn roll(&self, folder: &Path) {
        if let Output::Stream(stream) = &mut *self.output.lock().unwrap_or_else(PoisonError::into_inner)
            && stream.folder == folder
            && stream.file.take().is_some()
        {
            stream.part += 1;
        }
    }

    fn append(&self, lines: &[u8]) -> io::Result<()> {
        match &mut *self.output.lock().unwrap_or_else(PoisonError::into_inner) {
            Output::Stdout => {
                let mut out = io::stdout().lock();
                out.write_all(lines)?;
                out.flush()
            }
            Output::Stream(stream) => stream.append(lines, self.sync),
            Output::Archive(archive) => archive.append(lines),
        }
    }
}

impl Stream {
    fn append(&mut self, lines: &[u8], sync: bool) -> io::Result<()> {
        let today = time::day(time::wall_millis()).to_string();
        if self.day != today {
            (self.day, self.part, self.file) = (today, 0, None);
        }
        if self.file.as_ref().is_some_and(|(_, len)| *len > FILE_BYTES) {
            (self.part, self.file) = (self.part + 1, None);
        }
        let (file, len) = match &mut self.file {
            Some(open) => open,
            None => self.file.insert(open(&self.folder, &self.day, &mut self.part)?),
        };
        let written = file.write_all(lines).and_then(|()| if sync { file.sync_data() } else { Ok(()) });
        match written {
            Ok(()) => *len += lines.len() as u64,
            Err(error) => {
                // A torn line must not stand in front of its repetition.
                let torn = file.set_len(*len).is_err();
                if torn || sync {
                    self.file = None;
                    self.part += 1;
                }
                return Err(error);
            }
        }
        Ok(())
    }
}

/// Opens the first free file of the day's stream, `2024-01-31-PID.jsonl`, then `2024-01-31-PID.1.jsonl` and so on.
fn open(folder: &Path, day: &str, part: &mut u32) -> io::Result<(File, u64)> {
    std::fs::create_dir_all(folder)?;
    loop {
        let suffix = if *part == 0 { String::new() } else { format!(".{part}") };
        let path = folder.join(format!("{day}-{}{suffix}.jsonl", std::process::id()));
        match OpenOptions::new().append(true).create_new(true).open(path) {
            Ok(file) => return Ok((file, 0)),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => *part += 1,
            Err(error) => return Err(error),
        }
    }
}

/// The writing thread's queue.
pub struct Writer {
    queue: Mutex<Vec<Delivery>>,
    arrived: Condvar,
    /// Takes the reason when the process must stop.
    fatal: Sender<String>,
}

impl Writer {
    /// Starts a thread of this name; it ends with the process.
    ///
    /// # Errors
    /// The system has no thread to give.
    pub fn spawn(name: &str, fatal: &Sender<String>) -> io::Result<Arc<Self>> {
        let writer = Arc::new(Self { queue: Mutex::default(), arrived: Condvar::new(), fatal: fatal.clone() });
        let run = Arc::clone(&writer);
        std::thread::Builder::new().name(name.into()).spawn(move || run.run())?;
        Ok(writer)
    }

    fn run(&self) {
        loop {
            let queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
            let mut queue =
                self.arrived.wait_while(queue, |queue| queue.is_empty()).unwrap_or_else(PoisonError::into_inner);
            let batch = std::mem::take(&mut *queue);
            drop(queue);
            let mut groups: Vec<Group> = Vec::new();
            for delivery in batch {
                let known = groups.iter_mut().position(|group| Arc::ptr_eq(&group.outlet, &delivery.outlet));
                let index = known.unwrap_or_else(|| {
                    let outlet = Arc::clone(&delivery.outlet);
                    groups.push(Group { outlet, lines: Vec::new(), deliveries: Vec::new() });
                    groups.len() - 1
                });
                let group = &mut groups[index];
                put_line(&delivery, &mut group.lines);
                group.deliveries.push(delivery);
                if group.lines.len() >= AT_ONCE {
                    self.write(group);
                }
            }
            for mut group in groups {
                self.write(&mut group);
            }
        }
    }

    /// Writes the lines of a group and ends the attempts.
    fn write(&self, group: &mut Group) {
        let Sink::Log(sink) = &group.outlet.sink else { return };
        let failed = sink.append(&group.lines).err();
        group.lines.clear();
        if failed.as_ref().is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe) {
            // Nobody reads standard output any more. The process stops for the first reason.
            self.fatal.try_send("standard output is closed".into()).unwrap_or_default();
        }
        let failed = failed.map(|error| io_failure(&error));
        for delivery in group.deliveries.drain(..) {
            delivery.finish(failed.clone().map_or(Ok(()), Err));
        }
    }
}

/// Deliveries of one outlet and their lines.
struct Group {
    outlet: Arc<Outlet>,
    lines: Vec<u8>,
    deliveries: Vec<Delivery>,
}

/// One delivery as one line. Line ends can only stand between JSON tokens, so spaces say the same.
fn put_line(delivery: &Delivery, lines: &mut Vec<u8>) {
    let start = lines.len();
    match &delivery.letter {
        Some(letter) => lines.extend_from_slice(&dead_letter::line(delivery, letter)),
        None => lines.extend_from_slice(&delivery.payload),
    }
    for byte in &mut lines[start..] {
        if matches!(byte, b'\n' | b'\r') {
            *byte = b' ';
        }
    }
    lines.push(b'\n');
}

fn io_failure(error: &io::Error) -> Failure {
    let remedy = match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            "; free space in data_dir, writing goes on by itself"
        }
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => "; make data_dir writable",
        _ => "",
    };
    Failure::retry("INTERNAL_ERROR", format!("cannot write: {error}{remedy}"))
}
