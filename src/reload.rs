//! Changed files to a new plan.
//!
//! Folders are watched, not files: a ConfigMap changes by swapping a symbolic link beside them. Where the system
//! cannot watch, files are looked at every two seconds.

use crate::config::{self, Config, Outside};
use crate::control::Control;
use crate::metrics::{Metrics, labels};
use crate::time;
use notify::{Config as WatchConfig, PollWatcher, RecommendedWatcher, RecursiveMode, Watcher};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// Reads the configuration again and applies what may change while running.
pub struct Reloader {
    paths: Vec<PathBuf>,
    current: Config,
    control: Arc<Mutex<Control>>,
    metrics: Arc<Metrics>,
    /// Whether there is what fires schedules and sends replays.
    runs_by_itself: bool,
}

impl Reloader {
    /// A reloader for the files that gave `current`.
    pub fn new(paths: Vec<PathBuf>, current: Config, control: Arc<Mutex<Control>>, metrics: &Arc<Metrics>) -> Self {
        let runs_by_itself = current.runs_by_itself() || current.serves_changes();
        Self { paths, current, control, metrics: Arc::clone(metrics), runs_by_itself }
    }

    /// Reloads. Unchanged files do nothing; an invalid configuration leaves the old one in effect.
    pub fn reload(&mut self) {
        let metrics = Arc::clone(&self.metrics);
        let families = &metrics.families;
        let begin = time::now();
        let result = match self.replace() {
            Ok(None) => return tracing::debug!("the configuration has not changed"),
            Ok(Some(generation)) => {
                tracing::info!(generation, millis = begin.elapsed().as_millis() as u64, "configuration reloaded");
                families.config_last_reload_successful.get_or_create(&labels([])).set(1);
                "good"
            }
            Err(problems) => {
                tracing::error!("the new configuration is not valid, the old one stays in effect\n{problems}");
                families.config_last_reload_successful.get_or_create(&labels([])).set(0);
                "bad"
            }
        };
        families.config_reloads.get_or_create(&labels([("result", result)])).inc();
    }

    fn replace(&mut self) -> Result<Option<u64>, String> {
        let loaded = config::load(&self.paths, &Outside::default()).map_err(|problems| problems.to_string())?;
        if loaded.config == self.current {
            return Ok(None);
        }
        let fixed = |config: &Config| Config {
            buses: self.current.buses.clone(),
            targets: self.current.targets.clone(),
            rules: self.current.rules.clone(),
            keys: self.current.keys.clone(),
            archives: self.current.archives.clone(),
            schedules: self.current.schedules.clone(),
            ..config.clone()
        };
        if fixed(&loaded.config) != self.current {
            let message =
                "only buses, targets, rules, archives and schedules can change while running; restart for the rest";
            return Err(message.into());
        }
        if loaded.config.runs_by_itself() && !self.runs_by_itself {
            return Err("the first archive or schedule needs a restart where the API makes none".into());
        }
        if !loaded.config.kept_by_brokers().eq(self.current.kept_by_brokers()) {
            return Err("`durability: broker` is set and taken away at start only; restart for it".into());
        }
        let archives = |config: &Config| {
            let all = config.buses.iter().filter_map(|(name, bus)| Some((name.clone(), bus.archives.clone()?)));
            all.collect::<BTreeMap<_, _>>()
        };
        if archives(&loaded.config) != archives(&self.current) {
            return Err("`archives` of a bus is set and changed at start only; restart for it".into());
        }
        if loaded.config.keys != self.current.keys {
            // What is in effect must not wait for them.
            tracing::warn!("the access keys have changed; restart for them");
        }
        let mut control = self.control.lock().unwrap_or_else(PoisonError::into_inner);
        let generation = control.replace(&loaded.catalog).map_err(|error| error.to_string())?;
        drop(control);
        self.current = loaded.config;
        Ok(Some(generation))
    }
}

/// Keeps watching as long as it lives.
pub struct Watch {
    _watcher: Box<dyn Watcher + Send>,
}

/// Calls `changed` after something changed in a folder of `files` or below one of `paths`.
///
/// # Errors
/// A folder that cannot be watched in any way.
pub fn watch(
    paths: &[PathBuf],
    files: &[PathBuf],
    changed: impl Fn() + Send + Clone + 'static,
) -> notify::Result<Watch> {
    let folder = |path: &PathBuf| match path.is_dir() {
        true => path.clone(),
        false => path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new(".")).to_owned(),
    };
    let folders: BTreeSet<PathBuf> = paths.iter().chain(files).map(folder).collect();
    let handler = |changed: Box<dyn Fn() + Send>| {
        move |event: notify::Result<notify::Event>| {
            if event.is_ok_and(|event| !event.kind.is_access() && event.paths.iter().any(|path| is_ours(path))) {
                changed();
            }
        }
    };
    let native = RecommendedWatcher::new(handler(Box::new(changed.clone())), WatchConfig::default())
        .and_then(|watcher| add(Box::new(watcher), &folders));
    native.or_else(|error| {
        tracing::warn!("cannot watch folders ({error}); looking at the files every two seconds");
        let config = WatchConfig::default().with_poll_interval(Duration::from_secs(2)).with_compare_contents(true);
        PollWatcher::new(handler(Box::new(changed)), config).and_then(|watcher| add(Box::new(watcher), &folders))
    })
}

/// Whether a path can be configuration: log files and the like may lie in the same folder. A name with two dots in
/// front is a ConfigMap's link.
fn is_ours(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    name.starts_with("..") || [".yaml", ".yml", ".json"].iter().any(|end| name.ends_with(end))
}

fn add(mut watcher: Box<dyn Watcher + Send>, folders: &BTreeSet<PathBuf>) -> notify::Result<Watch> {
    for folder in folders {
        watcher.watch(folder, RecursiveMode::Recursive)?;
    }
    Ok(Watch { _watcher: watcher })
}
