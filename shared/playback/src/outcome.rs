//! How a record ends: every record that `process`, `retry` or `forward` receives ends in exactly one [`Outcome`].

/// Why a record can never be applied: it goes to the dead-letter queue with its bytes.
/// [`Reason::as_str`] is a metric dimension and part of the dead letter, and never changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reason {
    /// The bytes are no protobuf `Envelope` (or not even there, or not base64 where they have to be).
    NotAnEnvelope,
    /// The envelope's schema version is newer than this code; it is not guessed.
    UnknownSchemaVersion,
    /// The envelope parses, but a field breaks the contract.
    InvalidEnvelope,
    /// The stored view that the record belongs to cannot be read.
    CorruptView,
    /// It was worth another try each time, and now it was the last one.
    AttemptsExhausted,
    /// A message of the queue `retry` that is neither a letter nor about a batch that Lambda gave up.
    UnreadableMessage,
}

impl Reason {
    /// All reasons.
    pub const ALL: [Reason; 6] = [
        Reason::NotAnEnvelope,
        Reason::UnknownSchemaVersion,
        Reason::InvalidEnvelope,
        Reason::CorruptView,
        Reason::AttemptsExhausted,
        Reason::UnreadableMessage,
    ];

    /// The stable name.
    pub const fn as_str(self) -> &'static str {
        match self {
            Reason::NotAnEnvelope => "not_an_envelope",
            Reason::UnknownSchemaVersion => "unknown_schema_version",
            Reason::InvalidEnvelope => "invalid_envelope",
            Reason::CorruptView => "corrupt_view",
            Reason::AttemptsExhausted => "attempts_exhausted",
            Reason::UnreadableMessage => "unreadable_message",
        }
    }
}

/// Why a record could not be applied this time and is worth another try.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Cause {
    /// The store asked for less.
    StoreThrottled,
    /// The store did not answer, or answered with an error of its own.
    StoreUnavailable,
    /// Other writers won every race for the item.
    LostRaces,
    /// The stored view was written by newer code; while a deployment is under way this passes.
    NewerView,
    /// The dead-letter queue did not take the record.
    DeadLetterUnavailable,
    /// The queue `retry` did not take the record.
    RetryUnavailable,
    /// It is poison among so much that could not be applied that nothing is diverted.
    HeldBack,
    /// The object with the batch that Lambda gave up could not be had.
    ObjectUnavailable,
    /// The region that folds the session did not take the record.
    RegionUnavailable,
}

impl Cause {
    /// All causes.
    pub const ALL: [Cause; 9] = [
        Cause::StoreThrottled,
        Cause::StoreUnavailable,
        Cause::LostRaces,
        Cause::NewerView,
        Cause::DeadLetterUnavailable,
        Cause::RetryUnavailable,
        Cause::HeldBack,
        Cause::ObjectUnavailable,
        Cause::RegionUnavailable,
    ];

    /// The stable name, a metric dimension.
    pub const fn as_str(self) -> &'static str {
        match self {
            Cause::StoreThrottled => "store_throttled",
            Cause::StoreUnavailable => "store_unavailable",
            Cause::LostRaces => "lost_races",
            Cause::NewerView => "newer_view",
            Cause::DeadLetterUnavailable => "dead_letter_unavailable",
            Cause::RetryUnavailable => "retry_unavailable",
            Cause::HeldBack => "held_back",
            Cause::ObjectUnavailable => "object_unavailable",
            Cause::RegionUnavailable => "region_unavailable",
        }
    }
}

/// Events of a record, by what the fold made of them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Sequence numbers that the view had not seen.
    pub applied: u64,
    /// Sequence numbers that it had.
    pub duplicate: u64,
}

impl std::ops::AddAssign for Counts {
    fn add_assign(&mut self, other: Self) {
        self.applied += other.applied;
        self.duplicate += other.duplicate;
    }
}

/// How one record ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// All its events are in their views.
    Applied(Counts),
    /// It is on the queue `inbound` of the region that folds its session.
    Forwarded {
        /// How many events it holds.
        events: u64,
    },
    /// It is on the queue `retry`, to be applied again.
    Retry {
        /// Why.
        cause: Cause,
        /// How many events it holds.
        events: u64,
    },
    /// It is in the dead-letter queue; `events` of it could be told apart (0 when the bytes are no envelope).
    DeadLetter {
        /// Why.
        reason: Reason,
        /// How many events it held.
        events: u64,
    },
    /// It is a shadow and could not be folded: it is forgotten, since what is only a trial must not hold up or crowd out anything.
    Drop {
        /// How many events it held.
        events: u64,
    },
    /// Nothing was done that counts; it must be delivered again.
    Redeliver(Cause),
}

impl Outcome {
    /// Whether the record is safe elsewhere, so that where it came from it may be forgotten.
    pub const fn is_durable(&self) -> bool {
        !matches!(self, Outcome::Redeliver(_))
    }
}
