//! How a unit ends: every unit that `process`, `retry` or `forward` receives ends in exactly one
//! [`Outcome`].

/// Why a unit can never be applied: it is dead-lettered with its bytes.
/// [`Reason::as_str`] is a metric dimension and part of the dead letter, and never changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reason {
    /// The bytes are not a protobuf `Envelope`, or are missing, or are not base64 where they have
    /// to be.
    NotAnEnvelope,
    /// The envelope's schema version stayed newer than this code; it is not guessed.
    UnknownSchemaVersion,
    /// The envelope parses, but a field breaks the contract.
    InvalidEnvelope,
    /// The stored view of its session cannot be read.
    CorruptView,
    /// With its events, the view of its session would have too many ranges.
    ViewTooLarge,
    /// It was worth another try each time, and this was the last one.
    AttemptsExhausted,
    /// A message of the queue `retry` that is neither a letter nor the notification of a batch that
    /// Lambda gave up on.
    UnreadableMessage,
}

impl Reason {
    /// All reasons.
    pub const ALL: [Reason; 7] = [
        Reason::NotAnEnvelope,
        Reason::UnknownSchemaVersion,
        Reason::InvalidEnvelope,
        Reason::CorruptView,
        Reason::ViewTooLarge,
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
            Reason::ViewTooLarge => "view_too_large",
            Reason::AttemptsExhausted => "attempts_exhausted",
            Reason::UnreadableMessage => "unreadable_message",
        }
    }
}

/// Why a unit could not be applied this time and is worth another try.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Cause {
    /// The store throttled us.
    StoreThrottled,
    /// The store did not answer, or answered with an internal error.
    StoreUnavailable,
    /// The store refused the item.
    StoreRefused,
    /// Other writers won each race for the item.
    LostRaces,
    /// Newer code wrote the stored view. This passes when the deployment is complete.
    NewerView,
    /// Newer code wrote the envelope. This passes when the deployment is complete.
    NewerEnvelope,
    /// The queue `dead-letter` did not take it.
    DeadLetterUnavailable,
    /// The queue `retry` did not take it.
    RetryUnavailable,
    /// The queue `retry` did not answer, and may have it. Then it ends twice.
    RetryUnanswered,
    /// It is poison in a batch that mostly fails, so nothing is diverted.
    HeldBack,
    /// The object that holds the batch is unavailable.
    ObjectUnavailable,
    /// The region that folds the session did not take it.
    RegionUnavailable,
}

impl Cause {
    /// All causes.
    pub const ALL: [Cause; 12] = [
        Cause::StoreThrottled,
        Cause::StoreUnavailable,
        Cause::StoreRefused,
        Cause::LostRaces,
        Cause::NewerView,
        Cause::NewerEnvelope,
        Cause::DeadLetterUnavailable,
        Cause::RetryUnavailable,
        Cause::RetryUnanswered,
        Cause::HeldBack,
        Cause::ObjectUnavailable,
        Cause::RegionUnavailable,
    ];

    /// The stable name, a metric dimension.
    pub const fn as_str(self) -> &'static str {
        match self {
            Cause::StoreThrottled => "store_throttled",
            Cause::StoreUnavailable => "store_unavailable",
            Cause::StoreRefused => "store_refused",
            Cause::LostRaces => "lost_races",
            Cause::NewerView => "newer_view",
            Cause::NewerEnvelope => "newer_envelope",
            Cause::DeadLetterUnavailable => "dead_letter_unavailable",
            Cause::RetryUnavailable => "retry_unavailable",
            Cause::RetryUnanswered => "retry_unanswered",
            Cause::HeldBack => "held_back",
            Cause::ObjectUnavailable => "object_unavailable",
            Cause::RegionUnavailable => "region_unavailable",
        }
    }
}

impl Cause {
    /// Whether the record is only unlucky: the failure is that of something it needs, and passes
    /// when that is repaired. Then its attempts say nothing about the record, and only its age
    /// bounds them. The other failures may be the record's own.
    pub const fn is_outage(self) -> bool {
        match self {
            Cause::StoreThrottled
            | Cause::StoreUnavailable
            | Cause::NewerView
            | Cause::NewerEnvelope
            | Cause::DeadLetterUnavailable
            | Cause::RetryUnavailable
            | Cause::RetryUnanswered
            | Cause::HeldBack
            | Cause::ObjectUnavailable
            | Cause::RegionUnavailable => true,
            Cause::StoreRefused | Cause::LostRaces => false,
        }
    }
}

/// Events of a unit, by what the fold made of them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Sequence numbers that were new to the view.
    pub applied: u64,
    /// Sequence numbers that changed nothing: the view had seen them, or the member has erased it.
    pub duplicate: u64,
}

impl std::ops::AddAssign for Counts {
    fn add_assign(&mut self, other: Self) {
        self.applied += other.applied;
        self.duplicate += other.duplicate;
    }
}

/// How one unit ended.
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
    /// It is on the queue `dead-letter`.
    DeadLetter {
        /// Why.
        reason: Reason,
        /// How many events it held.
        events: u64,
    },
    /// It is a shadow and could not be folded: it is forgotten. A trial must not delay or crowd out
    /// anything.
    Drop {
        /// How many events it held.
        events: u64,
    },
    /// Nothing that counts was done: it stays at its source, which delivers it again.
    Redeliver(Cause),
}

impl Outcome {
    /// Whether the unit is safe elsewhere, so its source may forget it.
    pub const fn is_durable(&self) -> bool {
        !matches!(self, Outcome::Redeliver(_))
    }
}
