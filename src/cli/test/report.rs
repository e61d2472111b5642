//! What came of tests, as text, JSON or JUnit's XML.
//!
//! In: [`Ran`]. Out: bytes on a writer. Promises: the three tell the same. Leaves to others: exit codes.

use super::coverage::{Coverage, Missed};
use super::judge::{Failure, Verdict};
use crate::config::At;
use console::style;
use quick_xml::Writer;
use quick_xml::events::{BytesDecl, BytesText, Event};
use serde_json::{Value, json};
use std::io::{self, Write};
use std::path::PathBuf;

/// The tests that ran.
pub struct Ran {
    /// By file, in the order of the file.
    pub files: Vec<(PathBuf, Vec<Tested>)>,
    /// Where it was asked for.
    pub coverage: Option<Coverage>,
}

/// A test that ran.
pub struct Tested {
    /// Its name.
    pub name: String,
    /// Where it stands.
    pub line: usize,
    /// What came of it.
    pub verdict: Verdict,
}

impl Ran {
    /// How many passed, and how many failed.
    pub fn counts(&self) -> (usize, usize) {
        let all = self.files.iter().flat_map(|(_, tests)| tests);
        let (passed, failed): (Vec<_>, Vec<_>) = all.partition(|tested| tested.verdict.failures.is_empty());
        (passed.len(), failed.len())
    }

    /// For people.
    ///
    /// # Errors
    /// Those of the writer.
    pub fn text(&self, out: &mut dyn Write) -> io::Result<()> {
        for (file, tests) in &self.files {
            for Tested { name, line, verdict } in tests {
                let mark = match verdict.failures.is_empty() {
                    true => style("ok  ").green(),
                    false => style("FAIL").red().bold(),
                };
                writeln!(out, "{mark} {}:{line}: {name}", file.display())?;
                for failure in &verdict.failures {
                    writeln!(out, "{}", told(failure, "     "))?;
                }
            }
        }
        if let Some(coverage) = &self.coverage {
            for missed in &coverage.missed {
                let at = missed.at.as_ref().map_or_else(String::new, |at| format!("{}: ", place(at)));
                writeln!(out, "{at}no test matches {}", what(missed))?;
            }
            let (covered, branches, percent) = (coverage.covered, coverage.branches, coverage.percent());
            writeln!(out, "coverage: {covered} of {branches} branches, {percent} %")?;
        }
        let (passed, failed) = self.counts();
        writeln!(out, "{passed} test{} passed, {failed} failed", if passed == 1 { "" } else { "s" })
    }

    /// For programs.
    pub fn json(&self) -> Value {
        let tests = self.files.iter().flat_map(|(file, tests)| {
            tests.iter().map(move |Tested { name, line, verdict }| {
                json!({
                    "file": file.display().to_string(),
                    "line": line,
                    "name": name,
                    "passed": verdict.failures.is_empty(),
                    "matched": verdict.matched,
                    "failures": verdict.failures.iter().map(failure).collect::<Vec<_>>(),
                })
            })
        });
        let (passed, failed) = self.counts();
        let mut all = json!({ "passed": passed, "failed": failed, "tests": tests.collect::<Vec<_>>() });
        if let Some(coverage) = &self.coverage {
            all["coverage"] = json!({
                "covered": coverage.covered,
                "branches": coverage.branches,
                "percent": coverage.percent(),
                "missed": coverage.missed.iter().map(missed).collect::<Vec<_>>(),
            });
        }
        all
    }

    /// For build servers.
    ///
    /// # Errors
    /// Those of the writer.
    pub fn junit(&self, out: &mut dyn Write) -> io::Result<()> {
        let mut xml = Writer::new_with_indent(&mut *out, b' ', 2);
        xml.write_event(Event::Decl(BytesDecl::new("1.0", Some("UTF-8"), None)))?;
        let (passed, failed) = self.counts();
        let counts = [("tests", (passed + failed).to_string()), ("failures", failed.to_string())];
        let suites = counts.iter().map(|(name, value)| (*name, value.as_str()));
        xml.create_element("testsuites")
            .with_attribute(("name", "sluice test"))
            .with_attributes(suites)
            .write_inner_content(|xml| {
                self.files.iter().try_for_each(|(file, tests)| suite(xml, &file.display().to_string(), tests))
            })?;
        writeln!(out)
    }
}

fn suite<W: Write>(xml: &mut Writer<W>, file: &str, tests: &[Tested]) -> io::Result<()> {
    let failed = tests.iter().filter(|tested| !tested.verdict.failures.is_empty()).count();
    let (all, failed) = (tests.len().to_string(), failed.to_string());
    let file = allowed(file);
    let attributes = [("name", &*file), ("tests", &*all), ("failures", &*failed), ("errors", "0"), ("skipped", "0")];
    xml.create_element("testsuite").with_attributes(attributes).write_inner_content(|xml| {
        for Tested { name, line, verdict } in tests {
            let (name, line) = (allowed(name), line.to_string());
            let case = [("classname", &*file), ("name", &*name), ("file", &*file), ("line", &*line)];
            let case = xml.create_element("testcase").with_attributes(case);
            if verdict.failures.is_empty() {
                case.write_empty()?;
                continue;
            }
            case.write_inner_content(|xml| {
                for failure in &verdict.failures {
                    let message = allowed(&failure.message);
                    let text = allowed(&told(failure, ""));
                    let attributes = [("message", &*message), ("type", failure.kind)];
                    let element = xml.create_element("failure").with_attributes(attributes);
                    element.write_text_content(BytesText::new(&text))?;
                }
                Ok(())
            })?;
        }
        Ok(())
    })?;
    Ok(())
}

/// A text with characters that XML can hold.
fn allowed(text: &str) -> String {
    let fits = |c: char| matches!(c, '\t' | '\n' | '\r' | ' '..='\u{d7ff}' | '\u{e000}'..='\u{fffd}' | '\u{10000}'..);
    text.chars().map(|c| if fits(c) { c } else { char::REPLACEMENT_CHARACTER }).collect()
}

fn told(failure: &Failure, margin: &str) -> String {
    let details = failure.details.iter().map(|detail| format!("\n{margin}  {detail}"));
    format!("{margin}{}{}", failure.message, details.collect::<String>())
}

fn failure(failure: &Failure) -> Value {
    json!({ "kind": failure.kind, "name": failure.name, "message": failure.message, "details": failure.details })
}

fn missed(missed: &Missed) -> Value {
    let at = missed.at.as_ref();
    json!({
        "rule": missed.rule,
        "branch": missed.branch.as_ref().map(|(n, _, _)| n),
        "conditions": missed.branch.as_ref().map(|(_, _, conditions)| conditions),
        "file": at.map(|at| at.file.display().to_string()),
        "line": at.map(|at| at.line),
        "column": at.map(|at| at.column),
    })
}

fn what(missed: &Missed) -> String {
    match &missed.branch {
        None => format!("rule {}", missed.rule),
        Some((n, count, conditions)) => format!("branch {n} of {count} of rule {}: {conditions}", missed.rule),
    }
}

fn place(at: &At) -> String {
    format!("{}:{}:{}", at.file.display(), at.line, at.column)
}
