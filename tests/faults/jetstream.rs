//! F04: a stream in, a stream out, and both the server and the process are killed.

use crate::oracle::{Ledger, event, key};
use crate::process::Sluice;
use crate::setup::{LONG, Route, STUBBORN, config, gets};
use crate::stage::{Stage, grows, pass, until, worst};
use std::time::Instant;

const TO_STREAM: [u64; 7] = [0, 1, 2, 3, 4, 5, 6];

/// F04.
pub fn server_and_process_die(stage: &Stage) {
    let (events, deaths) = stage.pick((300_000, 10), (30_000, 2));
    let (nats, topic, out) = (stage.nats(), stage.name("f04"), stage.name("f04-out"));
    let plain = |_: &mut async_nats::jetstream::stream::Config| {};
    nats.stream(&topic, &format!("{topic}.>"), plain);
    nats.stream(&out, &format!("{out}.all"), plain);
    let url = &nats.url;
    let target = format!("nats: {{ servers: \"{url}\", subject: {out}.all, jetstream: true }}, {STUBBORN}");
    let routes = [Route { name: "stream", remainders: &TO_STREAM, target }];
    let source = format!("nats: {{ servers: \"{url}\", stream: {topic}, durable: {topic}, ack_wait: 3s }}");
    let head = "limits: { in_flight_events: 1000 }\n";
    let sluice = Sluice::new(&config(head, &source, &routes, ""));
    nats.publish((0..events).map(|n| (format!("{topic}.k{}", key(n)), event(0, n))));
    let (mut rng, mut resumed) = (stage.rng(), [Vec::new(), Vec::new()]);
    let mut running = sluice.start(&[]);
    until("events flow", LONG, || nats.try_count(&out).is_some_and(|count| count > 0));
    for death in 0..2 * deaths {
        pass(rng.millis(50, 200));
        match death % 2 {
            0 => nats.crash(),
            _ => {
                running.kill();
                // The server may die before it is up.
                running = sluice.start(&["--wait"]);
            }
        }
        let begin = Instant::now();
        until("deliveries go on", LONG, grows(|| nats.try_count(&out)));
        resumed[death % 2].push(begin.elapsed());
        assert!(running.lives(), "it goes on without the server: {}", sluice.log());
    }
    assert!(!nats.consumed(&topic, &topic), "they died in mid-stream");
    until("everything is acknowledged", LONG, || nats.consumed(&topic, &topic));
    running.stop();
    stage.note("events", events);
    stage.note("server_deaths", resumed[0].len());
    stage.note("deaths", resumed[1].len());
    stage.note("resume_seconds_server", worst(&resumed[0]));
    stage.note("resume_seconds", worst(&resumed[1]));
    let wanted = gets(&TO_STREAM);
    let mut ledger = Ledger::new(&[events], &wanted).unordered();
    for record in nats.read(&out, &format!("{out}.all")) {
        ledger.take(&record.payload, record.header("sluice-delivery-id"));
    }
    let verdict = ledger.close();
    stage.judge("stream", &verdict);
    assert_eq!(verdict.duplicates, 0, "the stream drops repetitions by their ids: duplicates");
    assert!(resumed.iter().all(|times| worst(times) <= 5.0), "{resumed:?} to go on");
}
