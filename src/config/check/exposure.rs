//! Who may call us, and where our HTTP targets may lead: what no single key says.

use super::{Check, File};
use crate::config::ends::Verify;
use crate::config::model::{Config, FileConfig};
use crate::config::problem::Problem;
use crate::config::values::Listen;
use crate::config::yaml::Document;
use crate::egress::Egress;
use std::collections::HashMap;

impl Check<'_> {
    /// Listeners, webhooks and addresses of HTTP targets, taken together.
    pub(super) fn exposure(&mut self, files: &[File], config: &Config) {
        let of = |has: fn(&FileConfig) -> bool| files.iter().find(|(_, file)| has(file)).map(|(document, _)| document);
        let Some(first) = files.first().map(|(document, _)| document) else { return };
        let server = of(|file| file.server.is_some()).unwrap_or(first);
        self.listeners(server, config);
        self.webhooks(files, config);
        let public = config.server.listen.is_public() || config.server.admin.is_public();
        let egress = match Egress::new(public, &config.egress.allow) {
            Ok(egress) => egress,
            Err(message) => {
                let document = of(|file| file.egress.is_some()).unwrap_or(first);
                let problem = Problem::plain("E0201", message).help("write networks and addresses");
                return self.report(document, &["egress", "allow"], problem);
            }
        };
        for (document, file) in files {
            for (path, url) in addresses(file) {
                // An address that is none is reported already.
                if reqwest::Url::parse(url).is_ok()
                    && let Err(message) = egress.check_url(url)
                {
                    let problem = Problem::plain("E0209", message).help("see `egress.allow`");
                    self.report(document, &path, problem);
                }
            }
        }
    }

    fn listeners(&mut self, document: &Document, config: &Config) {
        let server = &config.server;
        if let Some(auth) = &server.auth {
            // An empty list is never meant as "open to all".
            let empty = match &auth.bearer {
                Some(tokens) => tokens.is_empty().then_some(("server.auth.bearer is empty", "bearer")),
                None => auth.keys.is_none().then_some(("server.auth names neither tokens nor keys", "bearer")),
            };
            if let Some((message, key)) = empty {
                let help = "name a token under `bearer` or a file under `keys`, or remove server.auth";
                self.report(document, &["server", "auth", key], Problem::plain("E0209", message).help(help));
            }
            for (n, token) in auth.bearer.iter().flatten().enumerate() {
                let Some((message, help)) = token.fault() else { continue };
                let at = ["server", "auth", "bearer", &n.to_string()];
                self.report(document, &at, Problem::plain("E0209", message).help(help));
                self.problems.iter_mut().rev().take(1).for_each(Problem::hide);
            }
        }
        if server.listen.is_public() && server.auth.is_none() {
            let problem = Problem::plain(
                "E0209",
                "others than this machine can reach `listen`, and nobody is asked who they are",
            );
            self.report(
                document,
                &["server", "listen"],
                problem.help("set server.auth.bearer or server.auth.keys, or listen on 127.0.0.1"),
            );
        }
        if let (Listen::At(listen), Listen::At(admin)) = (server.listen, server.admin)
            && listen == admin
            && listen.port() != 0
        {
            let problem = Problem::plain("E0209", "`listen` and `admin` are the same address");
            self.report(document, &["server", "admin"], problem.help("give each its own port, or set one to `off`"));
        }
    }

    fn webhooks(&mut self, files: &[File], config: &Config) {
        let mut paths: HashMap<&str, &str> = HashMap::new();
        for (document, file) in files {
            for (name, webhook) in file.sources.iter().filter_map(|(name, s)| Some((name, s.webhook.as_ref()?))) {
                if let Some(other) = paths.insert(&webhook.path, name) {
                    let message = format!("path {} is that of source `{other}` as well", webhook.path);
                    let problem = Problem::plain("E0202", message).help("give each webhook its own path");
                    self.report(document, &["sources", name, "webhook", "path"], problem);
                }
                if config.server.listen == Listen::Off {
                    let problem = Problem::plain("E0209", "a webhook can receive nothing while `server.listen` is off");
                    let help = "set server.listen to an address, 127.0.0.1:4566 for instance";
                    self.report(document, &["sources", name, "webhook"], problem.help(help));
                }
                if config.server.listen.is_public() && webhook.verify == Verify::None {
                    let message =
                        "anybody could post here: `verify: none` while others than this machine can reach `listen`";
                    let problem = Problem::plain("E0209", message).help("name the sender's scheme and secret");
                    self.report(document, &["sources", name, "webhook", "verify"], problem);
                }
            }
        }
    }
}

/// Where a file's targets lead over HTTP, each with its path.
fn addresses(file: &FileConfig) -> impl Iterator<Item = (Vec<&str>, &str)> {
    let targets = file.targets.iter().filter_map(|(name, target)| {
        let url = &target.http.as_ref()?.url;
        Some((vec!["targets", name, "http", "url"], url.as_str()))
    });
    let functions =
        file.functions.iter().map(|(name, function)| (vec!["functions", name.as_str(), "url"], function.url.as_str()));
    let aws = file.aws.iter().flat_map(|aws| {
        let own = aws.endpoints.iter().map(|(service, url)| (vec!["aws", "endpoints", service.as_str()], url.as_str()));
        own.chain(aws.endpoint.iter().map(|url| (vec!["aws", "endpoint"], url.as_str())))
    });
    targets.chain(functions).chain(aws)
}
