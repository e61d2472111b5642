//! TLS, passwords and credentials on real brokers, with certificates made for the test; and what is refused.

use crate::certificates::{Authority, Files};
use crate::kafka::Kafka;
use crate::nats::{Nats, end, serve};
use crate::ports::free_port;
use crate::process::Sluice;
use async_nats::jetstream::stream::Config as Stream;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use nkeys::KeyPair;
use serde_json::{Value, json};
use std::path::Path;
use std::time::Duration;

const EVENT: &str = "{\"source\":\"s\",\"detail-type\":\"t\",\"detail\":{\"id\":1}}";

fn kafka_config(servers: &str, name: &str, secured: &str) -> String {
    format!(
        "data_dir: data\nserver: {{ listen: \"off\", admin: \"{{admin}}\" }}\n\
         sources: {{ in: {{ kafka: {{ brokers: \"{servers}\", topics: [{name}-in], group: {name}, {secured} }} }} }}\n\
         targets: {{ out: {{ kafka: {{ brokers: \"{servers}\", topic: {name}-out, {secured} }} }} }}\n\
         rules: {{ all: {{ pattern: {{ source: [s] }}, targets: [out] }} }}\n"
    )
}

pub fn kafka(kafka: &Kafka) {
    let ca = kafka.folder().join("ca.pem").display().to_string();
    let (cert, key) = (kafka.folder().join("cert.pem"), kafka.folder().join("key.pem"));
    let own = format!("cert: \"{}\", key: \"{}\"", cert.display(), key.display());
    let sasl = |mechanism: &str, password: &str| {
        format!("sasl: {{ mechanism: {mechanism}, username: sluice, password: {password} }}, tls: {{ ca: \"{ca}\" }}")
    };
    let (mutual, with_sasl) = (&kafka.tls_servers, &kafka.sasl_tls_servers);
    let good = [
        ("mutual", mutual, format!("tls: {{ ca: \"{ca}\", {own} }}")),
        ("plain", with_sasl, sasl("PLAIN", "right")),
        ("scram256", with_sasl, sasl("SCRAM-SHA-256", "right")),
        ("scram512", with_sasl, sasl("SCRAM-SHA-512", "right")),
    ];
    for (name, servers, secured) in &good {
        let (from, to) = (format!("{name}-in"), format!("{name}-out"));
        kafka.topics(&[(&from, 1, &[]), (&to, 1, &[])]);
        let sender = kafka.producer();
        sender.send(&from, None, "k", EVENT.as_bytes(), &[]);
        sender.flush();
        let sluice = Sluice::new(&kafka_config(servers, name, secured));
        let mut running = sluice.start(&[]);
        running.until("the event arrives", Duration::from_secs(30), |_| kafka.ends(&to) == [1]);
        running.stop();
        assert_eq!(kafka.read(&to)[0].payload, EVENT.as_bytes(), "{name}");
    }
    let strange = Authority::new().write(&kafka.folder().join("strange"));
    let expired = kafka.authority.expired(&kafka.folder().join("expired"));
    let bad = [
        ("a wrong password", with_sasl, sasl("SCRAM-SHA-512", "wrong"), "check `sasl`"),
        ("an unknown authority", with_sasl, sasl("PLAIN", "right").replace(&ca, &strange.ca), "ertificate"),
        ("no certificate of ours", mutual, format!("tls: {{ ca: \"{ca}\" }}"), "check `tls`"),
        (
            "an expired certificate of ours",
            mutual,
            format!("tls: {{ ca: \"{ca}\", cert: \"{}\", key: \"{}\" }}", expired.cert, expired.key),
            "check `tls`",
        ),
        ("no TLS to a TLS port", mutual, String::new(), "set `tls`"),
        ("TLS to a port without", &kafka.servers, format!("tls: {{ ca: \"{ca}\" }}"), "check `tls`"),
    ];
    // Each waits for an answer that never comes.
    std::thread::scope(|scope| {
        for (what, servers, secured, part) in bad {
            scope.spawn(move || {
                let (status, log, _) = Sluice::new(&kafka_config(servers, "mutual", &secured)).run(&[]);
                assert_eq!(status.code(), Some(69), "{what}: {log}");
                assert!(log.contains(part) && !log.contains("password: wrong"), "{what}: {log}");
            });
        }
    });
}

