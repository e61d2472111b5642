//! What callers of the API make: read at start, and taken from then on.

use super::{Exit, Failed, io};
use crate::api::Rates;
use crate::archive::Archives;
use crate::config::check::services::access;
use crate::config::model::{CatalogMode, Config, Profile};
use crate::config::values::Secret;
use crate::control::{Control, Made, Registry, View};
use crate::deliver::Outlets;
use crate::deliver::dispatcher::archives_folder;
use crate::metrics::{Metrics, labels};
use crate::resources::{Mapping, Quotas, Resources, Scope};
use crate::store::Store;
use crate::time;
use arc_swap::ArcSwap;
use std::num::NonZeroU32;
use std::sync::{Arc, Mutex, PoisonError, RwLock};

/// Reads what was made through the API.
pub fn open(config: &Config) -> Result<(Option<Store>, Made), Failed> {
    let only_files = config.catalog == CatalogMode::Files;
    let (store, mut resources) = match only_files && !config.runs_by_itself() {
        true => (None, Resources::default()),
        false => {
            let key = config.catalog_key.as_ref().map(Secret::expose);
            let (store, resources) = Store::open(&config.data_dir, key).map_err(|why| Failed::new(Exit::Io, why))?;
            (Some(store), resources)
        }
    };
    if only_files {
        resources.only_what_runs();
    }
    if resources.begun == 0 {
        resources.begun = time::wall_millis();
    }
    Ok((store, Arc::new(RwLock::new(resources))))
}

/// How many of everything callers may make.
fn quotas(config: &Config) -> Quotas {
    let limits = &config.limits;
    let aws = limits.profile == Profile::Aws;
    let most = |own: Option<NonZeroU32>, of_aws: usize| own.map(count).or_else(|| aws.then_some(of_aws));
    Quotas {
        buses: most(limits.buses, 100),
        rules: most(limits.rules_per_bus, 300),
        targets: Some(limits.targets_per_rule),
        pattern: most(limits.pattern_characters, 2048),
        archives: most(limits.archives, 100),
        replays: Some(count(limits.replays)),
        connections: most(limits.connections, 3000),
        destinations: most(limits.api_destinations, 3000),
        tags: Some(count(limits.tags)),
    }
}

fn count(of: NonZeroU32) -> usize {
    usize::try_from(of.get()).unwrap_or(usize::MAX)
}

/// How many requests an account may make in a region in a second.
pub fn rates(config: &Config) -> Rates {
    let limits = &config.limits;
    let aws = |count| NonZeroU32::new(count).filter(|_| limits.profile == Profile::Aws);
    Rates::new(limits.put_events_per_second.or(aws(10_000)), limits.actions_per_second.or(aws(50)))
}

/// What stands for an ARN: `arn_map`, longer ones first, then functions by name, then AWS itself.
pub fn mapping(config: &Config) -> Mapping {
    let mut arns: Vec<_> = config.arn_map.iter().map(|(arn, target)| (arn.clone(), target.clone())).collect();
    arns.sort_by_key(|(arn, _)| std::cmp::Reverse(arn.len()));
    for name in config.functions.keys() {
        let resources = ["lambda:*:*:function:NAME", "lambda:*:*:function:NAME:*", "states:*:*:stateMachine:NAME"];
        arns.extend(resources.map(|resource| (format!("arn:*:{}", resource.replace("NAME", name)), name.clone())));
    }
    let organizations =
        config.keys.iter().filter_map(|key| Some((key.account.clone(), key.organization.clone()?))).collect();
    let signed = config.server.auth.as_ref().is_some_and(|auth| auth.keys.is_some());
    Mapping { arns, aws: config.aws.as_ref().map(access), enforced: signed.then_some(organizations) }
}

/// What was archived.
pub fn archives(config: &Config, metrics: &Metrics) -> Arc<Archives> {
    Archives::new(archives_folder(&config.data_dir), metrics.families.archive_damaged.get_or_create_owned(&labels([])))
}

/// What takes actions from now on.
pub fn registry(
    config: &Config,
    (store, made): (Option<Store>, &Made),
    (view, outlets): (&Arc<ArcSwap<View>>, &Mutex<Outlets>),
    control: &Arc<Mutex<Control>>,
) -> Result<Arc<Registry>, Failed> {
    let home = Scope { account: config.identity.account.clone(), region: config.identity.region.clone() };
    let archives = outlets.lock().unwrap_or_else(PoisonError::into_inner).archives();
    let registry = Registry::new(made, &archives, view, (home, quotas(config), config.catalog == CatalogMode::Files));
    match store {
        Some(store) => registry.open(store, control).map_err(io("cannot start the registry")),
        None => Ok(Arc::new(registry)),
    }
}
