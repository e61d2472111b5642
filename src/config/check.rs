//! Typed files to one configuration and its catalog: references, patterns, templates.

use super::model::{self, Config, FileConfig, FormedTarget, RuleTarget as RuleTargetConfig};
use super::problem::Problem;
use super::values::Secret;
use super::yaml::{Document, NodeId};
use crate::catalog::{self, Catalog, CatalogError, Command, KafkaKey, RetryPolicy, TargetKind};
use crate::pattern::{self, Numbers, PatternError};
use crate::transform::wrap::{Framing, Origin};
use crate::transform::{Input, JsonPath, Template, check_constant};
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

type File = (Document, FileConfig);

/// Client properties that the delivery promise rests on.
const RESERVED_PROPERTIES: [&str; 10] = [
    "partition.assignment.strategy",
    "bootstrap.servers",
    "enable.auto.commit",
    "enable.auto.offset.store",
    "auto.offset.reset",
    "group.id",
    "group.instance.id",
    "group.protocol",
    "enable.idempotence",
    "acks",
];

/// What the form of an event may be.
const FORMS: &str =
    "one of input: JSON, input_path: $.path, or input_transformer: { paths: { name: $.path }, template: TEXT }";

/// Merges the files and checks everything that is not a matter of types.
pub fn all(files: &[File], problems: &mut Vec<Problem>) -> (Config, Catalog) {
    let mut check = Check { problems, catalog: Catalog::new() };
    let config = check.merge(files);
    for (document, file) in files {
        check.version(document, file);
        for (name, bus) in &file.buses {
            check.bus(document, name, bus);
        }
    }
    check.targets(files);
    for (document, file) in files {
        for (name, source) in &file.sources {
            check.source(document, name, source, files);
        }
    }
    let pattern_bytes = usize::try_from(config.limits.pattern_bytes.0).unwrap_or(usize::MAX);
    let limits = pattern::Limits { text_bytes: pattern_bytes, ..pattern::Limits::default() };
    for (document, file) in files {
        for (name, rule) in &file.rules {
            check.rule(document, name, rule, &limits, files);
        }
    }
    (config, check.catalog)
}

struct Check<'p> {
    problems: &'p mut Vec<Problem>,
    catalog: Catalog,
}

fn known(files: &[File], section: &str, name: &str) -> bool {
    files.iter().any(|(document, _)| document.names(section).contains(&name))
}

