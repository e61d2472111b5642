//! Messages that a stream removed before its consumer read them, from what the server says of both.

use async_nats::jetstream::consumer;
use async_nats::jetstream::stream;

/// What is known of one consumer's losses. It counts no loss that was none; it may miss some while another instance has
/// many messages given to it again, and with a filter those that come and go between two questions.
#[derive(Default)]
pub(super) struct Removals {
    /// Positions when we began: of the stream and of the consumer.
    base: Option<(u64, u64)>,
    /// Messages given to us again: they count for the consumer, and not for the stream.
    redelivered: u64,
    /// Losses told so far.
    told: u64,
    /// With a filter: what waited when the server was last asked.
    waiting: Option<Waiting>,
}

struct Waiting {
    /// The stream's last message then.
    last: u64,
    messages: u64,
    /// The consumer's position then.
    read: u64,
}

impl Removals {
    /// Notes a message that came again.
    pub fn came_again(&mut self) {
        self.redelivered += 1;
    }

    /// How many more messages are lost.
    pub fn more(&mut self, stream: &stream::Info, consumer: &consumer::Info) -> u64 {
        let (first, delivered) = (stream.state.first_sequence, &consumer.delivered);
        let whole = consumer.config.filter_subject.is_empty() && consumer.config.filter_subjects.is_empty();
        // A stream that keeps the last message of each subject is meant to forget the others.
        if stream.config.max_messages_per_subject > 0 {
            return 0;
        }
        if !whole {
            let waiting = Waiting {
                last: stream.state.last_sequence,
                messages: consumer.num_pending,
                read: delivered.consumer_sequence,
            };
            let Some(before) = self.waiting.replace(waiting) else { return 0 };
            // Everything that waited then has been read or removed since.
            let gone = first > before.last;
            let read = delivered.consumer_sequence.saturating_sub(before.read);
            return if gone { before.messages.saturating_sub(read) } else { 0 };
        }
        let (from, count) = *self.base.get_or_insert((delivered.stream_sequence, delivered.consumer_sequence));
        let passed = delivered.stream_sequence.max(first.saturating_sub(1)).saturating_sub(from);
        let read = delivered.consumer_sequence.saturating_sub(count).saturating_sub(self.redelivered);
        let more = passed.saturating_sub(read).saturating_sub(self.told);
        self.told += more;
        more
    }
}
