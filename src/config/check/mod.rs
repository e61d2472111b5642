//! Typed files to one configuration and its catalog: references, patterns, templates.

pub mod clients;
mod durability;
mod ends;
mod exposure;
mod kept;
pub mod services;
mod storage;

use super::access::is_account;
use super::model::{self, Config, FileConfig, FormedTarget, RuleTarget as RuleTargetConfig};
use super::place::json_place;
use super::problem::Problem;
use super::yaml::Document;
use crate::catalog::{self, Catalog, CatalogError, Command};
use crate::pattern::{self, PatternError};
use crate::transform::{Input, JsonPath, Template, check_constant};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

type File = (Document, FileConfig);

/// What the form of an event may be.
const FORMS: &str =
    "one of input: JSON, input_path: $.path, or input_transformer: { paths: { name: $.path }, template: TEXT }";

/// Merges the files and checks everything that is not a matter of types.
pub fn all(files: &[File], only_rules: bool, problems: &mut Vec<Problem>) -> (Config, Catalog) {
    let mut check = Check { problems, catalog: Catalog::new(), only_rules };
    let config = check.merge(files);
    for (document, file) in files {
        check.version(document, file);
        for (name, bus) in &file.buses {
            check.bus(document, name, bus);
        }
    }
    check.targets(files);
    for (document, file) in files {
        if let Some(aws) = &file.aws {
            check.aws(document, aws);
        }
        for (name, function) in &file.functions {
            check.function(document, name, function, files);
        }
    }
    for (document, file) in files {
        for (name, function) in &file.functions {
            check.destinations(document, name, function, files);
        }
    }
    for (document, file) in files {
        for (name, source) in &file.sources {
            check.source(document, name, source, files);
        }
    }
    if only_rules {
        check.elsewhere(&config);
    } else {
        check.exposure(files, &config);
        check.kept_by_brokers(files, &config);
    }
    let pattern_bytes = usize::try_from(config.limits.pattern_bytes.0).unwrap_or(usize::MAX);
    let limits = pattern::Limits { text_bytes: pattern_bytes, ..pattern::Limits::default() };
    for (document, file) in files {
        for (arn, target) in &file.arn_map {
            check.refers(document, &["arn_map", arn], files, "targets", target);
        }
        for (name, rule) in &file.rules {
            check.rule(document, name, rule, &limits, files);
        }
    }
    for (document, file) in files {
        for (name, archive) in &file.archives {
            check.archive(document, name, archive, &limits, files);
        }
        for (name, schedule) in &file.schedules {
            check.schedule(document, name, schedule, files);
        }
    }
    (config, check.catalog)
}

struct Check<'p> {
    problems: &'p mut Vec<Problem>,
    catalog: Catalog,
    /// Whether nothing of it is to run.
    only_rules: bool,
}

fn known(files: &[File], section: &str, name: &str) -> bool {
    files.iter().any(|(document, _)| document.names(section).contains(&name))
}

