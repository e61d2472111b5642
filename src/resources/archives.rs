//! Archives: what keeps a bus's events, by a rule that the service manages. Those of files are shown like others, in every
//! account and region, and refuse changes.

use super::page::Page;
use super::{
    ApiError, Arn, At, Call, Desired, Done, FILES, Item, Key, Kind, Members, Outcome, Record, Resources, Rule, Scope,
    timestamp,
};
use crate::catalog::{ARCHIVE_RULE, Archive, Catalog, without_replays};
use serde_json::json;
use std::borrow::Cow;
use std::collections::BTreeMap;

/// Who manages the rules of archives.
pub const MANAGER: &str = "prod.vhs.events.aws.internal";
const SETTINGS: [&str; 5] = ["EventSourceArn", "Description", "EventPattern", "RetentionDays", "KmsKeyIdentifier"];

impl Desired<'_> {
    fn archive(&self, call: &Call<'_>) -> Result<Cow<'_, Item>, ApiError> {
        let name = call.text("ArchiveName").unwrap_or_default();
        let missing = || ApiError::missing(format!("Archive {name} does not exist."));
        self.made.archive(self.declared, &call.scope, name).ok_or_else(missing)
    }

    /// An archive to be changed. Those of files are changed there.
    fn own_archive(&self, call: &Call<'_>) -> Result<Item, ApiError> {
        match self.archive(call)? {
            item if item.of_files.is_some() => Err(ApiError::managed("Archive", FILES)),
            item => Ok(item.into_owned()),
        }
    }

    pub(super) fn create_archive(&self, call: &Call<'_>) -> Outcome {
        let name = call.text("ArchiveName").unwrap_or_default();
        if self.archive(call).is_ok() {
            return Err(ApiError::exists(format!("Archive {name} already exists.")));
        }
        let at = self.archived_bus(call.text("EventSourceArn").unwrap_or_default())?;
        let id = format!("{ARCHIVE_RULE}{name}");
        let taken = self.known_rule(&at, &id).is_ok_and(|rule| rule.managed_by.as_deref() != Some(MANAGER));
        if taken {
            return Err(ApiError::exists(format!("Rule {id} already exists on EventBus {}.", at.1)));
        }
        if at.0 != call.scope {
            return Err(ApiError::missing(format!("Event bus {} does not exist.", at.1)));
        }
        self.quota(Kind::Archive, &call.scope)?;
        let mut item = Item::new(call, format!("archive/{name}"));
        item.state = "ENABLED".to_owned();
        item.settings = call.some(&SETTINGS);
        item.settings.entry("RetentionDays").or_insert_with(|| 0.into());
        self.kept_archive(call, item)
    }

    pub(super) fn update_archive(&self, call: &Call<'_>) -> Outcome {
        let changes = call.some(&["Description", "EventPattern", "RetentionDays", "KmsKeyIdentifier"]);
        if changes.is_empty() {
            let message = "At least one of EventPattern, RetentionDays or Description must be provided.";
            return Err(ApiError::invalid(message));
        }
        let mut item = self.own_archive(call)?;
        item.settings.extend(changes);
        item.modified = call.now;
        self.kept_archive(call, item)
    }

    /// An archive and its rule.
    fn kept_archive(&self, call: &Call<'_>, item: Item) -> Outcome {
        let name = call.text("ArchiveName").unwrap_or_default();
        let given = item.setting("EventPattern");
        // The caller's own text is what errors are about.
        given.map(|text| self.checked_pattern(text)).transpose()?;
        let text = without_replays(given);
        let at = self.archived_bus(item.setting("EventSourceArn").unwrap_or_default())?;
        let id = format!("{ARCHIVE_RULE}{name}");
        let mut rule = Rule { since: call.now, managed_by: Some(MANAGER.to_owned()), ..Rule::default() };
        rule.settings.insert("EventPattern".into(), text.into());
        rule.settings.insert("State".into(), "ENABLED".into());
        rule.read().map_err(|why| ApiError::new("InvalidEventPatternException", why))?;
        self.room(&at, self.known_rule(&at, &id).ok().as_deref(), rule.pattern().map(|pattern| &**pattern))?;
        let template = format!(
            r#"{{"archive-arn": "{}:{}", "event": <aws.events.event.json>, "ingestion-time": <aws.events.event.ingestion-time>}}"#,
            item.arn, call.id
        );
        let target = json!({
            "Id": id,
            "Arn": call.scope.archive_target_arn(),
            "InputTransformer": { "InputPathsMap": {}, "InputTemplate": template },
        });
        rule.targets = target.as_object().cloned().map(|target| (0, target)).into_iter().collect();
        let answer = item.archive_answer();
        let changes = vec![
            (Key::Rule(at.0, at.1, id), Some(Record::Rule(rule))),
            (call.key(Kind::Archive, name), Some(Record::Item(item))),
        ];
        Ok(Done { changes, answer })
    }

    /// The bus that an archive is of.
    pub(super) fn archived_bus(&self, text: &str) -> Result<At, ApiError> {
        let bad = || ApiError::invalid("Parameter EventSourceArn is not valid. Reason: Must contain an event bus ARN.");
        let arn = Arn::parse(text).ok_or_else(bad)?;
        let at = (arn.scope().ok_or_else(bad)?, arn.bus().ok_or_else(bad)?.to_owned());
        self.known_bus(&at).map(drop)?;
        Ok(at)
    }

    pub(super) fn describe_archive(&self, call: &Call<'_>) -> Outcome {
        let item = self.archive(call)?;
        let name = call.text("ArchiveName").unwrap_or_default();
        let mut answer = item.archive_answer();
        answer.extend(item.settings.clone());
        answer.insert("ArchiveName".into(), name.into());
        answer.extend(self.size(&item.folder(&call.scope, name)));
        Ok(Done::answer(answer.into()))
    }

    /// How much an archive holds.
    fn size(&self, folder: &str) -> Members {
        let (events, bytes) = (self.sizes)(folder);
        Members::from_iter([("EventCount".to_owned(), events.into()), ("SizeBytes".to_owned(), bytes.into())])
    }

    pub(super) fn list_archives(&self, call: &Call<'_>) -> Outcome {
        at_most_one(call, "ListArchives", &["NamePrefix", "EventSourceArn", "State"])?;
        let source = call.text("EventSourceArn");
        source.map(|arn| self.archived_bus(arn)).transpose()?;
        let wanted = |item: &Item| {
            source.is_none_or(|arn| item.setting("EventSourceArn") == Some(arn))
                && call.text("State").is_none_or(|state| item.state == state)
        };
        let all = self.made.archives(self.declared, &call.scope);
        let items = all.iter().filter(|(_, item)| wanted(item));
        let shown = items.map(|(name, item)| {
            let mut shown = item.settings.clone();
            shown.retain(|name, _| name == "EventSourceArn" || name == "RetentionDays");
            shown.insert("ArchiveName".into(), (*name).into());
            shown.insert("State".into(), item.state.as_str().into());
            shown.insert("CreationTime".into(), timestamp(item.created));
            shown.extend(self.size(&item.folder(&call.scope, name)));
            (*name, shown)
        });
        Ok(Page::of(call, shown)?.answer("Archives"))
    }

    pub(super) fn delete_archive(&self, call: &Call<'_>) -> Outcome {
        let item = self.own_archive(call)?;
        let name = call.text("ArchiveName").unwrap_or_default();
        let bus = item.setting("EventSourceArn").and_then(Arn::parse);
        let rule = bus.and_then(|arn| {
            Some((Key::Rule(arn.scope()?, arn.bus()?.to_owned(), format!("{ARCHIVE_RULE}{name}")), None))
        });
        let archive = (call.key(Kind::Archive, name), None);
        Ok(Done { changes: rule.into_iter().chain([archive]).collect(), answer: Members::new() })
    }
}

