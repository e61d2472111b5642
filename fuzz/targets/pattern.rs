//! Any bytes as a pattern: refused with a place in the text, or read, and what is read shows itself as a pattern that
//! reads the same.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sluice::matcher::Builder;
use sluice::pattern::{Limits, Numbers, parse};

fuzz_target!(|data: &[u8]| {
    let limits = Limits { alternatives: 200, ..Limits::default() };
    let pattern = match parse(data, &limits) {
        Ok(pattern) => pattern,
        Err(error) => {
            assert!(error.at <= data.len() && !error.message.is_empty());
            return;
        }
    };
    assert!(!pattern.alternatives.is_empty() && pattern.alternatives.len() <= limits.alternatives);
    for condition in pattern.alternatives.iter().flat_map(|alternative| &alternative.conditions) {
        let tests: Vec<String> = condition.tests.iter().map(ToString::to_string).collect();
        let shown = format!("{{\"a\":[{}]}}", tests.join(","));
        let limits = Limits { text_bytes: usize::MAX, ..limits };
        let read = parse(shown.as_bytes(), &limits).unwrap_or_else(|error| panic!("{shown}: {error}"));
        assert_eq!(read.alternatives[0].conditions[0].tests, condition.tests, "{shown}");
    }
    let mut builder = Builder::new(7, Numbers::Value);
    builder.add(&pattern);
    builder.build();
});
