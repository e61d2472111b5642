//! Services of AWS and functions, as far as types do not say it.

use super::clients::{self, Fault};
use super::{Check, File};
use crate::catalog::aws::{Parameters, SERVICES};
use crate::catalog::{self, Access, Command, Keys, RetryPolicy, TargetKind};
use crate::config::ends::{self, Compression, Method};
use crate::config::problem::Problem;
use crate::config::services::{Aws, AwsTarget, Destination, Function};
use crate::config::yaml::Document;
use crate::transform::JsonPath;
use std::time::Duration;

/// The longest pause between two attempts of a function; a longer first pause stays as it is.
const LONGEST_PAUSE: Duration = Duration::from_mins(5);

/// How services of AWS are reached.
pub fn access(aws: &Aws) -> Access {
    let keys = Keys {
        id: aws.access_key_id.clone(),
        secret: aws.secret_access_key.keep(),
        token: aws.session_token.as_ref().map(|token| token.keep()).filter(|token| !token.expose().is_empty()),
    };
    Access { keys, endpoint: aws.endpoint.clone(), endpoints: aws.endpoints.clone() }
}

impl Check<'_> {
    pub(super) fn aws(&mut self, document: &Document, aws: &Aws) {
        let own = aws.endpoints.iter().map(|(service, url)| (vec!["aws", "endpoints", service.as_str()], url));
        let all = aws.endpoint.iter().map(|url| (vec!["aws", "endpoint"], url));
        for (path, url) in own.chain(all) {
            let parsed = reqwest::Url::parse(url).ok();
            let bare = |url: &reqwest::Url| url.username().is_empty() && url.password().is_none();
            let good = |url: &reqwest::Url| matches!(url.scheme(), "http" | "https") && url.has_host() && bare(url);
            // A reference that does not resolve is reported already.
            if !url.contains("${") && !parsed.as_ref().is_some_and(good) {
                let problem = Problem::plain("E0201", "not an http or https address without a user");
                self.report(document, &path, problem.help("write it as in http://localhost:5000"));
            }
        }
        for service in aws.endpoints.keys().filter(|service| !SERVICES.contains(&service.as_str())) {
            let problem = Problem::plain("E0201", format!("nothing is sent to a service `{service}`"));
            let help = format!("services are {}", SERVICES.join(", "));
            self.report(document, &["aws", "endpoints", service], problem.help(help));
        }
        for (name, value) in
            [("access_key_id", aws.access_key_id.as_str()), ("secret_access_key", aws.secret_access_key.expose())]
        {
            if value.is_empty() {
                let problem = Problem::plain("E0201", "the access key is empty");
                let help = "any text will do where signatures are not looked at; the environment has AWS_ACCESS_KEY_ID";
                self.report(document, &["aws", name], problem.help(help));
            }
        }
    }

    pub(super) fn aws_target(
        &mut self,
        document: &Document,
        name: &str,
        target: &AwsTarget,
        files: &[File],
    ) -> Option<TargetKind> {
        let at = ["targets", name, "aws"];
        let Some(aws) = files.iter().find_map(|(_, file)| file.aws.as_ref()) else {
            let problem = Problem::plain("E0207", "nothing says how AWS is reached");
            let help = "set `aws: { access_key_id: ..., secret_access_key: ... }` beside `targets`";
            self.report(document, &at, problem.help(help));
            return None;
        };
        let key = target.partition_key.as_deref().map(JsonPath::parse).transpose();
        let help = "write a path as $.detail.orderId";
        let key = self.sound(document, &at, key.map_err(|e| (Fault::at("partition_key", e, help), "E0205")))?;
        let parameters = Parameters { group: target.message_group_id.clone(), key };
        let found = access(aws).target(&target.arn, parameters);
        let found = found.unwrap_or_else(|| Err(format!("`{}` is of no service that events are sent to", target.arn)));
        let help = "as in arn:aws:sqs:us-east-1:000000000000:orders; services are sqs, sns, kinesis, firehose, logs, \
                    states and lambda";
        let found = self.sound(document, &at, found.map_err(|e| (Fault::at("arn", e, help), "E0205")))?;
        if target.arn.ends_with(".fifo") && target.message_group_id.is_none() {
            let problem = Problem::plain("E0201", "messages of a FIFO queue or topic have a group");
            self.report(document, &at, problem.help("set `message_group_id`"));
        }
        Some(TargetKind::Http(Box::new(found)))
    }

    pub(super) fn function(&mut self, document: &Document, name: &str, function: &Function, files: &[File]) {
        let at = ["functions", name];
        if files.iter().any(|(_, file)| file.targets.contains_key(name)) {
            let problem = Problem::plain("E0202", format!("`{name}` is declared under `targets` too"));
            return self.report(document, &at, problem.help("a function is a target of its name; rename one of them"));
        }
        if function.retry.max_attempts > 185 {
            let problem = Problem::plain("E0201", "at most 185 retries").help("write 0 to 185");
            self.report(document, &["functions", name, "retry", "max_attempts"], problem);
        }
        let http = ends::HttpTarget {
            url: function.url.clone(),
            method: Method::Post,
            headers: function.headers.clone(),
            auth: function.auth.clone(),
            timeout: function.timeout,
            max_in_flight: function.max_in_flight,
            rate_limit: function.rate_limit,
            http2: false,
            compression: Compression::None,
            signing_secret: None,
            on_success: None,
            on_failure: None,
            tls: function.tls.clone(),
        };
        let made = clients::http(&http).map_err(|fault| (fault, "E0201"));
        let Some(mut made) = self.sound(document, &at, made) else { return };
        made.on_success = function.on_success.as_ref().map(Into::into);
        made.on_failure = function.on_failure.as_ref().map(Into::into);
        let initial = function.retry.initial.0;
        let retry = RetryPolicy {
            max_attempts: function.retry.max_attempts,
            max_age: function.retry.max_age.0,
            initial,
            max: LONGEST_PAUSE.max(initial),
            jitter: false,
        };
        let target = catalog::Target {
            name: name.to_owned(),
            kind: TargetKind::Http(Box::new(made)),
            retry,
            ordering: catalog::Order::Partition,
            dead_letter: None,
        };
        self.apply(document, &at, Command::PutTarget(target));
    }
    /// Where the records of a function go; targets and functions are known by now.
    pub(super) fn destinations(&mut self, document: &Document, name: &str, function: &Function, files: &[File]) {
        for (key, destination) in [("on_success", &function.on_success), ("on_failure", &function.on_failure)] {
            let Some(Destination::Target(target)) = destination else { continue };
            let path = ["functions", name, key, "target"];
            let tells = |other: &Function| other.on_success.is_some() || other.on_failure.is_some();
            if files.iter().any(|(_, file)| file.functions.get(target).is_some_and(tells)) {
                let problem = Problem::plain("E0208", format!("function `{target}` has destinations itself"));
                self.report(document, &path, problem.help("its records could lead in a circle; name another target"));
            } else if self.refers(document, &path, files, "targets", target) {
                self.apply(document, &path, Command::PutScheduled(catalog::Destination::rule(target)));
            }
        }
    }
}