fn nats_config(url: &str, secured: &str) -> String {
    format!(
        "data_dir: data\nserver: {{ listen: \"off\", admin: \"{{admin}}\" }}\n\
         sources: {{ in: {{ nats: {{ servers: \"{url}\", stream: IN, durable: sluice, {secured} }} }} }}\n\
         targets: {{ out: {{ nats: {{ servers: \"{url}\", subject: out.x, jetstream: true, {secured} }} }} }}\n\
         rules: {{ all: {{ pattern: {{ source: [s] }}, targets: [out] }} }}\n"
    )
}

/// A server with settings, stopped at the end.
struct Server {
    folder: tempfile::TempDir,
    url: String,
}

impl Server {
    fn start(settings: impl FnOnce(&Path) -> String) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let conf = folder.path().join("server.conf");
        std::fs::write(&conf, settings(folder.path())).expect("a file");
        let port = free_port();
        serve(folder.path(), port, Some(&conf));
        Self { folder, url: format!("nats://127.0.0.1:{port}") }
    }

    /// Makes both streams and publishes an event, as somebody who may.
    fn fill(&self, options: async_nats::ConnectOptions) {
        let runtime = tokio::runtime::Runtime::new().expect("a runtime");
        runtime.block_on(async {
            let client = options.connect(&self.url).await.expect("a connection");
            let context = async_nats::jetstream::new(client);
            for (name, subject) in [("IN", "in.>"), ("OUT", "out.>")] {
                let stream = Stream { name: name.into(), subjects: vec![subject.into()], ..Stream::default() };
                context.create_stream(stream).await.expect("a stream");
            }
            context.publish("in.x", EVENT.into()).await.expect("a publication").await.expect("an acknowledgement");
        });
    }

    fn routes(&self, secured: &str) {
        let sluice = Sluice::new(&nats_config(&self.url, secured));
        let mut running = sluice.start(&[]);
        running.until("the event is delivered", Duration::from_secs(30), |running| {
            running.metric("sluice_target_deliveries_total", "out\",outcome=\"delivered") == 1.0
        });
        running.stop();
    }

    fn refuses(&self, secured: &str, code: i32, part: &str) {
        let (status, log, _) = Sluice::new(&nats_config(&self.url, secured)).run(&[]);
        assert_eq!(status.code(), Some(code), "{secured}: {log}");
        assert!(log.contains(part), "{secured}: {log}");
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        end(self.folder.path());
    }
}

fn tls_settings(files: &Files, more: &str) -> String {
    format!("tls {{ cert_file: \"{}\", key_file: \"{}\", ca_file: \"{}\", {more} }}\n", files.cert, files.key, files.ca)
}

