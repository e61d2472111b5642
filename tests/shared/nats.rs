//! A NATS server of our own, and a plain client for judging what Sluice did.

use crate::kafka::Record;
use crate::ports::free_port;
use async_nats::HeaderMap;
use async_nats::jetstream::consumer::{AckPolicy, pull};
use async_nats::jetstream::{self, stream};
use futures_util::StreamExt;
use std::path::Path;
use std::process::Command;
use std::time::Duration;
use tempfile::TempDir;
use tokio::runtime::Runtime;

/// A running server and a connection to it.
pub struct Nats {
    folder: TempDir,
    pub url: String,
    runtime: Runtime,
    client: async_nats::Client,
}

fn script() -> Command {
    let mut command = Command::new("bash");
    command.arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/nats"));
    command
}

/// Starts a server with its data in `folder`, and with further settings.
pub fn serve(folder: &Path, port: u16, settings: Option<&Path>) {
    let status = script().args(["start", &port.to_string()]).arg(folder).args(settings).status().expect("bash");
    assert!(status.success(), "the NATS server did not start");
}

/// Stops a server.
pub fn end(folder: &Path) {
    script().arg("stop").arg(folder).status().ok();
}

impl Nats {
    pub fn start() -> Self {
        Self::start_with("", async_nats::ConnectOptions::new())
    }

    /// Starts a server with settings, to which the judge connects by these options.
    pub fn start_with(settings: &str, options: async_nats::ConnectOptions) -> Self {
        let folder = TempDir::new().expect("a folder");
        crate::guard::BROKERS.lock().expect("a list").push(("tests/nats", folder.path().display().to_string()));
        let port = free_port();
        std::fs::write(folder.path().join("server.conf"), settings).expect("a file");
        serve(folder.path(), port, Some(&folder.path().join("server.conf")));
        let url = format!("nats://127.0.0.1:{port}");
        let runtime = Runtime::new().expect("a runtime");
        let client = runtime.block_on(options.connect(&url)).expect("a connection");
        Self { folder, url, runtime, client }
    }

    /// Gives a running server other settings.
    pub fn reload(&self, settings: &str) {
        std::fs::write(self.folder.path().join("server.conf"), settings).expect("a file");
        let pid = std::fs::read_to_string(self.folder.path().join("pid")).expect("a process id");
        let status = Command::new("kill").args(["-HUP", pid.trim()]).status().expect("kill");
        assert!(status.success(), "the server runs");
    }

    /// Stops the server and starts it again on the same port and data.
    pub fn restart(&self) {
        end(self.folder.path());
        self.launch();
    }

    /// Starts the process, on the data that is there already.
    pub fn launch(&self) {
        let port = self.url.rsplit(':').next().expect("a port").parse().expect("a number");
        serve(self.folder.path(), port, Some(&self.folder.path().join("server.conf")));
    }

    /// Kills the server and starts it again on the same port and data.
    pub fn crash(&self) {
        self.kill();
        self.restart();
    }

    /// Kills the server.
    pub fn kill(&self) {
        let pid = std::fs::read_to_string(self.folder.path().join("pid")).expect("a process id");
        let status = Command::new("kill").args(["-KILL", pid.trim()]).status().expect("kill");
        assert!(status.success(), "the server runs");
    }

    fn context(&self) -> jetstream::Context {
        let _inside = self.runtime.enter();
        jetstream::new(self.client.clone())
    }

    /// Makes a stream; `limits` may say more.
    pub fn stream(&self, name: &str, subjects: &str, limits: impl FnOnce(&mut stream::Config)) {
        let mut config =
            stream::Config { name: name.to_owned(), subjects: vec![subjects.to_owned()], ..stream::Config::default() };
        limits(&mut config);
        self.runtime.block_on(self.context().create_stream(config)).expect("a stream");
    }

    /// Publishes to a stream in order, many under way at once, and waits for every acknowledgement.
    pub fn publish(&self, messages: impl Iterator<Item = (String, String)>) {
        let context = self.context();
        self.runtime.block_on(async {
            let mut open = std::collections::VecDeque::new();
            for (subject, payload) in messages {
                open.push_back(context.publish(subject, payload.into()).await.expect("a publication"));
                if open.len() > 1000 {
                    open.pop_front().expect("the oldest").await.expect("an acknowledgement");
                }
            }
            for ack in open {
                ack.await.expect("an acknowledgement");
            }
        });
    }

