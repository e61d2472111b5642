//! Decode, by size of the event and by how many paths rules name, beside simd-json's tape of the same bytes.

#![allow(clippy::expect_used)]

use bumpalo::Bump;
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use simd_json::{Buffers, Tape, fill_tape};
use sluice::cli::corpus::orders::{self, Mix, SHOPS};
use sluice::event::{Scanner, decode};
use sluice::matcher::{Builder, Matcher};
use sluice::pattern::{Limits, Numbers, parse};
use std::hint::black_box;

/// Order lines of an event: 0.9, 12 and 58 KB.
const SIZES: [u64; 3] = [2, 200, 1000];

fn matcher(rules: u64) -> Matcher {
    let mut builder = Builder::new(1, Numbers::Value);
    for number in 0..rules {
        let text = orders::pattern(1, number, SHOPS, Mix::Full);
        builder.add(&parse(text.as_bytes(), &Limits::default()).expect("a valid pattern"));
    }
    builder.build()
}

fn by_size(criterion: &mut Criterion) {
    let matchers = [1, 1000].map(|rules| (rules, matcher(rules)));
    for lines in SIZES {
        let events: Vec<String> = (0..100).map(|number| orders::event(1, number, SHOPS, lines)).collect();
        let mut group = criterion.benchmark_group(format!("decode/{lines}_lines"));
        group.throughput(Throughput::Bytes(events.iter().map(|event| event.len() as u64).sum()));
        for (rules, matcher) in &matchers {
            let (mut scanner, mut bump) = (Scanner::default(), Bump::new());
            group.bench_function(BenchmarkId::new("rules", rules), |bencher| {
                bencher.iter(|| {
                    for event in &events {
                        bump.reset();
                        black_box(decode(event.as_bytes(), matcher.paths(), &mut scanner, &bump).is_ok());
                    }
                });
            });
        }
        let (mut buffers, mut copy, mut kept) = (Buffers::default(), Vec::new(), None::<Tape<'static>>);
        group.bench_function("tape", |bencher| {
            bencher.iter(|| {
                for event in &events {
                    copy.clear();
                    copy.extend_from_slice(event.as_bytes());
                    let mut tape = kept.take().unwrap_or_else(Tape::null).reset();
                    black_box(fill_tape(&mut copy, &mut buffers, &mut tape).is_ok());
                    kept = Some(tape.reset());
                }
            });
        });
        group.finish();
    }
}

criterion_group!(benches, by_size);
criterion_main!(benches);
