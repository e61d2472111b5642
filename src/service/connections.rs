//! Connections that wait for their first token: each is asked for beside the writer, and what comes of it is a note to it.
//!
//! Promises: nothing that waits for the network holds anything up; a connection that was changed meanwhile is left as it
//! is; one that still waits after a restart is asked for again. Leaves to others: asking (`deliver`).

use super::Service;
use crate::deliver::Authority;
use crate::resources::Waiting;
use crate::time;
use crossbeam_channel::{Receiver, Sender, bounded};
use std::collections::BTreeMap;
use std::sync::PoisonError;
use std::time::{Duration, Instant};

/// Tokens that are asked for at once.
const TOGETHER: usize = 16;

/// How long it is waited after what could not be written down.
const AGAIN: Duration = Duration::from_secs(5);

/// A connection, and whether its token has come.
type Answer = (Waiting, Result<(), String>);

/// Connections that wait, or have waited.
pub struct Connections {
    /// What was asked for, kept for the deliveries that share the token, until the connection changes.
    asked: BTreeMap<Waiting, Option<Authority>>,
    under_way: usize,
    /// What came and is to be written down, and not before when.
    unwritten: Vec<Answer>,
    pause: Option<Instant>,
    answers: (Sender<Answer>, Receiver<Answer>),
    /// What was seen last.
    version: Option<u64>,
}

impl Connections {
    /// None yet.
    pub fn new() -> Self {
        Self {
            asked: BTreeMap::new(),
            under_way: 0,
            unwritten: Vec::new(),
            pause: None,
            answers: bounded(TOGETHER),
            version: None,
        }
    }

    /// Asks for the tokens that are waited for, and notes what came.
    pub fn look(&mut self, service: &Service) {
        while let Ok(answer) = self.answers.1.try_recv() {
            self.under_way -= 1;
            self.version = None;
            self.unwritten.push(answer);
        }
        if self.pause.is_none_or(|until| time::now() >= until) {
            self.unwritten.retain(|(waiting, token)| !note(service, waiting.clone(), token.clone()));
            self.pause = (!self.unwritten.is_empty()).then(|| time::now() + AGAIN);
        }
        let version = service.registry.version();
        if self.version == Some(version) {
            return;
        }
        let made = service.registry.made();
        self.asked.retain(|waiting, _| made.is_unchanged(waiting));
        let new: Vec<_> = made.authorizing().filter(|(waiting, _)| !self.asked.contains_key(waiting)).collect();
        drop(made);
        self.version = Some(version);
        for (waiting, oauth) in new {
            if self.under_way == TOGETHER {
                // The next answer makes room.
                return;
            }
            let mut outlets = service.outlets.lock().unwrap_or_else(PoisonError::into_inner);
            let authority = oauth.and_then(|oauth| outlets.authority(&oauth));
            drop(outlets);
            self.asked.insert(waiting.clone(), authority.as_ref().ok().cloned());
            self.under_way += 1;
            let answers = self.answers.0.clone();
            service.runtime.spawn(async move {
                let token = match authority {
                    Ok(authority) => authority.ask().await,
                    Err(why) => Err(why),
                };
                // There is room for every one that is under way; when nobody listens, the process ends.
                answers.try_send((waiting, token)).unwrap_or_default();
            });
        }
    }
}

/// Writes down what became of a connection; whether that could be.
fn note(service: &Service, waiting: Waiting, token: Result<(), String>) -> bool {
    if let Err(why) = &token {
        tracing::warn!("a connection is not authorised: {why}");
    }
    let now = time::wall_millis();
    let noted = service.registry.note_anew(move |made| made.authorized(&waiting, token, now).into_iter().collect());
    noted.inspect_err(|why| tracing::error!("what became of a connection is not written down: {why}")).is_ok()
}
