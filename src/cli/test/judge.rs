//! One test against the compiled rules: which match, what targets receive, and what is otherwise than expected.
//!
//! In: a plan and a test. Out: a [`Verdict`]. Promises: decides and transforms with the code that routes events. Leaves
//! to others: printing.

use super::super::explain::{Event, line};
use super::same::{compact, difference};
use crate::catalog::{Catalog, RuleState};
use crate::config::rule_tests::RuleTest;
use crate::event::{Scanner, Tree};
use crate::matcher::Judge;
use crate::pattern::explain::explain;
use crate::plan::{BusPlan, Plan};
use crate::transform::Context;

/// What came of a test.
pub struct Verdict {
    /// The rules that match, shadow rules included.
    pub matched: Vec<String>,
    /// What each target receives.
    pub delivered: Vec<(String, Vec<u8>)>,
    /// None when the test passed.
    pub failures: Vec<Failure>,
}

impl Verdict {
    fn undecided(failure: Failure) -> Self {
        Self { matched: Vec::new(), delivered: Vec::new(), failures: vec![failure] }
    }
}

/// One thing that is otherwise than expected.
pub struct Failure {
    /// For programs.
    pub kind: &'static str,
    /// The rule or target that it is about.
    pub name: String,
    /// What is wrong.
    pub message: String,
    /// Why, a line each.
    pub details: Vec<String>,
}

impl Failure {
    fn new(kind: &'static str, name: &str, message: String) -> Self {
        Self { kind, name: name.to_owned(), message, details: Vec::new() }
    }

    fn because(self, details: Vec<String>) -> Self {
        Self { details, ..self }
    }
}

/// What a target receives.
struct Delivered<'p> {
    rule: &'p str,
    target: &'p str,
    payload: Vec<u8>,
}

/// Puts a test's event to the rules of its bus.
pub fn judge(test: &RuleTest, catalog: &Catalog, plan: &Plan) -> Verdict {
    let mut failures = Vec::new();
    let Some(bus) = plan.bus(&test.bus).map(|id| &plan.buses[id.0 as usize]) else {
        let failure = Failure::new("undecided", &test.bus, format!("bus {} does not exist", test.bus));
        return Verdict::undecided(failure);
    };
    let numbers: Vec<usize> = match Judge::new(&bus.matcher).matches(&test.event) {
        Ok(rules) => rules.iter().map(|&rule| rule as usize).collect(),
        Err(fault) => {
            let failure = Failure::new("undecided", &test.bus, format!("the event cannot be matched: {fault}"));
            return Verdict::undecided(failure);
        }
    };
    let matched: Vec<String> = numbers.iter().map(|&n| bus.rules[n].name.to_string()).collect();
    let delivered = deliver(test, plan, bus, &numbers, &mut failures);
    rules(test, catalog, &matched, &mut failures);
    outputs(test, &delivered, &mut failures);
    let delivered = delivered.into_iter().map(|it| (it.target.to_owned(), it.payload)).collect();
    Verdict { matched, delivered, failures }
}

/// What the rules that match send; what cannot be given its form is a failure.
fn deliver<'p>(
    test: &RuleTest,
    plan: &'p Plan,
    bus: &'p BusPlan,
    matched: &[usize],
    failures: &mut Vec<Failure>,
) -> Vec<Delivered<'p>> {
    let (mut delivered, mut scanner) = (Vec::new(), Scanner::default());
    for rule in matched.iter().map(|&n| &bus.rules[n]).filter(|rule| !rule.shadow) {
        let context = Context { rule_name: &rule.name, rule_arn: &rule.arn, ingestion_time: &test.ingestion_time };
        for planned in &rule.targets {
            let target = plan.targets[planned.target.0 as usize].name.as_str();
            match planned.input.render(&test.event, &context, &mut scanner) {
                Ok(payload) => delivered.push(Delivered { rule: &rule.name, target, payload: payload.into_owned() }),
                Err(error) => {
                    let message = format!("target {target} of rule {} gets nothing: {error}", rule.name);
                    failures.push(Failure::new("transform", target, message));
                }
            }
        }
    }
    delivered
}

fn rules(test: &RuleTest, catalog: &Catalog, matched: &[String], failures: &mut Vec<Failure>) {
    let wanted = test.expect.rules.as_ref();
    let unwanted =
        |rule: &String| test.expect.no_rules.contains(rule) || wanted.is_some_and(|wanted| !wanted.contains(rule));
    for rule in matched.iter().filter(|rule| unwanted(rule)) {
        failures.push(Failure::new("unexpected_rule", rule, format!("rule {rule} matches and should not")));
    }
    for rule in wanted.into_iter().flatten().filter(|rule| !matched.contains(rule)) {
        let why = why_not(test, catalog, rule);
        failures
            .push(Failure::new("missing_rule", rule, format!("rule {rule} should match and does not")).because(why));
    }
}

/// What stands in the way of a rule, in the branch that came nearest.
fn why_not(test: &RuleTest, catalog: &Catalog, name: &str) -> Vec<String> {
    let Some(rule) = catalog.rule(&test.bus, name) else { return Vec::new() };
    if rule.state == RuleState::Disabled {
        return vec!["its state is `disabled`".to_owned()];
    }
    let numbers = catalog.buses().find(|bus| bus.name == test.bus).map(|bus| bus.numbers).unwrap_or_default();
    let Ok(event) = Tree::parse(&test.event) else { return Vec::new() };
    let Some(explanation) = explain(&rule.pattern, &event, numbers) else { return Vec::new() };
    let Some(nearest) = explanation.branches.get(explanation.nearest) else { return Vec::new() };
    let event = Event::new(&event);
    let mut told = Vec::new();
    if explanation.branches.len() > 1 {
        let (n, count) = (explanation.nearest + 1, explanation.branches.len());
        told.push(format!("branch {n} of {count} of $or came nearest"));
    }
    told.extend(nearest.findings.iter().flat_map(|finding| {
        let text = line(finding, &event);
        text.lines().map(str::to_owned).collect::<Vec<_>>()
    }));
    told
}

fn outputs(test: &RuleTest, delivered: &[Delivered<'_>], failures: &mut Vec<Failure>) {
    for (target, expected) in &test.expect.outputs {
        let came: Vec<_> = delivered.iter().filter(|delivered| delivered.target == target).collect();
        let differences: Vec<_> = came.iter().map(|came| difference(&expected.0, &came.payload)).collect();
        if differences.iter().any(Option::is_none) {
            continue;
        }
        let mut details = vec![format!("expected {}", compact(expected.0.as_bytes()))];
        for (came, at) in came.iter().zip(differences) {
            details.push(format!("received {} from rule {}", compact(&came.payload), came.rule));
            details.extend(at.filter(|at| !at.is_empty()).map(|at| format!("they differ at {at}")));
        }
        let message = match came.is_empty() {
            true => format!("target {target} should receive something and receives nothing"),
            false => format!("target {target} receives something else"),
        };
        failures.push(Failure::new("output", target, message).because(details));
    }
    for target in &test.expect.no_outputs {
        for came in delivered.iter().filter(|delivered| delivered.target == target) {
            let message = format!("target {target} should receive nothing");
            let details = vec![format!("received {} from rule {}", compact(&came.payload), came.rule)];
            failures.push(Failure::new("unexpected_output", target, message).because(details));
        }
    }
}