impl Check<'_> {
    fn report(&mut self, document: &Document, path: &[&str], problem: Problem) {
        let mut problem = problem;
        problem.at = Some(document.at_path(path));
        if matches!(path.first(), Some(&"aws" | &"catalog_key")) {
            // A key may stand in the same line.
            problem.hide();
        }
        self.problems.push(problem);
    }

    fn merge(&mut self, files: &[File]) -> Config {
        macro_rules! once {
            ($name:literal, $field:ident) => {{
                let mut found = None;
                for (document, file) in files {
                    let Some(value) = &file.$field else { continue };
                    if found.is_some() {
                        let problem = Problem::plain("E0202", concat!("`", $name, "` stands in more than one file"));
                        self.report(document, &[$name], problem.help("keep one of them"));
                    }
                    found = Some(value.clone());
                }
                found
            }};
        }
        macro_rules! union {
            ($name:literal, $field:ident) => {{
                let mut all = BTreeMap::new();
                let mut first: HashMap<&str, &Document> = HashMap::new();
                for (document, file) in files {
                    for (name, value) in &file.$field {
                        if let Some(other) = first.insert(name, document) {
                            let at = other.at_path(&[$name, name]);
                            let message = format!(concat!("`{}` is declared twice under `", $name, "`"), name);
                            let help = format!("the other one is at {}:{}", at.file.display(), at.line);
                            self.report(document, &[$name, name], Problem::plain("E0202", message).help(help));
                        }
                        all.insert(name.clone(), value.clone());
                    }
                }
                all
            }};
        }
        Config {
            version: once!("version", version).unwrap_or(1),
            data_dir: once!("data_dir", data_dir).unwrap_or_else(|| "data".into()),
            server: once!("server", server).unwrap_or_default(),
            egress: once!("egress", egress).unwrap_or_default(),
            log: once!("log", log).unwrap_or_default(),
            metrics: once!("metrics", metrics).unwrap_or_default(),
            limits: once!("limits", limits).unwrap_or_default(),
            identity: once!("identity", identity).unwrap_or_default(),
            workers: once!("workers", workers).unwrap_or(0),
            buses: union!("buses", buses),
            sources: union!("sources", sources),
            targets: union!("targets", targets),
            rules: union!("rules", rules),
            archives: union!("archives", archives),
            schedules: union!("schedules", schedules),
            arn_map: union!("arn_map", arn_map),
            functions: union!("functions", functions),
            aws: once!("aws", aws),
            catalog: once!("catalog", catalog).unwrap_or_default(),
            catalog_key: once!("catalog_key", catalog_key),
            keys: Vec::new(),
        }
    }

    fn version(&mut self, document: &Document, file: &FileConfig) {
        if let Some(version) = file.version.filter(|version| *version != 1) {
            let problem = Problem::plain("E0201", format!("version {version} of the format is not known"));
            self.report(document, &["version"], problem.help("write `version: 1`"));
        }
        // A reference that does not resolve is reported already.
        if let Some(log) = file.log.as_ref().filter(|log| !log.level.contains("${"))
            && let Err(error) = tracing_subscriber::EnvFilter::try_new(&log.level)
        {
            let problem = Problem::plain("E0201", format!("`{}` is no log filter: {error}", log.level));
            self.report(document, &["log", "level"], problem.help("write error, warn, info, debug or trace"));
        }
        // A reference that does not resolve is reported already.
        if let Some(key) = file.catalog_key.as_ref().filter(|key| !key.expose().contains("${"))
            && !STANDARD.decode(key.expose().trim()).is_ok_and(|bytes| bytes.len() == 32)
        {
            let why = "the key is not 32 bytes in base64";
            let help = "make one with `openssl rand -base64 32`, and take it from outside: ${file:/run/secrets/key}";
            self.report(document, &["catalog_key"], Problem::plain("E0201", why).help(help));
        }
        if let Some(account) = file.identity.as_ref().map(|identity| &identity.account)
            && !is_account(account)
        {
            let problem = Problem::plain("E0201", "an account has twelve digits");
            self.report(document, &["identity", "account"], problem.help("quote it: \"000000000000\""));
        }
    }

    fn bus(&mut self, document: &Document, name: &str, bus: &model::Bus) {
        let good = |c: char| c.is_ascii_alphanumeric() || matches!(c, '/' | '.' | '-' | '_');
        let steps = name.split('/').all(|step| !step.is_empty() && !step.chars().all(|c| c == '.'));
        if name.is_empty() || name.len() > 256 || !name.chars().all(good) || !steps {
            let problem = Problem::plain("E0201", format!("`{name}` is not a bus name"));
            self.report(
                document,
                &["buses", name],
                problem.help("letters, digits, `.`, `-`, `_` and `/`, at most 256"),
            );
            return;
        }
        let given = bus.archives.as_ref().map(|archives| (archives.kafka.as_ref(), archives.nats.as_ref()));
        let archives = given.and_then(|given| self.bus_storage(document, name, given)).unwrap_or_default();
        let (numbers, durability) = (bus.number_matching.into(), bus.durability.into());
        let bus = catalog::Bus { name: name.to_owned(), numbers, durability, archives };
        self.apply(document, &["buses", name], Command::PutBus(bus));
    }

    /// Declares what rules refer to where no file declares anything of its kind.
    fn elsewhere(&mut self, config: &Config) {
        let named = |target: &RuleTargetConfig| match target {
            RuleTargetConfig::Name(name) => name.clone(),
            RuleTargetConfig::Formed(formed) => formed.target.clone(),
        };
        let mut commands = Vec::new();
        if config.buses.is_empty() {
            let kept = config.archives.values().map(|archive| &archive.bus);
            let timed = config.schedules.values().map(|schedule| &schedule.bus);
            let buses = config.rules.values().map(|rule| &rule.bus).chain(kept).chain(timed).cloned();
            commands.extend(buses.map(|name| Command::PutBus(catalog::Bus { name, ..catalog::Bus::default() })));
        }
        if config.targets.is_empty() {
            let timed = config.schedules.values().flat_map(|schedule| &schedule.targets);
            let names = config.rules.values().flat_map(|rule| &rule.targets).chain(timed).map(named);
            commands.extend(names.map(|name| {
                let retry = catalog::RetryPolicy::default();
                Command::PutTarget(catalog::Target {
                    name,
                    kind: catalog::TargetKind::Stdout,
                    retry,
                    ordering: catalog::Order::default(),
                    dead_letter: None,
                })
            }));
        }
        for command in commands {
            // A new bus or a plain target is never refused.
            self.catalog.apply(command).ok();
        }
    }

    /// Whether a name is declared; says so when it is not.
    fn refers(&mut self, document: &Document, path: &[&str], files: &[File], section: &str, name: &str) -> bool {
        if section == "buses" && name == catalog::DEFAULT_BUS {
            return true;
        }
        let elsewhere = match section {
            "buses" => self.catalog.has_bus(name),
            _ => self.catalog.targets().any(|target| target.name == name),
        };
        if elsewhere || known(files, section, name) {
            return true;
        }
        let all = files.iter().flat_map(|(document, _)| document.names(section));
        let near = all.map(|known| (strsim::damerau_levenshtein(name, known), known)).min();
        let what = section.trim_end_matches("es").trim_end_matches('s');
        let what = if section == "buses" { "bus" } else { what };
        let problem = Problem::plain("E0207", format!("{what} `{name}` is not declared")).help(match near {
            Some((distance, near)) if distance <= 3 => format!("did you mean `{near}`?"),
            _ => format!("declare it under `{section}:`"),
        });
        self.report(document, path, problem);
        false
    }

    fn rule(&mut self, document: &Document, name: &str, rule: &model::Rule, limits: &pattern::Limits, files: &[File]) {
        self.rule_name(document, &["rules", name]);
        let pattern = match pattern::parse(rule.pattern.0.as_bytes(), limits) {
            Ok(pattern) => Some(Arc::new(pattern)),
            Err(error) => {
                self.bad_pattern(document, &["rules", name], &error);
                None
            }
        };
        let sound = self.refers(document, &["rules", name, "bus"], files, "buses", &rule.bus);
        let targets = self.rule_targets(document, &["rules", name], &rule.targets, files);
        let (Some(pattern), Some(targets), true) = (pattern, targets, sound) else { return };
        let state = match rule.state {
            model::RuleState::Enabled => catalog::RuleState::Enabled,
            model::RuleState::Disabled => catalog::RuleState::Disabled,
            model::RuleState::Shadow => catalog::RuleState::Shadow,
        };
        let rule = catalog::Rule {
            name: name.to_owned(),
            bus: rule.bus.clone(),
            state,
            pattern,
            text: rule.pattern.0.as_str().into(),
            about: catalog::About { description: rule.description.clone(), owner: rule.owner.clone() },
            targets,
        };
        self.apply(document, &["rules", name, "targets"], Command::PutRule(rule));
    }

    fn rule_name(&mut self, document: &Document, at: &[&str; 2]) {
        let [_, name] = at;
        if !kept::is_name(name, 64) {
            let problem = Problem::plain("E0201", format!("`{name}` is not a rule name"));
            self.report(document, at, problem.help("letters, digits, `.`, `-` and `_`, at most 64"));
        }
    }

    /// The targets of what stands at `at`; nothing where one is not sound, which is said.
    fn rule_targets(
        &mut self,
        document: &Document,
        at: &[&str; 2],
        declared: &[RuleTargetConfig],
        files: &[File],
    ) -> Option<Vec<catalog::RuleTarget>> {
        let (mut sound, mut targets) = (true, Vec::new());
        for (n, target) in declared.iter().enumerate() {
            let n = n.to_string();
            let path = |rest: &[&'static str]| [&at[..], &["targets", &n], rest].concat();
            let (to, rest): (&str, &[&'static str]) = match target {
                RuleTargetConfig::Name(to) => (to, &[]),
                RuleTargetConfig::Formed(formed) => (&formed.target, &["target"]),
            };
            sound &= self.refers(document, &path(rest), files, "targets", to);
            let input = match target {
                RuleTargetConfig::Name(_) => Ok(Input::Event),
                RuleTargetConfig::Formed(formed) => input(formed),
            };
            match input {
                Ok(input) => targets.push(catalog::RuleTarget { target: to.to_owned(), input }),
                Err((key, message)) => {
                    sound = false;
                    self.report(document, &path(&[key]), Problem::plain("E0214", message).help(FORMS));
                }
            }
        }
        sound.then_some(targets)
    }

    fn bad_pattern(&mut self, document: &Document, at: &[&str; 2], error: &PatternError) {
        let refused = "the event pattern is not valid";
        let mut problem = match error.ours {
            true => Problem::plain("E0213", format!("{refused}: {}", error.message)),
            false => Problem { service: Some(error.message.clone()), ..Problem::plain("E0213", refused) },
        };
        problem.help = Some(remedy(&error.message).to_owned());
        let path = [at[0], at[1], "pattern"];
        let at = document.find(&path).map(|id| json_place(document, id, error.at));
        problem.at = at.or_else(|| Some(document.at_path(&path)));
        self.problems.push(problem);
    }

    /// Applies a command. What it refers to and was refused before is not reported again.
    fn apply(&mut self, document: &Document, path: &[&str], command: Command) {
        let problem = match self.catalog.apply(command) {
            Ok(_) => return,
            Err(CatalogError::UnknownBus(_) | CatalogError::UnknownTarget(_)) if !self.problems.is_empty() => return,
            Err(error @ CatalogError::Loop(_)) => {
                Problem::plain("E0208", error.to_string()).help("remove one of the rules in the circle")
            }
            Err(error @ CatalogError::TooManyAlternatives(..)) => {
                let problem = Problem::plain("E0215", error.to_string())
                    .help("name the values of one field in a list instead of `$or`, or divide the rules among buses");
                return self.report(document, &[&path[..path.len() - 1], &["pattern"]].concat(), problem);
            }
            Err(error) => Problem::plain("E0207", error.to_string()).help("declare what it names"),
        };
        self.report(document, path, problem);
    }
}

/// What to do about the service's words.
fn remedy(message: &str) -> &'static str {
    const REMEDIES: [(&str, &str); 16] = [
        ("must be numeric", "write a number, without quotes"),
        ("Empty arrays", "name at least one value, or `{ exists: true }` for any"),
        ("Empty objects", "name at least one field"),
        ("must be an object or an array", "put the value in a list: `[value]`"),
        (
            "Unrecognized match type",
            "operators are prefix, suffix, equals-ignore-case, wildcard, anything-but, exists, numeric and cidr",
        ),
        ("Only one key allowed", "one operator a `{ }`; several stand beside each other in the list"),
        ("Match value must be", "lists do not nest"),
        ("Consecutive wildcard", "one `*` is enough"),
        ("Invalid escape", "only `\\*` and `\\\\` are escapes"),
        ("too complex", "use fewer wildcards, or longer text between them"),
        ("numeric", "write `{ numeric: [\">=\", 1, \"<\", 5] }`: operator and number, lower bound first"),
        ("Bottom must be less", "the lower bound comes first and is smaller"),
        (
            "anything",
            "write one text or number, a list of either, or one of prefix, suffix, equals-ignore-case and wildcard",
        ),
        ("CIDR", "write an address, a slash and the mask's length: 10.0.0.0/8"),
        ("$or", "write `$or: [{ a: [1] }, { b: [2] }]`: two or more objects of fields"),
        ("must be a string", "quote the text"),
    ];
    let found = REMEDIES.iter().find(|(part, _)| message.contains(part));
    found.map_or("the README's chapter on patterns shows every operator", |(_, help)| help)
}

fn input(formed: &FormedTarget) -> Result<Input, (&'static str, String)> {
    let forms = [formed.input.is_some(), formed.input_path.is_some(), formed.input_transformer.is_some()];
    if forms.iter().filter(|form| **form).count() > 1 {
        let message = "only one of `input`, `input_path` and `input_transformer` may be given";
        return Err(("target", message.to_owned()));
    }
    if let Some(constant) = &formed.input {
        let text = constant.0.as_bytes();
        check_constant(text).map_err(|fault| ("input", format!("the constant is not JSON: {fault}")))?;
        return Ok(Input::Constant(text.to_vec()));
    }
    if let Some(path) = &formed.input_path {
        return JsonPath::parse(path).map(Input::Path).map_err(|message| ("input_path", message));
    }
    match &formed.input_transformer {
        Some(transformer) => {
            let paths: Vec<_> = transformer.paths.iter().map(|(k, v)| (k.clone(), v.clone())).collect();
            Template::new(&paths, &transformer.template)
                .map(Input::Template)
                .map_err(|why| ("input_transformer", why.to_string()))
        }
        None => Ok(Input::Event),
    }
}
