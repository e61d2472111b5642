//! Resource policies, evaluated: what a caller of another account may do with a bus.
//!
//! In: a policy, who asks, for what. Out: a verdict. Promises: what cannot be evaluated never allows, and denies where it
//! stands in a statement that denies. Source: IAM user guide, "Policy evaluation logic".

use super::{Arn, Members, Resources, Scope};
use serde_json::Value;

/// Who asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Principal {
    /// Twelve digits.
    pub account: String,
    /// As in `arn:aws:iam::111122223333:user/alice`.
    pub arn: String,
    /// The organisation of the account, where it is known.
    pub organization: Option<String>,
}

/// What somebody asks for.
#[derive(Debug, Clone, Copy)]
pub struct Asked<'a> {
    /// Who.
    pub who: &'a Principal,
    /// As in `events:PutEvents`.
    pub action: &'a str,
    /// An ARN.
    pub resource: &'a str,
    /// What else conditions may look at: keys in small letters, and values.
    pub about: &'a [(&'a str, &'a str)],
}

/// What a policy says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// A statement allows it, and none denies it.
    Allowed,
    /// A statement denies it.
    Denied,
    /// No statement is about it.
    Silent,
}

/// What a policy says to a request.
pub fn judge(policy: &Value, asked: &Asked<'_>) -> Verdict {
    let statements = match &policy["Statement"] {
        Value::Array(list) => list.as_slice(),
        one => std::slice::from_ref(one),
    };
    let mut verdict = Verdict::Silent;
    for statement in statements {
        match (statement["Effect"].as_str(), applies(statement, asked)) {
            (_, Some(false)) => {}
            (Some("Allow"), Some(true)) => verdict = Verdict::Allowed,
            (Some("Allow"), None) => {}
            _ => return Verdict::Denied,
        }
    }
    verdict
}

/// Whether a statement is about a request; `None` where that cannot be said.
fn applies(statement: &Value, asked: &Asked<'_>) -> Option<bool> {
    let unread = ["NotPrincipal", "NotAction", "NotResource"].iter().any(|name| statement.get(*name).is_some());
    let parts = [
        (!unread).then_some(true),
        statement.get("Principal").and_then(|principal| names(principal, asked.who)),
        texts(&statement["Action"]).map(|mut globs| globs.any(|glob| is_like(glob, asked.action, true))),
        texts(&statement["Resource"]).map(|mut globs| globs.any(|glob| is_like(glob, asked.resource, false))),
        statement.get("Condition").map_or(Some(true), |condition| holds(condition, asked)),
    ];
    all(parts)
}

/// All of it, where one that is wrong decides.
fn all(parts: impl IntoIterator<Item = Option<bool>>) -> Option<bool> {
    let join = |sum, part| match (sum, part) {
        (Some(false), _) | (_, Some(false)) => Some(false),
        (Some(true), Some(true)) => Some(true),
        _ => None,
    };
    parts.into_iter().fold(Some(true), join)
}

/// Whether a principal of a statement is who asks; `None` where it is none that can be.
fn names(principal: &Value, who: &Principal) -> Option<bool> {
    let of_account = |text: &str| {
        text == who.account
            || Arn::parse(text).is_some_and(|arn| {
                arn.service == "iam" && arn.region.is_empty() && arn.account == who.account && arn.resource == "root"
            })
    };
    let is = |text: &str| text == "*" || of_account(text) || text == who.arn;
    match principal {
        Value::String(text) => Some(text == "*"),
        // Services and federations are others.
        Value::Object(kinds) => {
            kinds.get("AWS").map_or(Some(false), |named| texts(named).map(|mut texts| texts.any(is)))
        }
        _ => None,
    }
}

/// One text or a list of them; `None` for anything else.
fn texts(value: &Value) -> Option<impl Iterator<Item = &str>> {
    let list = match value {
        Value::Array(list) => list.as_slice(),
        one => std::slice::from_ref(one),
    };
    list.iter().all(Value::is_string).then(|| list.iter().filter_map(Value::as_str))
}

