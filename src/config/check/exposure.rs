//! Who may call us, and where our HTTP targets may lead: what no single key says.

use super::{Check, File};
use crate::config::ends::Verify;
use crate::config::model::{Config, FileConfig};
use crate::config::problem::Problem;
use crate::config::values::{Listen, Secret};
use crate::config::yaml::Document;
use crate::egress::Egress;
use std::collections::HashMap;

/// Characters of the shortest token.
const TOKEN_CHARACTERS: usize = 16;

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
            for (name, http) in file.targets.iter().filter_map(|(name, target)| Some((name, target.http.as_ref()?))) {
                // An address that is none is reported already.
                if reqwest::Url::parse(&http.url).is_ok()
                    && let Err(message) = egress.check_url(&http.url)
                {
                    let problem = Problem::plain("E0209", message).help("see `egress.allow`");
                    self.report(document, &["targets", name, "http", "url"], problem);
                }
            }
        }
    }

    fn listeners(&mut self, document: &Document, config: &Config) {
        let server = &config.server;
        let tokens: &[Secret] = server.auth.as_ref().map_or(&[], |auth| &auth.bearer);
        let bearer = ["server", "auth", "bearer"];
        if server.auth.is_some() && tokens.is_empty() {
            let problem = Problem::plain("E0209", "server.auth.bearer is empty");
            self.report(document, &bearer, problem.help("name a token, or remove server.auth"));
        }
        if tokens.iter().any(|token| token.expose().len() < TOKEN_CHARACTERS && !token.expose().contains("${")) {
            let problem = Problem::plain("E0209", format!("a token has fewer than {TOKEN_CHARACTERS} characters"));
            self.report(document, &bearer, problem.help("take a longer one, as `openssl rand -hex 16` makes it"));
        }
        if server.listen.is_public() && server.auth.is_none() {
            let problem = Problem::plain(
                "E0209",
                "others than this machine can reach `listen`, and nobody is asked who they are",
            );
            self.report(
                document,
                &["server", "listen"],
                problem.help("set server.auth.bearer, or listen on 127.0.0.1"),
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
