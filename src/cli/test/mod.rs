//! `sluice test`: the tests that stand beside rules.

mod coverage;
mod judge;
mod report;
mod same;
mod update;

use super::output;
use crate::app::{Exit, Failed};
use crate::config::rule_tests::{self, RuleTest, TestFile};
use crate::config::{self, Loaded, Outside, Problem, Problems};
use crate::plan::{self, Identity};
use coverage::Watch;
use report::{Ran, Tested};
use std::io::Write;
use std::path::PathBuf;

/// Run the tests that stand beside rules, as NAME.test.yaml beside NAME.yaml: leaves with 1 when one fails
#[derive(clap::Args)]
pub struct Test {
    /// Files or folders with rules, or files of tests
    #[arg(required = true, env = "SLUICE_CONFIG", value_delimiter = ':')]
    paths: Vec<PathBuf>,
    /// Only tests whose name contains this
    #[arg(long, value_name = "TEXT")]
    filter: Option<String>,
    /// Say which rules, and which branches of their $or, no test matched
    #[arg(long)]
    coverage: bool,
    /// Leave with 1 where the tests match less of all branches; implies --coverage
    #[arg(long, value_name = "PERCENT", value_parser = clap::value_parser!(u8).range(..=100))]
    min_coverage: Option<u8>,
    /// Write what came of the tests that fail into their files, as what they expect; what cannot be written safely is left
    #[arg(long)]
    update: bool,
    /// How to print it
    #[arg(short, long, default_value = "text")]
    output: Form,
}

/// How results are printed.
#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Form {
    /// For people
    Text,
    /// One document
    Json,
    /// XML, as build servers read it
    Junit,
}

impl Test {
    pub fn run(self) -> Result<(), Failed> {
        let (loaded, files) = read(&self.paths)?;
        if self.output != Form::Text {
            console::set_colors_enabled(false);
        }
        let ran = self.all(&loaded, files)?;
        let out = &mut std::io::stdout().lock();
        match self.output {
            Form::Text => ran.text(out),
            Form::Json => writeln!(out, "{:#}", ran.json()),
            Form::Junit => ran.junit(out),
        }
        .map_err(output)?;
        if let (Some(wanted), Some(coverage)) = (self.min_coverage, &ran.coverage)
            && !coverage.reaches(wanted)
        {
            return Err(Failed::new(Exit::No, format!("the tests match less than {wanted} % of all branches")));
        }
        if ran.counts().1 == 0 { Ok(()) } else { Err(Failed::new(Exit::No, "")) }
    }

    fn wants(&self, test: &RuleTest) -> bool {
        self.filter.as_ref().is_none_or(|wanted| test.name.contains(wanted.as_str()))
    }

    fn all(&self, loaded: &Loaded, mut files: Vec<TestFile>) -> Result<Ran, Failed> {
        let config = &loaded.config.identity;
        let identity = Identity { account: config.account.clone(), region: config.region.clone() };
        let plan = plan::compile(&loaded.catalog, &identity, std::process::id().into());
        let mut watch = (self.coverage || self.min_coverage.is_some()).then(|| Watch::new(&loaded.catalog));
        if self.update {
            files = update::update(files, loaded, &plan, |test| self.wants(test))?;
        }
        let mut ran = Vec::new();
        for TestFile { file, tests } in &files {
            let mut done = Vec::new();
            for test in tests.iter().filter(|test| self.wants(test)) {
                let verdict = judge::judge(test, &loaded.catalog, &plan);
                if let Some(watch) = &mut watch {
                    watch.note(&test.bus, &verdict.matched, &test.event);
                }
                done.push(Tested { name: test.name.clone(), line: test.line, verdict });
            }
            if !done.is_empty() {
                ran.push((file.clone(), done));
            }
        }
        match &self.filter {
            Some(wanted) if ran.is_empty() => {
                Err(Failed::new(Exit::Usage, format!("no test has `{wanted}` in its name; without --filter all run")))
            }
            _ => Ok(Ran { files: ran, coverage: watch.map(|watch| watch.coverage(&loaded.places)) }),
        }
    }
}

/// The rules and their tests.
fn read(paths: &[PathBuf]) -> Result<(Loaded, Vec<TestFile>), Failed> {
    let (tests, mut rules): (Vec<PathBuf>, Vec<PathBuf>) =
        paths.iter().cloned().partition(|path| rule_tests::is_named_so(path) && !path.is_dir());
    let only_tests = rules.is_empty();
    if only_tests {
        rules = rule_tests::rules_of(&tests);
    }
    if rules.is_empty() {
        let message = "there are no rules beside the files of tests; name the files or folders with the rules, too";
        return Err(Failed::new(Exit::Config, message));
    }
    let loaded = config::load(&rules, &Outside::only_rules()).map_err(invalid)?;
    let beside = if only_tests { &[] } else { loaded.files.as_slice() };
    let mut problems = Vec::new();
    let found = rule_tests::find(paths, beside, &mut problems);
    let files = rule_tests::read(&found, &loaded, &mut problems);
    if !problems.is_empty() {
        problems.sort_by_key(Problem::place);
        return Err(invalid(Problems(problems)));
    }
    if files.iter().all(|file| file.tests.is_empty()) {
        let message = "there are no tests; write them to NAME.test.yaml beside the rules in NAME.yaml, or to any file of \
                       such a name in a folder with rules";
        return Err(Failed::new(Exit::Config, message));
    }
    Ok((loaded, files))
}

/// Events that cannot be read are no fault of what tests and rules say.
fn invalid(problems: Problems) -> Failed {
    let unread = |problem: &Problem| problem.code == "E0002" && problem.at.is_some();
    let exit = if problems.0.iter().all(unread) { Exit::Io } else { Exit::Config };
    Failed::new(exit, problems.to_string())
}