impl Resources {
    /// An archive; one that a file declares goes before one that was made.
    pub fn archive(&self, declared: &Catalog, scope: &Scope, name: &str) -> Option<Cow<'_, Item>> {
        let of_files = declared.archive(name).map(|archive| Cow::Owned(Item::declared(archive, scope, self.begun)));
        of_files.or_else(|| self.item(Kind::Archive, scope, name).map(Cow::Borrowed))
    }

    /// All archives, wherever, or those of a name: each with its account and region. One of files is in all of them, and
    /// shown in `scope`.
    pub fn all_archives(&self, declared: &Catalog, scope: &Scope, name: Option<&str>) -> Vec<(Scope, String, Item)> {
        let of_files = declared
            .archives()
            .map(|archive| (scope.clone(), archive.name.clone(), Item::declared(archive, scope, self.begun)));
        let made = self.all(Kind::Archive).filter(|(_, name, _)| declared.archive(name).is_none());
        let made = made.map(|(scope, name, item)| (scope.clone(), name.to_owned(), item.clone()));
        of_files.chain(made).filter(|(_, own, _)| name.is_none_or(|name| name == own)).collect()
    }

    /// All archives of an account and region, by name.
    fn archives<'a>(&'a self, declared: &'a Catalog, scope: &Scope) -> BTreeMap<&'a str, Cow<'a, Item>> {
        let made = self.items(Kind::Archive, scope).map(|(name, item)| (name, Cow::Borrowed(item)));
        let item = |archive| Cow::Owned(Item::declared(archive, scope, self.begun));
        made.chain(declared.archives().map(|archive| (archive.name.as_str(), item(archive)))).collect()
    }
}

