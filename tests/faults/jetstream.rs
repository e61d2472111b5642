//! F04: a stream in, a stream out, and both the server and the process are killed.

use crate::oracle::{Ledger, event, key};
use crate::process::Sluice;
use crate::setup::{LONG, Route, STUBBORN, config, gets};
use crate::stage::{Stage, pass, until, worst};
use std::time::{Duration, Instant};

const TO_STREAM: [u64; 7] = [0, 1, 2, 3, 4, 5, 6];

/// F04.
pub fn server_and_process_die(stage: &Stage) {
    let (events, deaths) = stage.pick((100_000, 6), (15_000, 2));
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
    let (mut rng, mut resumed) = (stage.rng(), Vec::new());
    let mut running = sluice.start(&[]);
    until("events flow", LONG, || nats.count(&out) > 0);
    let total = events * 7 / 10;
    let mut kills = (0, 0);
    for death in 0..deaths {
        pass(rng.millis(100, 400));
        if nats.count(&out) >= total {
            break;
        }
        match death % 2 {
            0 => {
                nats.crash();
                kills.0 += 1;
            }
            _ => {
                running.kill();
                running = sluice.start(&[]);
                kills.1 += 1;
            }
        }
        let (before, begin) = (nats.count(&out), Instant::now());
        until("deliveries go on", LONG, || nats.count(&out) > before || before >= total);
        resumed.push(begin.elapsed());
    }
    until("everything is acknowledged", LONG, || nats.consumed(&topic, &topic));
    running.stop();
    stage.note("events", events);
    stage.note("server_deaths", kills.0);
    stage.note("deaths", kills.1);
    stage.note("resume_seconds", worst(&resumed));
    let wanted = gets(&TO_STREAM);
    let mut ledger = Ledger::new(&[events], &wanted).unordered();
    for record in nats.read(&out, &format!("{out}.all")) {
        ledger.take(&record.payload, record.header("sluice-delivery-id"));
    }
    let verdict = ledger.close();
    stage.judge("stream", &verdict);
    assert!(kills.0 > 0 && kills.1 > 0, "both died in mid-stream");
    assert_eq!(verdict.duplicates, 0, "the stream drops repetitions by their ids: duplicates");
    assert!(worst(&resumed) <= Duration::from_secs(15).as_secs_f64(), "{resumed:?} to go on");
}
