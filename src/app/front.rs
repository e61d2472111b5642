//! The listeners: bound before anything else starts, so that an address in use is found at once.

use super::{Exit, Failed, io};
use crate::api::server::serve;
use crate::api::{self, Access, Front, Hook, Tokens};
use crate::catalog::{DEFAULT_BUS, Destination};
use crate::config::check::clients;
use crate::config::ends::Verify;
use crate::config::model::Config;
use crate::config::values::{Listen, Secret};
use crate::control::{Registry, View};
use crate::credit::Window;
use crate::deliver::function::{Publish, Record};
use crate::deliver::{Outlets, target_arn};
use crate::envelope::SourceInfo;
use crate::journal::Reserve;
use crate::metrics::Metrics;
use crate::plan::{self, Identity};
use crate::resources::{Resources, Scope, TWIN};
use crate::service::{self, Service};
use crate::source::Feed;
use crate::source::inlet::{self, Arrival, Inlet, InletSource};
use crate::source::keeper::Keepers;
use crate::time;
use crate::transform::wrap::Head;
use crate::webhook::{Scheme, Verifier};
use arc_swap::ArcSwap;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use tokio::net::TcpListener;
use tokio::runtime::Handle;
use tokio::sync::watch;

/// Connections at once on the admin address.
const ADMIN_CONNECTIONS: usize = 256;

/// What ends when all events that came over HTTP or by themselves are settled, and what ends when all requests are
/// answered, if there is a listener.
pub type Served = (Vec<JoinHandle<()>>, Option<tokio::task::JoinHandle<()>>);

/// The addresses, taken.
pub struct Listeners {
    front: Option<TcpListener>,
    admin: Option<TcpListener>,
    access: Access,
}

impl Listeners {
    /// Takes the addresses.
    pub fn bind(config: &Config, runtime: &Handle) -> Result<Self, Failed> {
        let home = Scope { account: config.identity.account.clone(), region: config.identity.region.clone() };
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
            access: Access::new(config, home),
        })
    }

    /// Serves the admin endpoints from now on.
    pub fn serve_admin(&mut self, runtime: &Handle, admin: impl FnOnce(Tokens) -> api::Admin) {
        let Some(listener) = self.admin.take() else { return };
        let admin = admin(self.access.tokens.clone());
        // Health must answer while the process drains, so these go on to its end.
        let (on, never) = watch::channel(false);
        runtime.spawn(async move {
            serve(listener, api::admin_router(admin), ADMIN_CONNECTIONS, never).await;
            drop(on);
        });
    }

    /// Serves the front from now on, and starts what runs by itself; the threads end when everything that came is settled.
    pub fn serve_front(
        self,
        (config, identity, metrics): (&Config, &Identity, &Arc<Metrics>),
        (feed, reserve, outlets): (&Feed, &Arc<Reserve>, &Arc<Mutex<Outlets>>),
        (view, registry): (&Arc<ArcSwap<View>>, &Arc<Registry>),
        stop: &watch::Receiver<bool>,
    ) -> Result<Option<Served>, Failed> {
        let listener = self.front;
        let made = registry.is_open() && !registry.made().is_empty();
        if listener.is_none() && !made && !config.runs_by_itself() && !config.tells() {
            return Ok(None);
        }
        let window = Window { events: config.limits.in_flight_events, bytes: config.limits.in_flight_bytes.0 };
        let hooks = hooks(config, identity, metrics)?;
        let journal = (&*config.data_dir.join("journal"), config.limits.journal_bytes.0, reserve);
        let opened = Inlet::new(journal, window, known(config, identity, (view, registry), &hooks), feed);
        let (inlet, source) = opened.map_err(|error| Failed::new(Exit::Io, error.to_string()))?;
        outlets.lock().unwrap_or_else(PoisonError::into_inner).publish_by(publish(config, identity, view, &inlet));
        let service = Service {
            registry: Arc::clone(registry),
            inlet: inlet.clone(),
            runtime: feed.runtime.clone(),
            identity: identity.clone(),
            event_bytes: event_bytes(config) + api::ENVELOPE_BYTES,
            metrics: Arc::clone(metrics),
            outlets: Arc::clone(outlets),
            is_signed: config.server.auth.as_ref().is_some_and(|auth| auth.keys.is_some()),
            stop: feed.stop.clone(),
        };
        let served = match listener {
            Some(listener) => {
                let front = Front {
                    inlet,
                    registry: Arc::clone(registry),
                    keepers: keepers(config, window, feed)?,
                    view: Arc::clone(view),
                    metrics: Arc::clone(metrics),
                    identity: identity.clone(),
                    event_bytes: event_bytes(config),
                    accept_timeout: config.server.accept_timeout.0,
                    access: self.access,
                    rates: super::made::rates(config),
                    loopback: !config.server.listen.is_public(),
                    hooks,
                };
                let connections = config.server.max_connections.max(1) as usize;
                Some(feed.runtime.spawn(serve(listener, api::front_router(front), connections, stop.clone())))
            }
            None => None,
        };
        let mut threads = vec![spawn(source, feed)?];
        if registry.is_open() {
            threads.push(service.spawn().map_err(io("cannot start a thread"))?);
        }
        Ok(Some((threads, served)))
    }
}