    /// Publishes without a stream.
    pub fn publish_core(&self, subject: &str, payloads: impl Iterator<Item = String>) {
        self.runtime.block_on(async {
            for payload in payloads {
                self.client.publish(subject.to_owned(), payload.into()).await.expect("a publication");
            }
            self.client.flush().await.expect("a flush");
        });
    }

    /// Messages of a stream.
    pub fn count(&self, stream: &str) -> u64 {
        self.try_count(stream).expect("the stream")
    }

    /// Messages of a stream; `None` while the server does not answer.
    pub fn try_count(&self, stream: &str) -> Option<u64> {
        self.runtime.block_on(async {
            let stream = self.context().get_stream(stream).await.ok()?;
            Some(stream.cached_info().state.messages)
        })
    }

    /// Whether a consumer has acknowledged everything in its stream.
    pub fn consumed(&self, stream: &str, durable: &str) -> bool {
        self.runtime.block_on(async {
            let Ok(stream) = self.context().get_stream(stream).await else { return false };
            match stream.get_consumer::<pull::Config>(durable).await {
                Ok(consumer) => {
                    let info = consumer.cached_info();
                    info.num_pending == 0 && info.num_ack_pending == 0 && info.delivered.stream_sequence > 0
                }
                Err(_) => false,
            }
        })
    }

    /// What a consumer's configuration is.
    pub fn consumer(&self, stream: &str, durable: &str) -> jetstream::consumer::Config {
        self.runtime.block_on(async {
            let stream = self.context().get_stream(stream).await.expect("the stream");
            let consumer = stream.get_consumer::<pull::Config>(durable).await.expect("the consumer");
            consumer.cached_info().config.clone()
        })
    }

    /// Everything in a stream under a subject, in order. The record's key is its subject.
    pub fn read(&self, stream: &str, subject: &str) -> Vec<Record> {
        self.runtime.block_on(async {
            let stream = self.context().get_stream(stream).await.expect("the stream");
            let config = pull::Config {
                ack_policy: AckPolicy::None,
                filter_subject: subject.to_owned(),
                ..pull::Config::default()
            };
            let consumer = stream.create_consumer(config).await.expect("a consumer");
            let total = consumer.cached_info().num_pending as usize;
            let mut records = Vec::with_capacity(total);
            while records.len() < total {
                let batch = consumer.fetch().max_messages(5000).messages().await;
                let mut batch = batch.expect("messages");
                while let Some(message) = batch.next().await {
                    let message = message.expect("a good message");
                    records.push(Record {
                        partition: 0,
                        key: Some(message.subject.to_string()),
                        payload: message.payload.to_vec(),
                        headers: message.headers.as_ref().map(pairs).unwrap_or_default(),
                    });
                }
            }
            records
        })
    }

    /// Subscribes to a subject of core NATS; messages are read from what is returned.
    pub fn subscribe(&self, subject: &str) -> Subscription<'_> {
        let subscriber = self.runtime.block_on(async {
            let subscriber = self.client.subscribe(subject.to_owned()).await.expect("a subscription");
            self.client.flush().await.expect("a flush");
            subscriber
        });
        Subscription { nats: self, subscriber }
    }
}

fn pairs(headers: &HeaderMap) -> Vec<(String, String)> {
    let all = headers.iter();
    all.flat_map(|(name, values)| values.iter().map(move |value| (name.to_string(), value.to_string()))).collect()
}

pub struct Subscription<'n> {
    nats: &'n Nats,
    subscriber: async_nats::Subscriber,
}

impl Subscription<'_> {
    /// The next message's subject and payload, if it comes soon.
    pub fn next(&mut self) -> Option<(String, String)> {
        let next = async { tokio::time::timeout(Duration::from_secs(10), self.subscriber.next()).await };
        let message = self.nats.runtime.block_on(next).ok()??;
        Some((message.subject.to_string(), String::from_utf8(message.payload.to_vec()).expect("text")))
    }
}

impl Drop for Nats {
    fn drop(&mut self) {
        end(self.folder.path());
    }
}