pub fn nats() {
    let authority = Authority::new();
    let folder = tempfile::tempdir().expect("a folder");
    let files = authority.write(folder.path());
    let (ca, own) = (format!("ca: \"{}\"", files.ca), format!("cert: \"{}\", key: \"{}\"", files.cert, files.key));

    // TLS with our certificate, user name and password.
    let users = "authorization { user: sluice, password: right }\n";
    let server = Server::start(|_| tls_settings(&files, "verify: true") + users);
    let options = async_nats::ConnectOptions::with_user_and_password("sluice".into(), "right".into());
    server.fill(
        options
            .add_root_certificates(files.ca.clone().into())
            .add_client_certificate(files.cert.clone().into(), files.key.clone().into()),
    );
    let auth = |password: &str| format!("auth: {{ basic: {{ username: sluice, password: {password} }} }}");
    server.routes(&format!("{}, tls: {{ {ca}, {own} }}", auth("right")));
    server.refuses(&format!("{}, tls: {{ {ca}, {own} }}", auth("wrong")), 78, "check `auth`");
    server.refuses(&format!("{}, tls: {{ {ca} }}", auth("right")), 78, "certificate");
    let strange = Authority::new().write(&folder.path().join("strange"));
    server.refuses(&format!("{}, tls: {{ ca: \"{}\", {own} }}", auth("right"), strange.ca), 78, "certificate");
    drop(server);

    // A server whose certificate has expired; and one without TLS that is asked for it.
    let expired = authority.expired(&folder.path().join("expired"));
    let server = Server::start(|_| tls_settings(&expired, ""));
    server.refuses(&format!("tls: {{ {ca} }}"), 78, "expired");
    drop(server);
    let server = Server::start(|_| String::new());
    server.refuses(&format!("tls: {{ {ca} }}"), 78, "TLS");
    drop(server);

    // Credentials files: an operator, an account and a user, each signed by the one above.
    let keys = Keys::new();
    let server = Server::start(|_| keys.settings());
    let credentials = folder.path().join("user.creds");
    std::fs::write(&credentials, keys.credentials(&KeyPair::new_user())).expect("a file");
    let options = async_nats::ConnectOptions::new();
    let text = std::fs::read_to_string(&credentials).expect("text");
    server.fill(options.credentials(&text).expect("credentials"));
    server.routes(&format!("auth: {{ creds: \"{}\" }}", credentials.display()));
    let forged = folder.path().join("forged.creds");
    std::fs::write(&forged, Keys::new().credentials(&KeyPair::new_user())).expect("a file");
    server.refuses(&format!("auth: {{ creds: \"{}\" }}", forged.display()), 78, "check `auth`");
    server.refuses(
        &format!("auth: {{ creds: \"{}/none\" }}", folder.path().display()),
        78,
        "cannot use the credentials",
    );
    server.refuses("auth: { nkey: SUANOTASEED }", 78, "nkey");
}

/// Who signs whom in a NATS system with JSON web tokens.
struct Keys {
    operator: KeyPair,
    system: KeyPair,
    account: KeyPair,
}

impl Keys {
    fn new() -> Self {
        Self { operator: KeyPair::new_operator(), system: KeyPair::new_account(), account: KeyPair::new_account() }
    }

    fn token(issuer: &KeyPair, subject: &KeyPair, name: &str, claims: Value) -> String {
        let encode = |value: Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let head = encode(json!({ "typ": "JWT", "alg": "ed25519-nkey" }));
        let body = encode(json!({
            "jti": name, "iat": 1_700_000_000, "iss": issuer.public_key(), "sub": subject.public_key(), "name": name, "nats": claims
        }));
        let text = format!("{head}.{body}");
        let signature = issuer.sign(text.as_bytes()).expect("a signature");
        format!("{text}.{}", URL_SAFE_NO_PAD.encode(signature))
    }

    fn settings(&self) -> String {
        let operator =
            Self::token(&self.operator, &self.operator, "operator", json!({ "type": "operator", "version": 2 }));
        let limits = json!({
            "subs": -1, "data": -1, "payload": -1, "imports": -1, "exports": -1, "wildcards": true, "conn": -1, "leaf": -1,
            "mem_storage": -1, "disk_storage": -1, "streams": -1, "consumer": -1
        });
        let account = |keys: &KeyPair, name: &str, claims: Value| {
            format!("{}: {}", keys.public_key(), Self::token(&self.operator, keys, name, claims))
        };
        let own = account(&self.account, "account", json!({ "type": "account", "version": 2, "limits": limits }));
        let system = account(&self.system, "system", json!({ "type": "account", "version": 2 }));
        format!(
            "operator: {operator}\nsystem_account: {}\nresolver: MEMORY\nresolver_preload: {{\n{own}\n{system}\n}}\n",
            self.system.public_key()
        )
    }

    fn credentials(&self, user: &KeyPair) -> String {
        let claims =
            json!({ "type": "user", "version": 2, "pub": {}, "sub": {}, "subs": -1, "data": -1, "payload": -1 });
        let token = Self::token(&self.account, user, "user", claims);
        let seed = user.seed().expect("a seed");
        format!(
            "-----BEGIN NATS USER JWT-----\n{token}\n------END NATS USER JWT------\n\n\
             -----BEGIN USER NKEY SEED-----\n{seed}\n------END USER NKEY SEED------\n"
        )
    }
}

