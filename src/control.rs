//! The single writer of desired state: a catalog comes in, a plan goes out.
//!
//! Promises: the whole new set is compiled aside and published as one; what does not compile changes nothing.

use crate::catalog::Catalog;
use crate::plan::{self, Identity, Plan};

/// Makes a plan take effect: opens what it needs and swaps it in. On an error the old one goes on.
pub type Publish = Box<dyn FnMut(Plan) -> Result<(), String> + Send>;

/// Desired state and the way to make it so.
pub struct Control {
    identity: Identity,
    seed: u64,
    generation: u64,
    publish: Publish,
}

impl Control {
    /// Control over what `publish` reaches. `seed` keys the hashes of all plans.
    pub fn new(identity: Identity, seed: u64, publish: Publish) -> Self {
        Self { identity, seed, generation: 0, publish }
    }

    /// Replaces all desired state. Returns the new plan's generation.
    ///
    /// # Errors
    /// Why the plan could not be published; the old one is still in effect.
    pub fn replace(&mut self, catalog: &Catalog) -> Result<u64, String> {
        let mut plan = plan::compile(catalog, &self.identity, self.seed);
        plan.generation = self.generation + 1;
        (self.publish)(plan)?;
        self.generation += 1;
        Ok(self.generation)
    }
}
