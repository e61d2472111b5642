//! Faults planted on purpose, so that the fault suite shows that it would see them. They exist only in builds with the
//! feature `planted`, which no release has; `SLUICE_PLANTED` names the one that is on.

use std::sync::OnceLock;

/// The planted faults.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bug {
    /// Offsets count as settled once they are read.
    CommitBeforeAck,
    /// The highest settled offset is committed, gaps or not.
    CommitHighest,
    /// The offset of the last settled record is committed, not the one after it.
    OffByOneCommit,
    /// A failed attempt counts as a good one.
    IgnoreDeliveryError,
    /// What settles after its partition was taken away is committed all the same.
    LateSettle,
    /// The end waits for nothing that is in flight.
    FlushSkipped,
    /// A delivery counts as kept before the retry log has synced it.
    SpillAckIgnored,
    /// A dead letter that its queue does not take is forgotten.
    DropWhenDlqFails,
    /// PutEvents answers before the journal has synced.
    AnswerBeforeSync,
    /// Each attempt has a delivery id of its own.
    IdPerAttempt,
    /// Redirects of HTTP targets are followed.
    RedirectFollowed,
    /// A reload takes effect rule by rule.
    ReloadRuleByRule,
}

/// Whether a fault is on; `false` at compile time without the feature.
#[inline(always)]
pub fn on(bug: Bug) -> bool {
    super::PLANTED && chosen() == Some(format!("{bug:?}").as_str())
}

/// Does what an event asks for in a build for the fault suite: to panic, or to abort the process, where it is routed.
#[inline(always)]
#[expect(clippy::panic, reason = "the event asks for it")]
pub fn obey(event: &[u8]) {
    let asks = |word: &[u8]| memchr::memmem::find(event, word).is_some();
    if super::PLANTED && asks(b"sluice-planted-abort") {
        std::process::abort();
    }
    if super::PLANTED && asks(b"sluice-planted-panic") {
        std::panic::panic_any("an event asked for it");
    }
}

fn chosen() -> Option<&'static str> {
    static CHOSEN: OnceLock<Option<String>> = OnceLock::new();
    CHOSEN.get_or_init(|| std::env::var("SLUICE_PLANTED").ok()).as_deref()
}
