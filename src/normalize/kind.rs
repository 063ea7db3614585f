//! What kinds of acts there are, in the words of the schemas that events are written in.

/// One row of a classification table: what an act is called in each schema.
#[derive(Debug, PartialEq, Eq)]
pub struct Kind {
    /// The OpenTelemetry event name: few values, no dynamic part.
    pub event_name: &'static str,
    /// The OCSF class.
    pub class: Class,
    /// The OCSF `activity_id` within the class.
    pub activity: u32,
    /// The OCSF `activity_name`; [`OTHER`]'s is the source's own word for the act.
    pub activity_name: &'static str,
    /// The ECS `event.category`.
    pub category: &'static [&'static str],
    /// The ECS `event.type`.
    pub types: &'static [&'static str],
}

/// The OCSF `activity_id` of an act that its class has no word for.
pub const OTHER: u32 = 99;

/// An OCSF 1.8.0 event class.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// For what has no other class.
    BaseEvent,
    /// A user's account changed.
    AccountChange,
    /// Someone proved, or stopped proving, who they are.
    Authentication,
    /// A web resource was used.
    WebResourcesActivity,
    /// An API was called.
    ApiActivity,
}

impl Class {
    /// `class_uid`.
    #[must_use]
    pub const fn uid(self) -> u32 {
        match self {
            Self::BaseEvent => 0,
            Self::AccountChange => 3001,
            Self::Authentication => 3002,
            Self::WebResourcesActivity => 6001,
            Self::ApiActivity => 6003,
        }
    }

    /// `class_name`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::BaseEvent => "Base Event",
            Self::AccountChange => "Account Change",
            Self::Authentication => "Authentication",
            Self::WebResourcesActivity => "Web Resources Activity",
            Self::ApiActivity => "API Activity",
        }
    }

    /// `category_uid`, by OCSF's rule the thousands of the class.
    #[must_use]
    pub const fn category(self) -> u32 {
        self.uid() / 1000
    }
}

impl Kind {
    /// OCSF's `type_uid`, by its rule made of class and activity.
    #[must_use]
    pub const fn type_uid(&self) -> u32 {
        self.class.uid() * 100 + self.activity
    }
}

/// A text that is no record.
pub(super) const UNREADABLE: &Kind = &Kind {
    event_name: "trailcast.unreadable_record",
    class: Class::BaseEvent,
    activity: OTHER,
    activity_name: "Other",
    category: &[],
    types: &[],
};
