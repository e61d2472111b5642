//! Amazon Resource Names, and the accounts and regions in them.

use crate::catalog::{is_account, is_region};
use crate::plan::{self, Identity};
use serde::{Deserialize, Serialize};

/// An account in a region: each has its own buses, rules and so on.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Scope {
    /// Twelve digits.
    pub account: String,
    /// As in `us-east-1`.
    pub region: String,
}

impl From<&Identity> for Scope {
    fn from(identity: &Identity) -> Self {
        Self { account: identity.account.clone(), region: identity.region.clone() }
    }
}

impl Scope {
    /// The ARN of something of EventBridge.
    pub fn arn(&self, resource: &str) -> String {
        plan::arn((&self.account, &self.region), resource)
    }

    /// The ARN of a bus.
    pub fn bus_arn(&self, bus: &str) -> String {
        self.arn(&format!("event-bus/{bus}"))
    }

    /// The ARN of a rule, which leaves out the default bus.
    pub fn rule_arn(&self, bus: &str, rule: &str) -> String {
        plan::rule_arn((&self.account, &self.region), bus, rule)
    }

    /// The ARN of a secret.
    pub fn secret_arn(&self, name: &str) -> String {
        let Self { account, region } = self;
        format!("arn:{}:secretsmanager:{region}:{account}:secret:{name}", plan::partition(region))
    }

    /// What the rules of archives lead to.
    pub fn archive_target_arn(&self) -> String {
        format!("arn:{}:events:{}:::", plan::partition(&self.region), self.region)
    }

    /// The root of an account, as policies name it.
    pub fn root_arn(&self, account: &str) -> String {
        format!("arn:{}:iam::{account}:root", plan::partition(&self.region))
    }
}

/// A well-formed ARN, in its parts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Arn<'a> {
    /// As in `events`.
    pub service: &'a str,
    /// May be empty.
    pub region: &'a str,
    /// May be empty.
    pub account: &'a str,
    /// The rest, as in `event-bus/orders`.
    pub resource: &'a str,
}

impl<'a> Arn<'a> {
    /// Takes an ARN apart; `None` where there are too few parts, or it begins otherwise.
    pub fn parse(text: &'a str) -> Option<Self> {
        let mut parts = text.splitn(6, ':');
        if parts.next()? != "arn" {
            return None;
        }
        let (_partition, service) = (parts.next()?, parts.next()?);
        let (region, account) = (parts.next()?, parts.next()?);
        Some(Self { service, region, account, resource: parts.next()? })
    }

    /// Its account and region, where both can be one: they become parts of names and of folders.
    pub fn scope(&self) -> Option<Scope> {
        let (account, region) = (self.account.to_owned(), self.region.to_owned());
        (is_account(&account) && is_region(&region)).then_some(Scope { account, region })
    }

    /// The bus that it names.
    pub fn bus(&self) -> Option<&'a str> {
        self.of("event-bus/")
    }

    /// The bus and the rule that it names.
    pub fn rule(&self) -> Option<(&'a str, &'a str)> {
        let path = self.of("rule/")?;
        Some(path.rsplit_once('/').unwrap_or((crate::catalog::DEFAULT_BUS, path)))
    }

    /// What stands behind `kind` in an ARN of EventBridge.
    pub fn of(&self, kind: &str) -> Option<&'a str> {
        self.resource.strip_prefix(kind).filter(|name| self.service == "events" && !name.is_empty())
    }
}

/// The name of a bus among the buses of this process; see [`Identity::split_bus`].
pub fn bus_key(home: &Scope, scope: &Scope, bus: &str) -> String {
    if scope == home {
        bus.to_owned()
    } else if scope.account == home.account {
        format!("{}:{bus}", scope.region)
    } else {
        format!("{}:{}:{bus}", scope.account, scope.region)
    }
}