impl Check<'_> {
    fn report(&mut self, document: &Document, path: &[&str], problem: Problem) {
        let mut problem = problem;
        problem.at = Some(document.at_path(path));
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
            log: once!("log", log).unwrap_or_default(),
            metrics: once!("metrics", metrics).unwrap_or_default(),
            limits: once!("limits", limits).unwrap_or_default(),
            identity: once!("identity", identity).unwrap_or_default(),
            workers: once!("workers", workers).unwrap_or(0),
            buses: union!("buses", buses),
            sources: union!("sources", sources),
            targets: union!("targets", targets),
            rules: union!("rules", rules),
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
        if let Some(account) = file.identity.as_ref().map(|identity| &identity.account)
            && (account.len() != 12 || !account.bytes().all(|b| b.is_ascii_digit()))
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
        let numbers = match bus.number_matching {
            model::NumberMatching::Value => Numbers::Value,
            model::NumberMatching::Text => Numbers::Text,
        };
        self.apply(document, &["buses", name], Command::PutBus(catalog::Bus { name: name.to_owned(), numbers }));
    }

    /// Targets that others send their dead letters to come first.
    fn targets(&mut self, files: &[File]) {
        for queues in [true, false] {
            for (document, file) in files {
                for (name, target) in &file.targets {
                    if target.dead_letter.is_none() == queues {
                        self.target(document, name, target, files);
                    }
                }
            }
        }
    }

    fn target(&mut self, document: &Document, name: &str, target: &model::Target, files: &[File]) {
        let at = ["targets", name];
        let kinds = [target.kafka.is_some(), target.log.is_some(), target.stdout.is_some(), target.bus.is_some()];
        if kinds.iter().filter(|kind| **kind).count() != 1 {
            let problem = Problem::plain("E0203", "a target is exactly one of `kafka`, `log`, `stdout` and `bus`");
            return self.report(document, &at, problem.help("keep one of them; use a target each"));
        }
        if target.retry.max_attempts > 185 {
            let problem = Problem::plain("E0201", "at most 185 retries").help("write 0 to 185");
            self.report(document, &["targets", name, "retry", "max_attempts"], problem);
        }
        let Some(kind) = self.target_kind(document, name, target) else { return };
        let retry = RetryPolicy {
            max_attempts: target.retry.max_attempts,
            max_age: target.retry.max_age.0,
            initial: target.retry.initial.0,
            max: target.retry.max.0,
        };
        if let Some(queue) = &target.dead_letter {
            let chained =
                files.iter().any(|(_, file)| file.targets.get(queue).is_some_and(|t| t.dead_letter.is_some()));
            if chained {
                let problem = Problem::plain(
                    "E0204",
                    format!("target `{queue}` takes dead letters and has a `dead_letter` itself"),
                );
                let help = "remove it there: a dead letter is tried until it is kept";
                return self.report(document, &["targets", name, "dead_letter"], problem.help(help));
            }
            if !self.refers(document, &["targets", name, "dead_letter"], files, "targets", queue) {
                return;
            }
        }
        let dead_letter = target.dead_letter.clone();
        let target = catalog::Target { name: name.to_owned(), kind, retry, dead_letter };
        self.apply(document, &at, Command::PutTarget(target));
    }

    fn target_kind(&mut self, document: &Document, name: &str, target: &model::Target) -> Option<TargetKind> {
        if let Some(kafka) = &target.kafka {
            let client = self.client(
                document,
                &["targets", name, "kafka"],
                &kafka.brokers,
                kafka.sasl.as_ref(),
                &kafka.properties,
            );
            let key = match kafka.key.as_str() {
                "source" => KafkaKey::Source,
                "none" => KafkaKey::None,
                path => match JsonPath::parse(path) {
                    Ok(path) => KafkaKey::Path(path),
                    Err(error) => {
                        let problem =
                            Problem::plain("E0205", error).help("write `source`, `none` or a path as $.detail.id");
                        self.report(document, &["targets", name, "kafka", "key"], problem);
                        return None;
                    }
                },
            };
            let create = kafka.create.as_ref().map(|shape| catalog::TopicShape {
                partitions: shape.partitions,
                replication: shape.replication_factor,
            });
            let topic = kafka.topic.clone();
            return Some(TargetKind::Kafka(catalog::KafkaTarget { client: Arc::new(client), topic, key, create }));
        }
        if let Some(log) = &target.log {
            let good = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | '/' | '#');
            let inner = log.group.trim_start_matches('/');
            let steps = inner.split('/').all(|step| !step.is_empty() && !step.chars().all(|c| c == '.'));
            if !steps || log.group.len() > 512 || !log.group.chars().all(good) {
                let problem = Problem::plain("E0201", format!("`{}` is not a log group name", log.group));
                let help = "letters, digits, `.`, `-`, `_`, `#` and `/`, as in /aws/events/orders";
                self.report(document, &["targets", name, "log", "group"], problem.help(help));
                return None;
            }
            return Some(TargetKind::Log { group: log.group.clone() });
        }
        Some(match &target.bus {
            Some(bus) => TargetKind::Bus(bus.clone()),
            None => TargetKind::Stdout,
        })
    }

    /// The properties of a Kafka client.
    fn client(
        &mut self,
        document: &Document,
        at: &[&str],
        brokers: &str,
        sasl: Option<&model::Sasl>,
        properties: &BTreeMap<String, Secret>,
    ) -> BTreeMap<String, String> {
        for name in properties.keys().filter(|name| RESERVED_PROPERTIES.contains(&name.as_str()) || *name == "debug") {
            let problem = Problem::plain("E0206", format!("property `{name}` is not for the configuration to set"));
            let path = [at, &["properties", name]].concat();
            self.report(
                document,
                &path,
                problem.help("remove it: the delivery promise rests on it, or Sluice has a key for it"),
            );
        }
        client_properties(brokers, sasl, properties)
    }

    /// Whether a name is declared; says so when it is not.
    fn refers(&mut self, document: &Document, path: &[&str], files: &[File], section: &str, name: &str) -> bool {
        if section == "buses" && name == catalog::DEFAULT_BUS {
            return true;
        }
        if known(files, section, name) {
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

    fn source(&mut self, document: &Document, name: &str, source: &model::Source, files: &[File]) {
        let kinds = [source.kafka.is_some(), source.stdin.is_some(), source.file.is_some()];
        if kinds.iter().filter(|kind| **kind).count() != 1 {
            let problem = Problem::plain("E0203", "a source is exactly one of `kafka`, `stdin` and `file`");
            self.report(document, &["sources", name], problem.help("keep one of them; use a source each"));
        }
        self.refers(document, &["sources", name, "bus"], files, "buses", &source.bus);
        if let Some(queue) = &source.dead_letter
            && self.refers(document, &["sources", name, "dead_letter"], files, "targets", queue)
            && files.iter().any(|(_, file)| file.targets.get(queue).is_some_and(|target| target.bus.is_some()))
        {
            let problem = Problem::plain("E0204", format!("target `{queue}` is a bus and cannot take dead letters"));
            self.report(document, &["sources", name, "dead_letter"], problem.help("name a topic or a log group"));
        }
        if let Some(kafka) = &source.kafka {
            let at = ["sources", name, "kafka"];
            self.client(document, &at, &kafka.brokers, kafka.sasl.as_ref(), &kafka.properties);
            if kafka.topics.is_empty() {
                let problem = Problem::plain("E0201", "no topic to read").help("name at least one under `topics`");
                self.report(document, &["sources", name, "kafka", "topics"], problem);
            }
        }
        if let Err(error) = framing(&source.envelope) {
            let help = "write a text, a path as $.type, or { header: NAME }";
            self.report(document, &["sources", name, "envelope"], Problem::plain("E0205", error).help(help));
        }
    }

    fn rule(&mut self, document: &Document, name: &str, rule: &model::Rule, limits: &pattern::Limits, files: &[File]) {
        let good = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
        if name.is_empty() || name.len() > 64 || !name.chars().all(good) {
            let problem = Problem::plain("E0201", format!("`{name}` is not a rule name"));
            self.report(document, &["rules", name], problem.help("letters, digits, `.`, `-` and `_`, at most 64"));
        }
        let pattern = match pattern::parse(rule.pattern.0.as_bytes(), limits) {
            Ok(pattern) => Some(Arc::new(pattern)),
            Err(error) => {
                self.bad_pattern(document, name, &error);
                None
            }
        };
        let mut sound = self.refers(document, &["rules", name, "bus"], files, "buses", &rule.bus);
        let mut targets = Vec::new();
        for (n, target) in rule.targets.iter().enumerate() {
            let n = n.to_string();
            let (to, at): (&str, &[&str]) = match target {
                RuleTargetConfig::Name(to) => (to, &["rules", name, "targets", &n]),
                RuleTargetConfig::Formed(formed) => (&formed.target, &["rules", name, "targets", &n, "target"]),
            };
            sound &= self.refers(document, at, files, "targets", to);
            match target {
                RuleTargetConfig::Name(_) => {
                    targets.push(catalog::RuleTarget { target: to.to_owned(), input: Input::Event })
                }
                RuleTargetConfig::Formed(formed) => match input(formed) {
                    Ok(input) => targets.push(catalog::RuleTarget { target: to.to_owned(), input }),
                    Err((key, message)) => {
                        sound = false;
                        self.report(
                            document,
                            &["rules", name, "targets", &n, key],
                            Problem::plain("E0214", message).help(FORMS),
                        );
                    }
                },
            }
        }
        let Some(pattern) = pattern.filter(|_| sound) else { return };
        let state = match rule.state {
            model::RuleState::Enabled => catalog::RuleState::Enabled,
            model::RuleState::Disabled => catalog::RuleState::Disabled,
            model::RuleState::Shadow => catalog::RuleState::Shadow,
        };
        let rule = catalog::Rule { name: name.to_owned(), bus: rule.bus.clone(), state, pattern, targets };
        self.apply(document, &["rules", name, "targets"], Command::PutRule(rule));
    }

    fn bad_pattern(&mut self, document: &Document, name: &str, error: &PatternError) {
        let mut problem = Problem::plain("E0213", "the event pattern is not valid");
        problem.service = Some(error.message.clone());
        problem.help = Some(remedy(&error.message).to_owned());
        let path = ["rules", name, "pattern"];
        let at = document.find(&path).map(|id| pattern_place(document, id, error.at));
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

/// The node of the fault: offsets into the JSON form lead back to the YAML that it was made of.
fn pattern_place(document: &Document, id: NodeId, offset: usize) -> super::problem::At {
    let node = match document.json(id) {
        Ok((_, origins)) => {
            let after = origins.partition_point(|(at, _)| *at <= offset);
            origins[after.saturating_sub(1)].1
        }
        Err((node, _)) => node,
    };
    document.at(node, &document.path_of(node))
}

/// The properties of a Kafka client.
pub fn client_properties(
    brokers: &str,
    sasl: Option<&model::Sasl>,
    properties: &BTreeMap<String, Secret>,
) -> BTreeMap<String, String> {
    let mut client: BTreeMap<String, String> =
        properties.iter().map(|(name, value)| (name.clone(), value.expose().to_owned())).collect();
    client.insert("bootstrap.servers".into(), brokers.to_owned());
    if let Some(sasl) = sasl {
        client.entry("security.protocol".into()).or_insert_with(|| "SASL_PLAINTEXT".into());
        client.insert("sasl.mechanism".into(), sasl.mechanism.clone());
        client.insert("sasl.username".into(), sasl.username.clone());
        client.insert("sasl.password".into(), sasl.password.expose().to_owned());
    }
    client
}

/// How a source's records become events.
///
/// # Errors
/// A path that is none.
pub fn framing(envelope: &model::Envelope) -> Result<Framing, String> {
    let origin = |attribute: &model::Attribute| match attribute {
        model::Attribute::Header(header) => Ok(Origin::Header(header.header.clone())),
        model::Attribute::Text(text) if text.starts_with('$') => JsonPath::parse(text).map(Origin::Path),
        model::Attribute::Text(text) => Ok(Origin::Text(text.clone())),
    };
    Ok(match envelope {
        model::Envelope::EventBridge => Framing::EventBridge,
        model::Envelope::CloudEvents => Framing::CloudEvents,
        model::Envelope::Raw(raw) => {
            Framing::Raw { source: origin(&raw.source)?, detail_type: origin(&raw.detail_type)? }
        }
    })
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
            Template::new(&paths, &transformer.template).map(Input::Template).map_err(|m| ("input_transformer", m))
        }
        None => Ok(Input::Event),
    }
}