pub fn unknown_streams(nats: &Nats) {
    let refuses = |config: &str, code: i32, part: &str| {
        let (status, log, _) = Sluice::new(config).run(&[]);
        assert_eq!(status.code(), Some(code), "{config}\n{log}");
        assert!(log.contains(part), "{log}");
    };
    refuses(&nats_config(&nats.url, ""), 78, "stream IN does not exist; create it with `nats stream add IN");
    nats.stream("IN", "in.>", |_| {});
    refuses(&nats_config(&nats.url, ""), 78, "no stream keeps what is published to out.x");
    let nobody = format!("nats://127.0.0.1:{}", free_port());
    refuses(&nats_config(&nobody, ""), 69, "no answer from the NATS servers");
    let rows = [
        ("subject: out.x", "subject: out.*", "`*` is a wildcard"),
        ("subject: out.x", "subject: out..x", "none of them empty"),
        ("subject: out.x", "subject: \"out x\"", "blanks"),
        ("subject: out.x", "subject: $JS.API.x", "for itself"),
        ("subject: out.x", "subject: \"out.{$.a\"", "has no `}`"),
        ("durable: sluice", "durable: sluice, subject: \"in.>.x\"", "is not a subject"),
        ("durable: sluice", "durable: sluice, subject: \"in.x*\"", "is not a subject"),
        ("durable: sluice", "durable: sluice, subject: other.x", "keeps in.>, and nothing that fits subject other.x"),
        ("durable: sluice", "durable: a.b", "not a name"),
        ("durable: sluice, ", "", "`stream` needs `durable`"),
        ("durable: sluice", "durable: sluice, queue: q", "has no `queue`"),
        ("nats://", "http://", "not the address of a NATS server"),
    ];
    for (from, to, part) in rows {
        refuses(&nats_config(&nats.url, "").replace(from, to), 78, part);
    }
    // A template may lead to a subject that no stream keeps: that event is a dead letter, the others are not.
    nats.stream("OUT", "out.known", |_| {});
    nats.publish(
        ["known", "unknown"].iter().map(|to| ("in.x".to_owned(), format!("{{\"source\":\"s\",\"to\":\"{to}\"}}"))),
    );
    let sluice = Sluice::new(&nats_config(&nats.url, "").replace("out.x", "\"out.{$.to}\""));
    let mut running = sluice.start(&[]);
    running.until("everything is acknowledged", Duration::from_secs(30), |_| nats.consumed("IN", "sluice"));
    running.stop();
    let letters = sluice.lines("dead-letters/default");
    assert!(letters.len() == 1 && letters[0].contains("no stream keeps subject out.unknown"), "{letters:?}");
    assert_eq!(nats.count("OUT"), 1);
}

/// A stream that forgets what was not read yet: said loudly, counted, and the rest goes on. First while nobody runs, then
/// while a target is slow.
pub fn removed_unread(nats: &Nats) {
    nats.stream("SHORT", "short.in", |config| config.max_messages = 100);
    let config = nats_config(&nats.url, "").replace("stream: IN", "stream: SHORT");
    let config = config.replace("subject: out.x, jetstream: true", "subject: short.out");
    let sluice = Sluice::new(&config);
    let publish = |count: u32| nats.publish((0..count).map(|_| ("short.in".to_owned(), EVENT.to_owned())));
    publish(10);
    let mut running = sluice.start(&[]);
    running.until("the first are read", Duration::from_secs(20), |_| nats.consumed("SHORT", "sluice"));
    running.stop();
    publish(300);
    let mut running = sluice.start(&[]);
    running.until("the rest is read", Duration::from_secs(20), |_| nats.consumed("SHORT", "sluice"));
    let removed = |running: &crate::process::Running| running.metric("sluice_source_removed_events_total", "in");
    running.until("it is counted", Duration::from_secs(20), |running| removed(running) == 200.0);
    assert!(sluice.log().contains("removed at least 200 messages before they were read"), "{}", sluice.log());
    running.stop();

    // One delivery at a time, half a second each: the stream runs away, with the whole of it read and with a part.
    const MORE: u32 = 3000;
    for (durable, subject, least) in [("whole", "", 2000.0), ("part", ", subject: short.in", 50.0)] {
        let receiver = crate::receiver::Receiver::start(|_, _| {
            std::thread::sleep(Duration::from_millis(500));
            crate::receiver::Act::ok()
        });
        let slow = format!("http: {{ url: \"{}\", max_in_flight: 1 }}", receiver.url);
        let config = config
            .replace("durable: sluice", &format!("durable: {durable}{subject}"))
            .replace(&format!("nats: {{ servers: \"{}\", subject: short.out,  }}", nats.url), &slow);
        assert!(config.contains("http:"), "{config}");
        let sluice = Sluice::new(&format!("{config}limits: {{ in_flight_events: 5, retry_log_bytes: 0 }}\n"));
        let mut running = sluice.start(&[]);
        running.until("it reads", Duration::from_secs(20), |_| !receiver.requests().is_empty());
        publish(MORE);
        running.until("the loss is said", Duration::from_secs(30), |it| removed(it) > least);
        assert!(sluice.log().contains("messages before they were read, they are lost"), "{}", sluice.log());
        assert!(removed(&running) <= f64::from(MORE) + 100.0);
        running.kill();
    }
}

