//! The single writer of desired state: what files declare and callers make comes in, a plan goes out.
//!
//! Promises: the whole new set is compiled aside and published as one; what does not compile changes nothing. What an
//! operator says about a rule's state while running lies over what its file says, until the process ends.

mod registry;

pub use registry::{Made, Registry};

use crate::catalog::{Catalog, CatalogError, Command, RuleState};
use crate::plan::{self, Identity, Plan};
use crate::planted::{self, Bug};
use crate::resources::{self, Mapping, Scope};
use arc_swap::ArcSwap;
use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError};

/// Makes a plan take effect: opens what it needs and swaps it in. On an error the old one goes on.
pub type Publish = Box<dyn FnMut(Plan) -> Result<(), String> + Send>;

/// Bus and rule.
pub type RuleId = (String, String);

/// What is in effect.
#[derive(Default)]
pub struct View {
    /// Counts published plans.
    pub generation: u64,
    /// Desired state, what callers made and operators' words included.
    pub catalog: Catalog,
    /// What the files declare.
    pub declared: Arc<Catalog>,
    /// States of rules that differ from their files.
    pub overrides: BTreeMap<RuleId, RuleState>,
}

/// Why a change was not made; everything is as before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ControlError {
    /// No such rule.
    UnknownRule(String, String),
    /// The plan could not be made or published.
    Refused(String),
}

impl std::fmt::Display for ControlError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            // The words of the EventBridge API.
            Self::UnknownRule(bus, rule) => write!(f, "Rule {rule} does not exist on EventBus {bus}."),
            Self::Refused(why) => f.write_str(why),
        }
    }
}

impl std::error::Error for ControlError {}

impl From<CatalogError> for ControlError {
    fn from(error: CatalogError) -> Self {
        Self::Refused(error.to_string())
    }
}

/// Desired state and the way to make it so.
pub struct Control {
    identity: Identity,
    seed: u64,
    publish: Publish,
    /// As the files say.
    declared: Arc<Catalog>,
    /// As callers say.
    made: Made,
    mapping: Mapping,
    /// What of it does not run; said once.
    skipped: Vec<String>,
    view: Arc<ArcSwap<View>>,
}

impl Control {
    /// Control over what `publish` reaches. `seed` keys the hashes of all plans. What callers `made` runs beside what
    /// files declare, its targets by `mapping`. `view` follows every change.
    pub fn new(
        (identity, seed): (Identity, u64),
        (made, mapping): (&Made, Mapping),
        view: &Arc<ArcSwap<View>>,
        publish: Publish,
    ) -> Self {
        let (made, view) = (Arc::clone(made), Arc::clone(view));
        let declared = Arc::new(Catalog::new());
        Self { identity, seed, publish, declared, made, mapping, skipped: Vec::new(), view }
    }

    /// Puts what callers have made since into effect. Returns the new plan's generation.
    ///
    /// # Errors
    /// Why the plan could not be published; the old one is still in effect.
    pub fn refresh(&mut self) -> Result<u64, ControlError> {
        let overrides = self.view.load().overrides.clone();
        self.make_so(&Arc::clone(&self.declared), overrides)
    }

    /// Replaces all desired state. Returns the new plan's generation.
    ///
    /// # Errors
    /// Why the plan could not be published; the old one is still in effect.
    pub fn replace(&mut self, catalog: &Catalog) -> Result<u64, ControlError> {
        let overrides = self.view.load().overrides.clone();
        if planted::on(Bug::ReloadRuleByRule) {
            let mut mixed = Catalog::clone(&self.declared);
            for target in catalog.targets() {
                mixed.apply(Command::PutTarget(target.clone()))?;
            }
            for rule in catalog.rules() {
                mixed.apply(Command::PutRule(rule.clone()))?;
                self.make_so(&Arc::new(mixed.clone()), overrides.clone())?;
            }
        }
        let declared = Arc::new(catalog.clone());
        let generation = self.make_so(&declared, overrides)?;
        self.declared = declared;
        Ok(generation)
    }

    /// Sets a rule's state until the process ends; `None` gives it back to its file. Returns the new plan's generation.
    ///
    /// # Errors
    /// No such rule, or why the plan could not be published.
    pub fn set_state(&mut self, bus: &str, rule: &str, state: Option<RuleState>) -> Result<u64, ControlError> {
        let id = (bus.to_owned(), rule.to_owned());
        let catalog = self.with_made(&Arc::clone(&self.declared));
        let Some(declared) = catalog.rule(bus, rule) else { return Err(ControlError::UnknownRule(id.0, id.1)) };
        let mut overrides = self.view.load().overrides.clone();
        match state {
            Some(state) if state != declared.state => overrides.insert(id, state),
            _ => overrides.remove(&id),
        };
        self.make_so(&Arc::clone(&self.declared), overrides)
    }

    fn make_so(
        &mut self,
        declared: &Arc<Catalog>,
        overrides: BTreeMap<RuleId, RuleState>,
    ) -> Result<u64, ControlError> {
        let mut catalog = self.with_made(declared);
        // Rules that are gone take what was said about them along.
        let overrides: BTreeMap<_, _> =
            overrides.into_iter().filter(|((bus, rule), _)| catalog.rule(bus, rule).is_some()).collect();
        for ((bus, rule), state) in &overrides {
            if let Some(rule) = catalog.rule(bus, rule).cloned() {
                catalog.apply(Command::AddRule(crate::catalog::Rule { state: *state, ..rule }))?;
            }
        }
        let mut plan = plan::compile(&catalog, &self.identity, self.seed);
        let generation = self.view.load().generation + 1;
        plan.generation = generation;
        (self.publish)(plan).map_err(ControlError::Refused)?;
        self.view.store(Arc::new(View { generation, catalog, declared: Arc::clone(declared), overrides }));
        Ok(generation)
    }

    /// What files declare, and what callers made beside it.
    fn with_made(&mut self, declared: &Catalog) -> Catalog {
        let made = self.made.read().unwrap_or_else(PoisonError::into_inner);
        let lowered = resources::lower(&made, declared, &Scope::from(&self.identity), &self.mapping);
        drop(made);
        for why in lowered.skipped.iter().filter(|why| !self.skipped.contains(why)) {
            tracing::warn!("what was made through the API does not run: {why}");
        }
        self.skipped = lowered.skipped;
        lowered.catalog
    }
}
