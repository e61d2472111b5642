//! The matcher alone, on decoded events: by number of rules, operators, and how often rules match.

#![allow(clippy::expect_used)]

use bumpalo::Bump;
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use sluice::cli::corpus::orders::{self, Mix, SHOPS};
use sluice::event::{Fields, Scanner, decode};
use sluice::matcher::{Builder, Matcher, Scratch};
use sluice::pattern::{Limits, Numbers, Pattern, parse};
use std::hint::black_box;

const EVENTS: u64 = 200;
const SEED: u64 = 1;

fn patterns(rules: u64, sources: u64, mix: Mix) -> Vec<Pattern> {
    let pattern = |number| parse(orders::pattern(SEED, number, sources, mix).as_bytes(), &Limits::default());
    (0..rules).map(|number| pattern(number).expect("a valid pattern")).collect()
}

fn compiled(patterns: &[Pattern]) -> Matcher {
    let mut builder = Builder::new(SEED, Numbers::Value);
    for pattern in patterns {
        builder.add(pattern);
    }
    builder.build()
}

fn matching(criterion: &mut Criterion) {
    for (name, mix) in [("common", Mix::Common), ("full", Mix::Full)] {
        // Ten times the sources are a tenth of the matches.
        for sources in [SHOPS, SHOPS * 10] {
            let mut group = criterion.benchmark_group(format!("match/{name}/{sources}_sources"));
            group.throughput(Throughput::Elements(EVENTS));
            for rules in [1, 100, 1000, 10_000, 100_000] {
                let matcher = compiled(&patterns(rules, sources, mix));
                let events: Vec<String> = (0..EVENTS).map(|number| orders::event(SEED, number, sources, 2)).collect();
                let bump = Bump::new();
                // A scanner holds what one decoded event has where; here all stay decoded.
                let mut scanners: Vec<Scanner> = events.iter().map(|_| Scanner::default()).collect();
                let decoded = events.iter().zip(&mut scanners);
                let decoded: Vec<Fields<'_>> = decoded
                    .map(|(event, scanner)| {
                        decode(event.as_bytes(), matcher.paths(), scanner, &bump).expect("an event")
                    })
                    .collect();
                let mut scratch = Scratch::default();
                group.bench_function(BenchmarkId::from_parameter(rules), |bencher| {
                    bencher.iter(|| {
                        for fields in &decoded {
                            black_box(matcher.matches(fields, &mut scratch).expect("a verdict").len());
                        }
                    });
                });
            }
            group.finish();
        }
    }
}

criterion_group!(benches, matching);
criterion_main!(benches);
