//! The way of an event inside one worker, without brokers: decode and match, by number of rules.
//!
//! `sluice bench pipeline` measures the same events and rules from Kafka to Kafka.

#![allow(clippy::expect_used)]

use bumpalo::Bump;
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use sluice::ack::{OffsetTracker, Pending, Receipt, Report};
use sluice::cli::corpus::slots;
use sluice::credit::{Credit, Window};
use sluice::event::{Scanner, decode};
use sluice::matcher::{Builder, Matcher, Scratch};
use sluice::pattern::{Limits, Numbers, parse};
use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;

const EVENTS: u64 = 1000;

fn matcher(rules: u64) -> Matcher {
    let mut builder = Builder::new(1, Numbers::Value);
    for number in 0..rules {
        let text = slots::pattern(number, rules, 1);
        let pattern = parse(text.as_bytes(), &Limits::default()).expect("a valid pattern");
        builder.add(&pattern);
    }
    builder.build()
}

fn pipeline(criterion: &mut Criterion) {
    let events: Vec<String> = (0..EVENTS).map(slots::event).collect();
    let bytes: usize = events.iter().map(String::len).sum();
    let mut group = criterion.benchmark_group("decode_and_match");
    group.throughput(Throughput::Elements(EVENTS));
    for rules in [1, 100, 1000, 10_000] {
        let matcher = matcher(rules);
        let (mut scanner, mut scratch, mut bump) = (Scanner::default(), Scratch::default(), Bump::new());
        group.bench_function(BenchmarkId::from_parameter(rules), |bencher| {
            bencher.iter(|| {
                let mut matches = 0;
                for event in &events {
                    bump.reset();
                    if let Ok(fields) = decode(event.as_bytes(), matcher.paths(), &mut scanner, &bump) {
                        matches += matcher.matches(&fields, &mut scratch).expect("a verdict").len();
                    }
                }
                black_box(matches)
            });
        });
    }
    group.finish();

    // The yardstick: simd-json's tape of the same bytes, buffers reused.
    let mut group = criterion.benchmark_group("tape");
    group.throughput(Throughput::Elements(EVENTS));
    let mut buffers = simd_json::Buffers::new(bytes);
    let mut copy = Vec::new();
    group.bench_function("simd-json", |bencher| {
        bencher.iter(|| {
            for event in &events {
                copy.clear();
                copy.extend_from_slice(event.as_bytes());
                let mut tape = simd_json::Tape::null();
                black_box(simd_json::fill_tape(&mut copy, &mut buffers, &mut tape).is_ok());
            }
        });
    });
    group.finish();
}

/// What it costs to know which events are settled: runs of 250, one event in ten delivered to one target.
fn tracking(criterion: &mut Criterion) {
    const RUN: u64 = 250;
    let (report, credit) = (Arc::<Report>::default(), Arc::new(Credit::new(Window { events: 4096, bytes: 8 << 20 })));
    let mut tracker = OffsetTracker::default();
    let partition = tracker.add();
    tracker.assign(partition);
    let mut offset = 0;
    let mut group = criterion.benchmark_group("tracking");
    group.throughput(Throughput::Elements(EVENTS));
    group.bench_function("10 % delivered", |bencher| {
        bencher.iter(|| {
            for _ in 0..EVENTS / RUN {
                offset += RUN as i64;
                let receipt = Receipt::open(tracker.open(partition, offset, RUN as u32, RUN * 800), &report, &credit);
                let open: Vec<Pending> = (0..RUN / 10).map(|_| receipt.pending()).collect();
                receipt.close();
                open.into_iter().for_each(Pending::settle);
                for run in report.take(Duration::ZERO) {
                    tracker.settle(&run);
                }
            }
            black_box(tracker.committable())
        });
    });
    group.finish();
}

criterion_group!(benches, pipeline, tracking);
criterion_main!(benches);