impl Item {
    /// An archive of files, as it is in an account and region.
    fn declared(archive: &Archive, scope: &Scope, begun: i64) -> Self {
        let mut settings = Members::new();
        settings.insert("EventSourceArn".into(), scope.bus_arn(&archive.bus).into());
        settings.extend(archive.description.iter().map(|text| ("Description".to_owned(), text.as_str().into())));
        settings.extend(archive.given.iter().map(|text| ("EventPattern".to_owned(), text.as_str().into())));
        settings.insert("RetentionDays".into(), archive.days.into());
        Self {
            arn: scope.arn(&format!("archive/{}", archive.name)),
            state: "ENABLED".to_owned(),
            created: begun,
            modified: begun,
            of_files: Some(archive.folder()),
            settings,
            ..Self::default()
        }
    }

    /// The folder of an archive's files among those of all archives; another one after it was deleted and made again.
    pub fn folder(&self, scope: &Scope, name: &str) -> String {
        let made = || format!("{}/{}/{name}.{}", scope.account, scope.region, self.created);
        self.of_files.clone().unwrap_or_else(made)
    }

    /// Days that an archive keeps its events; 0 is for ever.
    pub fn days(&self) -> i64 {
        self.settings.get("RetentionDays").and_then(serde_json::Value::as_i64).unwrap_or(0)
    }

    fn archive_answer(&self) -> Members {
        Members::from_iter([
            ("ArchiveArn".to_owned(), self.arn.as_str().into()),
            ("State".to_owned(), self.state.as_str().into()),
            ("CreationTime".to_owned(), timestamp(self.created)),
        ])
    }
}

/// Lists of archives and replays take one filter.
pub(super) fn at_most_one(call: &Call<'_>, action: &str, filters: &[&str]) -> Result<(), ApiError> {
    if filters.iter().filter(|name| call.members.contains_key(**name)).count() <= 1 {
        return Ok(());
    }
    Err(ApiError::invalid(format!(
        "At most one filter is allowed for {action}. Use either : State, EventSourceArn, or NamePrefix."
    )))
}
