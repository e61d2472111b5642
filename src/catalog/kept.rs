//! Archives and schedules that files declare: what they are, and the rules and targets that make them run.

use super::{About, MARK, Order, RetryPolicy, Rule, RuleState, RuleTarget, Scheduled, Storage, Target, TargetKind};
use crate::pattern::Pattern;
use crate::schedule::Schedule;
use crate::transform::Input;
use std::sync::Arc;

/// What the names of archives' rules begin with.
pub const ARCHIVE_RULE: &str = "Events-Archive-";
/// What the folders of archives begin with that files declare.
pub const FILE_ARCHIVES: &str = "files/";
/// What the names of their targets begin with. No caller's target has such a name.
pub const FILE_ARCHIVE_TARGETS: &str = "arn:sluice:archive:::";
/// What a pattern gains, so that replayed events are not archived again.
const NO_REPLAY: &str = r#""replay-name":[{"exists":false}]"#;

/// An archive of a bus.
#[derive(Debug, Clone)]
pub struct Archive {
    /// Unique.
    pub name: String,
    /// Its bus.
    pub bus: String,
    /// Days that events are kept; 0 is for ever.
    pub days: i64,
    /// What it is for.
    pub description: Option<String>,
    /// What it keeps, as it was given; everything without it.
    pub given: Option<String>,
    /// The same, [without what is replayed](without_replays).
    pub pattern: Arc<Pattern>,
    /// What keeps its events.
    pub storage: Storage,
}

/// A rule that fires by a schedule.
#[derive(Debug, Clone)]
pub struct Timed {
    /// Unique on its bus, among rules as well.
    pub name: String,
    /// Its bus.
    pub bus: String,
    /// When it is due.
    pub schedule: Schedule,
    /// How many due times that were missed are caught up, the last ones.
    pub catch_up: u32,
    /// Whether it fires.
    pub is_enabled: bool,
    /// What it is for.
    pub description: Option<String>,
    /// Where its events go, in order.
    pub targets: Vec<RuleTarget>,
}

impl Archive {
    /// Its folder below that of all archives.
    pub fn folder(&self) -> String {
        format!("{FILE_ARCHIVES}{}.events", self.name)
    }

    fn target_name(&self) -> String {
        format!("{FILE_ARCHIVE_TARGETS}{}{MARK}archive", self.name)
    }

    pub(super) fn target(&self) -> Target {
        let (retry, ordering) = (RetryPolicy::default(), Order::default());
        let (folder, storage, days) = (self.folder(), self.storage.clone(), self.days);
        let kind = TargetKind::Archive { folder, storage, days };
        Target { name: self.target_name(), kind, retry, ordering, dead_letter: None }
    }

    pub(super) fn rule(&self) -> Rule {
        Rule {
            name: format!("{ARCHIVE_RULE}{}", self.name),
            bus: self.bus.clone(),
            state: RuleState::Enabled,
            pattern: Arc::clone(&self.pattern),
            text: without_replays(self.given.as_deref()).into(),
            about: About { description: self.description.clone(), owner: None },
            targets: vec![RuleTarget { target: self.target_name(), input: Input::Event }],
        }
    }
}

impl Timed {
    pub(super) fn scheduled(&self) -> Scheduled {
        Scheduled { name: self.name.clone(), bus: self.bus.clone(), targets: self.targets.clone() }
    }
}

/// A pattern, known to be one, that replayed events do not match; without one, everything else.
pub fn without_replays(pattern: Option<&str>) -> String {
    let inner = pattern.and_then(|text| text.trim().strip_suffix('}')).map(str::trim_end).unwrap_or("{");
    let comma = if inner == "{" { "" } else { "," };
    format!("{inner}{comma}{NO_REPLAY}}}")
}