/// What writes to the topics and streams of buses that keep their events there.
fn keepers(config: &Config, window: Window, feed: &Feed) -> Result<Keepers, Failed> {
    let event_bytes = config.limits.event_bytes.0 + api::ENVELOPE_BYTES as u64;
    let mut keepers = Keepers::new(event_bytes, window, config.server.accept_timeout.0, &feed.metrics);
    for bus in config.kept_by_brokers() {
        let Some((name, source)) = config.kept_sources(bus).next() else { continue };
        let refused = |why: String| Failed::new(Exit::Config, format!("source {name}: {why}"));
        if let Some(kafka) = &source.kafka {
            let client = clients::kafka(&kafka.brokers, kafka.sasl.as_ref(), kafka.tls.as_ref(), &kafka.properties);
            let topic = kafka.topics.first().map_or("", String::as_str);
            keepers.topic(bus, client, topic).map_err(refused)?;
        } else if let Some(nats) = &source.nats {
            let client = clients::nats_source(nats).map_err(|fault| refused(fault.message))?;
            let (stream, subject) = (nats.stream.as_deref(), nats.subject.as_deref());
            let opened = keepers.stream(bus, &client, stream.unwrap_or_default(), subject.unwrap_or_default());
            feed.runtime.block_on(opened).map_err(refused)?;
        }
    }
    Ok(keepers)
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
    (view, registry): (&Arc<ArcSwap<View>>, &Arc<Registry>),
    hooks: &HashMap<String, Hook>,
) -> inlet::Known {
    let routed: HashMap<Arc<str>, Arc<SourceInfo>> =
        hooks.values().map(|hook| (Arc::clone(&hook.routed.name), Arc::clone(&hook.routed))).collect();
    let event_bytes = event_bytes(config);
    let (identity, view, registry) = (identity.clone(), Arc::clone(view), Arc::clone(registry));
    Box::new(move |source, bus| match routed.get(source) {
        Some(info) => Some(Arc::clone(info)),
        None => service::known(&registry.made(), (source, bus), &identity, event_bytes + api::ENVELOPE_BYTES)
            .map(Arc::new)
            .filter(|_| view.load().catalog.has_bus(bus))
            .or_else(|| {
                view.load().catalog.has_bus(bus).then(|| Arc::new(api::put_source(bus, event_bytes, &identity)))
            }),
    })
}

/// Puts records of functions on their way, by the journal.
fn publish(config: &Config, identity: &Identity, view: &Arc<ArcSwap<View>>, inlet: &Inlet) -> Publish {
    let (event_bytes, patience) = (event_bytes(config), config.server.accept_timeout.0);
    let (identity, view, inlet) = (identity.clone(), Arc::clone(view), inlet.clone());
    Arc::new(move |record: Record| {
        let ((account, region), _) = identity.split_bus(record.from.trim_start_matches(TWIN));
        let arn = match &record.to {
            Destination::Bus(bus) => plan::arn((account, region), &format!("event-bus/{bus}")),
            Destination::Target(target) => target_arn(target),
        };
        let head = Head {
            id: &record.id,
            detail_type: record.detail_type,
            source: "lambda",
            account,
            time: &time::iso_seconds(time::wall_millis()),
            region,
        };
        let event = head.event(&[&arn, &target_arn(&record.function)], &record.detail);
        let scope = Scope { account: account.to_owned(), region: region.to_owned() };
        let info = Arc::new(match &record.to {
            Destination::Bus(bus) => {
                let route = Resources::route(&view.load().catalog, &Scope::from(&identity), &scope, bus);
                api::put_source(route.as_ref().unwrap_or(bus), event_bytes, &identity)
            }
            Destination::Target(target) => {
                let rule = Destination::rule_name(target);
                service::only_for(&rule, DEFAULT_BUS, &identity, event_bytes + api::ENVELOPE_BYTES)
            }
        });
        let (inlet, id) = (inlet.clone(), record.id.as_str().into());
        Box::pin(async move {
            let deadline = tokio::time::Instant::now() + patience;
            let kept = inlet.keep(Arrival { info, id, event, trace: None }, deadline).await;
            kept.map_err(|why| why.to_string())
        })
    })
}

pub(super) fn event_bytes(config: &Config) -> usize {
    usize::try_from(config.limits.event_bytes.0).unwrap_or(usize::MAX)
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