/// Who may not do all: what is refused is no delivery, and who may publish and no more needs no more.
pub fn permissions() {
    let settings = |_: &Path| {
        "authorization { users = [\n\
           { user: all, password: p }\n\
           { user: mute, password: p, permissions: { publish: { deny: [\"out.x\"] } } }\n\
           { user: least, password: p, permissions: { publish: [\"out.>\"], subscribe: { deny: [\">\"] } } }\n\
           { user: deaf, password: p, permissions: { subscribe: { deny: [\"in.>\"] } } }\n\
         ] }\n"
            .to_owned()
    };
    let server = Server::start(settings);
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let options = async_nats::ConnectOptions::with_user_and_password("all".into(), "p".into());
    let client = runtime.block_on(options.connect(&server.url)).expect("a connection");
    let mut heard = runtime.block_on(client.subscribe("out.x")).expect("a subscription");
    runtime.block_on(client.flush()).expect("a flush");
    let config = |user: &str, source: &str| {
        let client = format!("servers: \"{}\", auth: {{ basic: {{ username: {user}, password: p }} }}", server.url);
        let source = source.replace("CLIENT", &client);
        format!(
            "data_dir: data\nserver: {{ listen: \"off\", admin: \"{{admin}}\", shutdown: {{ drain_timeout: 1s }} }}\n\
             sources: {{ in: {{ {source} }} }}\n\
             targets: {{ out: {{ nats: {{ {client}, subject: out.x }}, retry: {{ initial: 50ms, max_attempts: 2 }} }} }}\n\
             rules: {{ all: {{ pattern: {{ source: [s] }}, targets: [out] }} }}\n"
        )
    };
    let lines = "file: { path: events }";
    let events = format!("{EVENT}\n").repeat(3);

    let sluice = Sluice::new(&config("mute", lines));
    sluice.write("events", &events);
    let (status, log, _) = sluice.run(&[]);
    assert_eq!(status.code(), Some(0), "{log}");
    let letters = sluice.lines("dead-letters/default");
    assert!(
        letters.len() == 3 && letters[0].contains("NO_PERMISSIONS") && letters[0].contains("publish to out.x"),
        "{log}"
    );

    let sluice = Sluice::new(&config("least", lines));
    sluice.write("events", &events);
    let (status, log, _) = sluice.run(&[]);
    assert_eq!(status.code(), Some(0), "{log}");
    assert!(sluice.lines("dead-letters/default").is_empty(), "{log}");
    let mut ids = Vec::new();
    // Whatever comes comes before this.
    runtime.block_on(client.publish("out.x", "end".into())).expect("a publication");
    loop {
        use futures_util::StreamExt;
        let message = runtime.block_on(heard.next()).expect("a message");
        let Some(headers) = message.headers else { break };
        ids.push(headers.get("sluice-delivery-id").expect("an id").to_string());
    }
    assert_eq!(ids.len(), 3, "each event once: {ids:?}");

    let sluice = Sluice::new(&config("deaf", "nats: { CLIENT, subject: in.x }"));
    let (status, log, _) = sluice.run(&[]);
    assert!(
        status.code() == Some(74) && log.contains("does not let us subscribe to in.x"),
        "{:?} {log}",
        status.code()
    );
}
