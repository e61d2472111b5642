//! What all verbs' flags have in common: twins in the environment, colour, how much is logged.

use crate::process::{Place, Said};
use clap::{ArgAction, Command};
use std::collections::BTreeMap;

/// Flags that only a command line has, and why.
const ALONE: [(&str, &str); 2] =
    [("help", "it asks, and changes nothing"), ("version", "it asks, and changes nothing")];

/// Names that mean the same for several verbs.
const SHARED: [&str; 8] = [
    "SLUICE_CONFIG",
    "SLUICE_BROKERS",
    "SLUICE_NATS",
    "SLUICE_DATA_DIR",
    "SLUICE_NUMBER_MATCHING",
    "SLUICE_ADMIN_URL",
    "SLUICE_TOKEN",
    "SLUICE_VERBOSE",
];

/// Calls `see` with every verb's words and its command.
fn each(command: &Command, words: &str, see: &mut impl FnMut(&str, &Command)) {
    see(words, command);
    for verb in command.get_subcommands().filter(|verb| verb.get_name() != "help") {
        each(verb, &format!("{words} {}", verb.get_name()), see);
    }
}

#[test]
fn every_flag_has_a_twin_in_the_environment() {
    let mut command = sluice::cli::command();
    command.build();
    let (mut flags, mut names) = (0, BTreeMap::<String, Vec<String>>::new());
    each(&command, "sluice", &mut |words, verb| {
        for arg in verb.get_arguments() {
            let Some(long) = arg.get_long() else { continue };
            if ALONE.iter().any(|(alone, _)| *alone == long) {
                continue;
            }
            flags += 1;
            let flag = format!("{words} --{long}");
            let name = arg.get_env().unwrap_or_else(|| panic!("{flag} has no twin")).to_string_lossy().into_owned();
            assert!(name.starts_with("SLUICE_"), "{flag}: {name}");
            // A global flag stands in every verb.
            if arg.is_global_set() && words != "sluice" {
                continue;
            }
            if matches!(arg.get_action(), ArgAction::SetTrue) {
                let off = arg.get_value_parser().possible_values().map(|mut all| all.any(|it| it.matches("off", true)));
                assert_eq!(off, Some(true), "{flag} cannot be switched off by its twin");
            }
            names.entry(name).or_default().push(flag);
        }
    });
    assert!(flags > 100, "{flags} flags");
    for (name, flags) in names.iter().filter(|(_, flags)| flags.len() > 1) {
        assert!(SHARED.contains(&name.as_str()), "{name} is the twin of {flags:?}");
    }
    for name in SHARED {
        assert!(names.get(name).is_some_and(|flags| flags.len() > 1), "{name} is not shared");
    }
}

fn said(place: &Place, env: &[(&str, &str)], arguments: &[&str]) -> Said {
    let mut command = place.command(arguments);
    command.envs(env.iter().copied());
    Place::finish(command, "{\"a\":1}\n{\"a\":2}\n\n{\"a\":1.0}\n")
}

#[test]
fn twins_are_heeded_and_flags_win() {
    let place = Place::new(&[("p", "{\"a\":[2]}\n"), ("pairs", "{\"pattern\":{\"a\":[1]},\"event\":{\"a\":1.0}}\n")]);
    let one = "{\"a\":[1]}";
    let check = |env: &[(&str, &str)], arguments: &[&str], code: i32, out: &str| {
        let said = said(&place, env, arguments);
        assert_eq!((said.code, said.out.as_str()), (Some(code), out), "{env:?} {arguments:?}: {}", said.err);
    };
    check(&[("SLUICE_MATCH_COUNT", "true")], &["match", one], 0, "2\n");
    check(&[("SLUICE_MATCH_COUNT", "1"), ("SLUICE_MATCH_INVERT_MATCH", "yes")], &["match", one], 0, "2\n");
    for off in ["false", "0", "no", "off"] {
        check(&[("SLUICE_MATCH_COUNT", off)], &["match", "{\"a\":[2]}"], 0, "{\"a\":2}\n");
    }
    check(&[("SLUICE_MATCH_COUNT", "maybe")], &["match", one], 2, "");
    check(&[("SLUICE_MATCH_FILE", "p")], &["match"], 0, "{\"a\":2}\n");
    check(&[("SLUICE_NUMBER_MATCHING", "text")], &["match", "-c", one], 0, "1\n");
    check(&[("SLUICE_NUMBER_MATCHING", "text")], &["match", "-c", one, "--number-matching", "value"], 0, "2\n");
    check(&[("SLUICE_TEST_PATTERN_JSONL", "pairs")], &["test-pattern"], 0, "{\"name\":null,\"result\":true}\n");
    check(
        &[("SLUICE_TEST_PATTERN_PATTERN", one), ("SLUICE_TEST_PATTERN_EVENT", "{}")],
        &["test-pattern"],
        1,
        "no match\n",
    );
}

