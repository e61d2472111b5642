//! `--update`: what came of a test written into its file as what it expects.
//!
//! In: tests that failed. Out: edited files. Promises: a file is written only when the edited test then passes and
//! nothing else of the file reads otherwise; comments and all other bytes stay. Leaves to others: printing results.

use super::judge::{Verdict, judge};
use super::same::{compact, difference};
use crate::app::{Exit, Failed};
use crate::catalog::Catalog;
use crate::config::Loaded;
use crate::config::expected::{Expected, rewrite};
use crate::config::rule_tests::{RuleTest, TestFile, reread};
use crate::plan::Plan;
use std::path::Path;

/// Edits the files of tests that are `wanted` and fail; tells each on standard error. Returns the tests as they are then.
pub fn update(
    files: Vec<TestFile>,
    loaded: &Loaded,
    plan: &Plan,
    wanted: impl Fn(&RuleTest) -> bool,
) -> Result<Vec<TestFile>, Failed> {
    let edit = |TestFile { file, tests }| {
        let failed = |what: &str, error: std::io::Error| {
            Failed::new(Exit::Io, format!("cannot {what} {}: {error}", Path::display(&file)))
        };
        let before = std::fs::read_to_string(&file).map_err(|error| failed("read", error))?;
        let mut now = (before.clone(), TestFile { file: file.clone(), tests });
        for n in 0..now.1.tests.len() {
            let test = &now.1.tests[n];
            if !wanted(test) {
                continue;
            }
            let verdict = judge(test, &loaded.catalog, plan);
            if verdict.failures.is_empty() {
                continue;
            }
            let place = format!("{}:{}: {}", file.display(), test.line, test.name);
            match edited(&now.0, &now.1, n, &verdict, loaded, plan) {
                Ok(better) => {
                    eprintln!("sluice: {place}: updated");
                    now = better;
                }
                Err(why) => eprintln!("sluice: {place}: left as it is: {why}"),
            }
        }
        if now.0 != before {
            std::fs::write(&file, &now.0).map_err(|error| failed("write", error))?;
        }
        Ok(now.1)
    };
    files.into_iter().map(edit).collect()
}

/// The file with one test edited, as text and as read.
fn edited(
    text: &str,
    read: &TestFile,
    n: usize,
    verdict: &Verdict,
    loaded: &Loaded,
    plan: &Plan,
) -> Result<(String, TestFile), String> {
    let test = &read.tests[n];
    let (lists, outputs) = (lists(test, verdict)?, outputs(test, verdict)?);
    let mut why = String::new();
    let spellings = [as_yaml, quoted, escaped];
    for from in 0..spellings.len() {
        let spell = |payload: &[u8]| spellings[from..].iter().find_map(|spell| spell(payload));
        let outputs = outputs.iter().map(|(target, payload)| Some((target.clone(), spell(payload)?)));
        let Some(outputs) = outputs.collect::<Option<Vec<_>>>() else { continue };
        let text = rewrite(&read.file, text, &test.name, &Expected { lists: lists.clone(), outputs })?;
        match reread(&read.file, text.clone(), loaded) {
            Ok(after) if holds(read, &after, n, &loaded.catalog, plan) => return Ok((text, after)),
            Ok(_) => why = "its file would then say something else".to_owned(),
            Err(problems) => why = problems.0.first().map_or_else(String::new, |problem| problem.message.clone()),
        }
    }
    Err(format!("it cannot be edited safely: {why}"))
}

/// Whether the test passes and the others are what they were.
fn holds(before: &TestFile, after: &TestFile, n: usize, catalog: &Catalog, plan: &Plan) -> bool {
    let said = |test: &RuleTest| {
        let RuleTest { name, line: _, bus, event, ingestion_time, expect } = test;
        format!("{:?}", (name, bus, event, ingestion_time, expect))
    };
    let others = || before.tests.iter().zip(&after.tests).enumerate().filter(|(other, _)| *other != n);
    let Some(test) = after.tests.get(n) else { return false };
    before.tests.len() == after.tests.len()
        && before.tests[n].name == test.name
        && before.tests[n].event == test.event
        && others().all(|(_, (a, b))| said(a) == said(b))
        && judge(test, catalog, plan).failures.is_empty()
}

/// The lists of names that are otherwise.
fn lists(test: &RuleTest, verdict: &Verdict) -> Result<Vec<(&'static str, Vec<String>)>, String> {
    let unmended = verdict.failures.iter().find(|failure| matches!(failure.kind, "undecided" | "transform"));
    if let Some(failure) = unmended {
        return Err(failure.message.clone());
    }
    let (expect, mut lists) = (&test.expect, Vec::new());
    if let Some(rules) = &expect.rules {
        let kept = rules.iter().filter(|rule| verdict.matched.contains(rule));
        let new = verdict.matched.iter().filter(|rule| !rules.contains(rule));
        lists.push(("rules", rules, kept.chain(new).cloned().collect::<Vec<_>>()));
    }
    let quiet = expect.no_rules.iter().filter(|rule| !verdict.matched.contains(rule));
    lists.push(("no_rules", &expect.no_rules, quiet.cloned().collect()));
    let receives = |target: &String| verdict.delivered.iter().any(|(to, _)| to == target);
    let empty = expect.no_outputs.iter().filter(|target| !receives(target));
    lists.push(("no_outputs", &expect.no_outputs, empty.cloned().collect()));
    let changed = lists.into_iter().filter(|(_, before, after)| *before != after);
    Ok(changed.map(|(key, _, after)| (key, after)).collect())
}

/// What targets receive instead of what is expected.
fn outputs(test: &RuleTest, verdict: &Verdict) -> Result<Vec<(String, Vec<u8>)>, String> {
    let mut changed = Vec::new();
    for (target, expected) in &test.expect.outputs {
        let came = || verdict.delivered.iter().filter(|(to, _)| to == target).map(|(_, payload)| payload);
        if came().any(|payload| difference(&expected.0, payload).is_none()) {
            continue;
        }
        let mut payloads: Vec<_> = came().collect();
        payloads.dedup();
        match payloads[..] {
            [] => return Err(format!("target {target} receives nothing: take it out, or name it in `no_outputs`")),
            [payload] => changed.push((target.clone(), payload.clone())),
            [..] => return Err(format!("target {target} receives several outputs: choose one")),
        }
    }
    Ok(changed)
}

/// A JSON text as it is, which is YAML as well; but not a string whose text would be read as another JSON value.
fn as_yaml(payload: &[u8]) -> Option<String> {
    let text = compact(payload);
    let is_json = |text: &str| serde_json::from_str::<serde::de::IgnoredAny>(text).is_ok();
    let misread = serde_json::from_str::<String>(&text).is_ok_and(|inside| is_json(&inside));
    (is_json(&text) && !misread).then_some(text)
}

/// A text in single quotes.
fn quoted(payload: &[u8]) -> Option<String> {
    let text = compact(payload);
    (!text.contains(char::is_control)).then(|| format!("'{}'", text.replace('\'', "''")))
}

/// A text in double quotes.
fn escaped(payload: &[u8]) -> Option<String> {
    std::str::from_utf8(payload).ok().map(|text| serde_json::json!(text).to_string())
}
