//! The listeners: bound before anything else starts, so that an address in use is found at once.

use super::{Exit, Failed, io};
use crate::api::server::serve;
use crate::api::{self, Front, Hook, Tokens};
use crate::config::ends::Verify;
use crate::config::model::Config;
use crate::config::values::{Listen, Secret};
use crate::control::View;
use crate::credit::Window;
use crate::envelope::SourceInfo;
use crate::journal::Reserve;
use crate::metrics::Metrics;
use crate::plan::Identity;
use crate::source::Feed;
use crate::source::inlet::{self, Inlet, InletSource};
use crate::webhook::{Scheme, Verifier};
use arc_swap::ArcSwap;
use std::collections::HashMap;
use std::sync::Arc;
use std::thread::JoinHandle;
use tokio::net::TcpListener;
use tokio::runtime::Handle;
use tokio::sync::watch;

/// Connections at once on the admin address.
const ADMIN_CONNECTIONS: usize = 256;

/// What ends when all events that came over HTTP are settled, and what ends when all requests are answered.
pub type Served = (JoinHandle<()>, tokio::task::JoinHandle<()>);

/// The addresses, taken.
pub struct Listeners {
    front: Option<TcpListener>,
    admin: Option<TcpListener>,
    tokens: Tokens,
}

impl Listeners {
    /// Takes the addresses.
    pub fn bind(config: &Config, runtime: &Handle) -> Result<Self, Failed> {
        let tokens: &[Secret] = config.server.auth.as_ref().map_or(&[], |auth| &auth.bearer);
        let bind = |listen: Listen, key: &str| {
            let Listen::At(address) = listen else { return Ok(None) };
            runtime.block_on(TcpListener::bind(address)).map(Some).map_err(|error| {
                let help = format!("free it, or set server.{key} to another address or `off`");
                Failed::new(Exit::Io, format!("cannot listen on {address}: {error}; {help}"))
            })
        };
        Ok(Self {
            front: bind(config.server.listen, "listen")?,
            admin: bind(config.server.admin, "admin")?,
            tokens: Tokens::new(tokens.iter().map(Secret::expose)),
        })
    }

    /// Serves the admin endpoints from now on.
    pub fn serve_admin(&mut self, runtime: &Handle, admin: impl FnOnce(Tokens) -> api::Admin) {
        let Some(listener) = self.admin.take() else { return };
        let admin = admin(self.tokens.clone());
        // Health must answer while the process drains, so these go on to its end.
        let (on, never) = watch::channel(false);
        runtime.spawn(async move {
            serve(listener, api::admin_router(admin), ADMIN_CONNECTIONS, never).await;
            drop(on);
        });
    }

    /// Serves the front from now on; the thread ends when everything that came is settled.
    pub fn serve_front(
        &mut self,
        (config, identity, metrics): (&Config, &Identity, &Arc<Metrics>),
        (feed, reserve): (&Feed, &Arc<Reserve>),
        view: &Arc<ArcSwap<View>>,
        stop: &watch::Receiver<bool>,
    ) -> Result<Option<Served>, Failed> {
        let Some(listener) = self.front.take() else { return Ok(None) };
        let window = Window { events: config.limits.in_flight_events, bytes: config.limits.in_flight_bytes.0 };
        let hooks = hooks(config, identity, metrics)?;
        let journal = (&*config.data_dir.join("journal"), config.limits.journal_bytes.0, reserve);
        let opened = Inlet::new(journal, window, known(config, identity, view, &hooks), feed);
        let (inlet, source) = opened.map_err(|error| Failed::new(Exit::Io, error.to_string()))?;
        let front = Front {
            inlet,
            view: Arc::clone(view),
            metrics: Arc::clone(metrics),
            identity: identity.clone(),
            event_bytes: usize::try_from(config.limits.event_bytes.0).unwrap_or(usize::MAX),
            accept_timeout: config.server.accept_timeout.0,
            tokens: self.tokens.clone(),
            loopback: !config.server.listen.is_public(),
            hooks,
        };
        let connections = config.server.max_connections.max(1) as usize;
        let served = feed.runtime.spawn(serve(listener, api::front_router(front), connections, stop.clone()));
        spawn(source, feed).map(|thread| Some((thread, served)))
    }
}

fn spawn(source: InletSource, feed: &Feed) -> Result<JoinHandle<()>, Failed> {
    let lanes = feed.lanes.clone();
    let spawned = std::thread::Builder::new().name("sluice-in-http".into()).spawn(move || source.run(&lanes));
    spawned.map_err(io("cannot start a thread"))
}

/// Finds the source of an event that the journal has: a webhook, or a call to a bus that is declared.
fn known(
    config: &Config,
    identity: &Identity,
    view: &Arc<ArcSwap<View>>,
    hooks: &HashMap<String, Hook>,
) -> inlet::Known {
    let routed: HashMap<Arc<str>, Arc<SourceInfo>> =
        hooks.values().map(|hook| (Arc::clone(&hook.routed.name), Arc::clone(&hook.routed))).collect();
    let event_bytes = usize::try_from(config.limits.event_bytes.0).unwrap_or(usize::MAX);
    let (identity, view) = (identity.clone(), Arc::clone(view));
    Box::new(move |source, bus| match routed.get(source) {
        Some(info) => Some(Arc::clone(info)),
        None => view.load().catalog.has_bus(bus).then(|| Arc::new(api::put_source(bus, event_bytes, &identity))),
    })
}

/// Webhooks by path.
fn hooks(config: &Config, identity: &Identity, metrics: &Arc<Metrics>) -> Result<HashMap<String, Hook>, Failed> {
    let mut hooks = HashMap::new();
    for (name, source) in &config.sources {
        let Some(webhook) = &source.webhook else { continue };
        let info = super::sources::info(config, identity, name, source)?;
        let verifier =
            verifier(&webhook.verify).map_err(|why| Failed::new(Exit::Config, format!("source {name}: {why}")))?;
        hooks.insert(webhook.path.clone(), Hook::new(info, verifier, metrics));
    }
    Ok(hooks)
}

fn verifier(verify: &Verify) -> Result<Option<Verifier>, String> {
    let (scheme, secrets) = match verify {
        Verify::None => return Ok(None),
        Verify::StandardWebhooks(secrets) => (Scheme::StandardWebhooks, secrets),
        Verify::Zendesk(secrets) => (Scheme::Zendesk, secrets),
        Verify::Pagerduty(secrets) => (Scheme::PagerDuty, secrets),
        Verify::Github(secrets) => (Scheme::GitHub, secrets),
        Verify::Stripe(secrets) => (Scheme::Stripe, secrets),
        Verify::Slack(secrets) => (Scheme::Slack, secrets),
        Verify::Datadog(shared) => {
            let secrets: Vec<&str> = std::iter::once(&shared.secret).chain(&shared.also).map(Secret::expose).collect();
            return Verifier::new(Scheme::SharedSecret(shared.header.clone()), &secrets).map(Some);
        }
    };
    let secrets: Vec<&str> = std::iter::once(&secrets.secret).chain(&secrets.also).map(Secret::expose).collect();
    Verifier::new(scheme, &secrets).map(Some)
}