#[test]
fn colour_is_asked_for_in_one_place() {
    let rules = "rules: { r: { pattern: { a: [1] }, targets: [t] } }";
    let test = "tests: [{ name: it, event: { a: 1 }, expect: { rules: [r] } }]";
    let place = Place::new(&[("r.yaml", rules), ("r.test.yaml", test), ("e", "{\"a\":1}\n")]);
    let check = |env: &[(&str, &str)], arguments: &[&str], colored: bool| {
        let said = said(&place, env, arguments);
        assert_eq!(said.code, Some(0), "{arguments:?}: {}", said.err);
        assert_eq!(said.out.contains("\u{1b}["), colored, "{env:?} {arguments:?}: {:?}", said.out);
    };
    let explain = ["explain", "--event", "e", "-c", "r.yaml"];
    for verb in [&["test", "r.yaml"][..], &explain] {
        check(&[], verb, false);
        check(&[], &[verb, &["--color", "always"]].concat(), true);
        check(&[], &[&["--color=always"], verb].concat(), true);
        check(&[("SLUICE_COLOR", "always")], verb, true);
        check(&[("NO_COLOR", "1")], &[verb, &["--color", "always"]].concat(), true);
        check(&[("CLICOLOR_FORCE", "1")], &[verb, &["--color", "never"]].concat(), false);
    }
    check(&[], &["test", "r.yaml", "-o", "json", "--color", "always"], false);
}

#[test]
fn more_or_less_is_logged() {
    let config = "data_dir: data\nserver: { listen: \"off\", admin: \"off\" }\nsources: { in: { stdin: {} } }\n\
                  targets: { out: { stdout: {} } }\nrules: { r: { pattern: { a: [7] }, targets: [out] } }\n";
    let place = Place::new(&[("c.yaml", config)]);
    let check = |env: &[(&str, &str)], arguments: &[&str], logged: bool| {
        let said = said(&place, env, &[arguments, &["-c", "c.yaml"]].concat());
        assert_eq!(said.code, Some(0), "{arguments:?}: {}", said.err);
        assert_eq!(said.err.contains("INFO"), logged, "{env:?} {arguments:?}: {}", said.err);
    };
    check(&[], &["run"], true);
    check(&[], &["run", "-q"], false);
    check(&[("SLUICE_QUIET", "true")], &["run"], false);
    check(&[("SLUICE_QUIET", "false")], &["run"], true);
    check(&[], &["run", "--log-level", "warn"], false);
    check(&[], &["run", "--log-level", "warn", "-v"], true);
    check(&[], &["-v", "run", "--log-level", "warn"], true);
    check(&[], &["run", "-v", "-q"], false);
    // What is typed wins over the environment.
    check(&[("SLUICE_QUIET", "true")], &["run", "-v"], true);
    check(&[("SLUICE_VERBOSE", "1")], &["run", "-q"], false);
    check(&[("SLUICE_VERBOSE", "1")], &["run", "--log-level", "warn"], false);
    check(&[("SLUICE_QUIET", "true"), ("SLUICE_VERBOSE", "1")], &["run", "--log-level", "info"], true);
    // `match` has grep's -v; the other stands before the verb, or is spelled out.
    let said = said(&place, &[], &["-v", "match", "--verbose", "{\"a\":[1]}"]);
    assert_eq!(said.out, "{\"a\":1}\n{\"a\":1.0}\n", "{}", said.err);
}