/// Whether the conditions of a statement hold.
fn holds(condition: &Value, asked: &Asked<'_>) -> Option<bool> {
    let operators = condition.as_object()?;
    all(operators.iter().flat_map(|(operator, keys)| {
        let keys = keys.as_object();
        let unread = keys.is_none().then_some(None);
        let read = keys.into_iter().flatten().map(|(key, wanted)| test(operator, key, wanted, asked));
        unread.into_iter().chain(read)
    }))
}

fn test(operator: &str, key: &str, wanted: &Value, asked: &Asked<'_>) -> Option<bool> {
    let (operator, if_exists) =
        operator.strip_suffix("IfExists").map_or((operator, false), |operator| (operator, true));
    let key = key.to_ascii_lowercase();
    let found = match key.as_str() {
        "aws:principalorgid" => asked.who.organization.as_deref(),
        "aws:principalaccount" => Some(asked.who.account.as_str()),
        "aws:principalarn" => Some(asked.who.arn.as_str()),
        _ => Some(asked.about.iter().find(|(name, _)| *name == key)?.1),
    };
    let mut wanted = texts(wanted)?;
    let (negated, kind) = match operator.strip_prefix("StringNot") {
        Some(kind) => (true, kind),
        None => (false, operator.strip_prefix("String")?),
    };
    let fits: fn(&str, &str) -> bool = match kind {
        "Equals" => |wanted, found| wanted == found,
        "EqualsIgnoreCase" => |wanted, found| wanted.eq_ignore_ascii_case(found),
        "Like" => |wanted, found| is_like(wanted, found, false),
        _ => return None,
    };
    // Without a value, what is not to be equal is not.
    Some(found.map_or(if_exists || negated, |found| wanted.any(|wanted| fits(wanted, found)) != negated))
}

/// Whether a text fits a glob of `*` and `?`. Linear but for the last star: it goes back to no other.
fn is_like(glob: &str, text: &str, ignore_case: bool) -> bool {
    let same = |a: u8, b: u8| if ignore_case { a.eq_ignore_ascii_case(&b) } else { a == b };
    let (glob, text) = (glob.as_bytes(), text.as_bytes());
    let (mut g, mut t, mut star) = (0, 0, None);
    while t < text.len() {
        match glob.get(g) {
            Some(b'*') => {
                star = Some((g, t));
                g += 1;
            }
            Some(b'?') => (g, t) = (g + 1, t + 1),
            Some(b) if same(*b, text[t]) => (g, t) = (g + 1, t + 1),
            _ => match star {
                Some((at, from)) => {
                    star = Some((at, from + 1));
                    (g, t) = (at + 1, from + 1);
                }
                None => return false,
            },
        }
    }
    glob[g..].iter().all(|b| *b == b'*')
}

impl Resources {
    /// What the policy of a bus says.
    pub fn verdict(&self, scope: &Scope, bus: &str, asked: &Asked<'_>) -> Verdict {
        let bus = self.buses.get(&(scope.clone(), bus.to_owned()));
        bus.and_then(|bus| bus.policy.as_ref()).map_or(Verdict::Silent, |policy| judge(policy, asked))
    }
}

/// Members that name what an action works on.
const NAMED: [&str; 6] = ["Name", "EventBusName", "ResourceARN", "EventSourceArn", "ConnectionArn", "ReplayName"];

/// What of another account an action would work on. Buses of other accounts may be targets: whether events may go there is
/// for their policies to say.
pub fn foreign<'m>(members: &'m Members, account: &str) -> Option<&'m str> {
    let targets = members.get("Targets").and_then(Value::as_array).into_iter().flatten();
    let targets = targets.filter_map(|target| target.get("Arn")?.as_str());
    let targets =
        targets.filter(|arn| Arn::parse(arn).is_some_and(|arn| arn.service == "events" && arn.bus().is_none()));
    let to = members.get("Destination").and_then(|to| to.get("Arn")?.as_str());
    let named = NAMED.iter().filter_map(|name| members.get(*name)?.as_str());
    let of_others = |text: &&str| {
        Arn::parse(text).is_some_and(|arn| arn.service == "events" && !arn.account.is_empty() && arn.account != account)
    };
    named.chain(to).chain(targets).find(of_others)
}
