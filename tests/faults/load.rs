//! Events on their way into a topic at an even rate, until told to stop.

use crate::kafka::Kafka;
use crate::oracle::{event, key};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// A producer at work.
pub struct Load {
    thread: Option<JoinHandle<()>>,
    sent: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
}

impl Load {
    /// Sends events of producer `p` from `from` on, `rate` a second, at most `most` of them.
    pub fn start(kafka: &Kafka, topic: &str, partitions: u64, (p, from): (u16, u64), rate: u64, most: u64) -> Self {
        let (sender, topic) = (kafka.producer(), topic.to_owned());
        let (sent, stop) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
        let (count, end) = (Arc::clone(&sent), Arc::clone(&stop));
        let thread = std::thread::spawn(move || {
            let begin = Instant::now();
            let mut next = 0;
            while next < most && !end.load(Ordering::Relaxed) {
                let due = (begin.elapsed().as_secs_f64() * rate as f64) as u64;
                while next < due.min(most) {
                    let n = from + next;
                    let partition = (key(n) % partitions) as i32;
                    sender.send(&topic, Some(partition), &format!("k{}", key(n)), event(p, n).as_bytes(), &[]);
                    next += 1;
                }
                count.store(next, Ordering::Relaxed);
                std::thread::sleep(Duration::from_millis(5));
            }
            sender.flush();
        });
        Self { thread: Some(thread), sent, stop }
    }

    /// How many have been sent.
    pub fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }

    /// Stops; how many the broker has.
    pub fn stop(mut self) -> u64 {
        self.stop.store(true, Ordering::Relaxed);
        self.join()
    }

    /// Waits until all are sent; how many the broker has.
    pub fn join(&mut self) -> u64 {
        if let Some(thread) = self.thread.take() {
            thread.join().expect("a producer that ends well");
        }
        self.sent()
    }
}

/// Sends a number of events as fast as they go.
pub fn fill(kafka: &Kafka, topic: &str, partitions: u64, events: u64) {
    Load::start(kafka, topic, partitions, (0, 0), 1_000_000_000, events).join();
}
