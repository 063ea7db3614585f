//! Record → event: what happened, by whom, from where, in words that no source owns.
//!
//! Pure: no I/O, no clock.

use std::borrow::Cow;
use std::net::IpAddr;

use crate::event::{Admitted, EventId, Millis, Source, StreamContext};

mod genauth;
mod kind;
mod scloud;

pub use kind::{Class, Kind, OTHER};

/// Text of the record, borrowed wherever the record spells it without escapes.
pub type Text<'a> = Cow<'a, str>;

/// A normalized record with an id. What the record does not say is `None`, or empty.
#[derive(Debug, Clone)]
pub struct Event<'a> {
    /// From content: see [`EventId::new`].
    pub id: EventId,
    /// Which stream it came from.
    pub stream: &'a StreamContext,
    /// When it happened; for a record that does not say so readably, the start of the window that it came from.
    pub time: Millis,
    /// The time as the source wrote it.
    pub written_time: Option<Text<'a>>,
    /// Minutes east of UTC of the clock that wrote the time.
    pub utc_offset: Option<i32>,
    /// Whether its window had already been read completely without it.
    pub late: bool,
    /// Which of its twins it is, from 0.
    pub ordinal: u32,
    /// The record's own text, untouched (bytes that are not UTF-8 replaced).
    pub raw: Text<'a>,
    /// What kept the record from being read in full.
    pub problem: Option<Problem>,

    /// What was done, in the source's own word: GenAuth's event type, SCloud's API operation.
    pub action: Option<Text<'a>>,
    /// What that is in the schemas' words.
    pub kind: &'static Kind,
    /// Whether it succeeded.
    pub success: Option<bool>,
    /// What happened, in the source's own sentence.
    pub detail: Option<Text<'a>>,
    /// The source's id of the request; several events may share it.
    pub request_id: Option<Text<'a>>,

    /// Who did it.
    pub user: User<'a>,
    /// The public half of the key that signed the request.
    pub access_key: Option<Text<'a>>,
    /// From where.
    pub client: Client<'a>,

    /// In which application.
    pub app: App<'a>,
    /// In which region of the cloud.
    pub region: Option<Text<'a>>,
    /// To what.
    pub resources: Vec<Resource<'a>>,
}

/// What kept a record from being read in full. It is delivered all the same, with its text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Problem {
    /// The text is not a JSON object.
    NotARecord,
    /// The record has no time that can be read.
    NoTime,
}

impl Problem {
    /// The name used in events: one of a closed set.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::NotARecord => "not_a_record",
            Self::NoTime => "no_time",
        }
    }

    /// The same for a human reader.
    #[must_use]
    pub const fn message(self) -> &'static str {
        match self {
            Self::NotARecord => {
                "the record is not a JSON object; its time is the start of the window that it was read in"
            }
            Self::NoTime => "the record has no readable time; its time is the start of the window that it was read in",
        }
    }
}

/// Who acted.
#[derive(Debug, Clone, Default)]
pub struct User<'a> {
    /// Unique and lasting.
    pub id: Option<Text<'a>>,
    /// What the user is called in the source.
    pub name: Option<Text<'a>>,
    /// What the user is called by people.
    pub display_name: Option<Text<'a>>,
    /// The e-mail address.
    pub email: Option<Text<'a>>,
    /// Where a picture is.
    pub avatar: Option<Text<'a>>,
    /// How often the user had logged in when the record was read.
    pub logins_count: Option<i64>,
}

impl<'a> User<'a> {
    /// The best that is known to tell this user from others.
    #[must_use]
    pub fn handle(&self) -> Option<&Text<'a>> {
        self.id.as_ref().or(self.name.as_ref()).or(self.email.as_ref())
    }
}

/// Where an act came from.
#[derive(Debug, Clone, Default)]
pub struct Client<'a> {
    /// The address as the source gives it: usually an IP address.
    pub address: Option<Text<'a>>,
    /// The address, if it is an IP address.
    pub ip: Option<IpAddr>,
    /// The `User-Agent` header.
    pub user_agent: Option<Text<'a>>,
    /// The kind of device, such as `Desktop`.
    pub device: Option<Text<'a>>,
    /// The browser.
    pub browser: Option<Text<'a>>,
    /// The operating system.
    pub os: Option<Text<'a>>,
    /// Where the address is.
    pub geo: Geo<'a>,
}

impl<'a> Client<'a> {
    fn at(address: Option<Text<'a>>) -> Self {
        Self { ip: address.as_deref().and_then(|address| address.trim().parse().ok()), address, ..Self::default() }
    }
}

/// Where an IP address is thought to be.
#[derive(Debug, Clone, Default)]
pub struct Geo<'a> {
    /// The point.
    pub coordinates: Option<Coordinates>,
    /// The country's name.
    pub country_name: Option<Text<'a>>,
    /// ISO 3166-1 alpha-2.
    pub country_code: Option<Text<'a>>,
    /// ISO 3166-1 alpha-3.
    pub country_code3: Option<Text<'a>>,
    /// The region's name.
    pub region_name: Option<Text<'a>>,
    /// The region's code within the country.
    pub region_code: Option<Text<'a>>,
    /// The city's name.
    pub city: Option<Text<'a>>,
    /// Two letters, such as `AS`.
    pub continent_code: Option<Text<'a>>,
    /// An IANA time zone.
    pub timezone: Option<Text<'a>>,
}

/// A point on Earth.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Coordinates {
    /// Degrees north, −90 to 90.
    pub lat: f64,
    /// Degrees east, −180 to 180.
    pub lon: f64,
}

impl Coordinates {
    /// Refuses what is no point: an index of places would refuse the whole event for it.
    fn new(lat: Option<f64>, lon: Option<f64>) -> Option<Self> {
        let (lat, lon) = (lat?, lon?);
        (lat.abs() <= 90.0 && lon.abs() <= 180.0).then_some(Self { lat, lon })
    }
}

/// The application in which a user acted.
#[derive(Debug, Clone, Default)]
pub struct App<'a> {
    /// Unique and lasting.
    pub id: Option<Text<'a>>,
    /// Its name.
    pub name: Option<Text<'a>>,
    /// Where its logo is.
    pub logo: Option<Text<'a>>,
    /// Where its login page is.
    pub login_url: Option<Text<'a>>,
}

/// What an operation was about: an id, a name, or both.
#[derive(Debug, Clone)]
pub struct Resource<'a> {
    /// Unique and lasting.
    pub id: Option<Text<'a>>,
    /// Its name when the record was read.
    pub name: Option<Text<'a>>,
}

/// Says in neutral words what the record says. Never fails: what cannot be read becomes the event's
/// [`Problem`], and the text stays with it.
#[must_use]
pub fn normalize<'a>(stream: &'a StreamContext, admitted: &'a Admitted) -> Event<'a> {
    let mut event = Event {
        id: admitted.id,
        stream,
        time: admitted.time,
        written_time: None,
        utc_offset: None,
        late: admitted.late,
        ordinal: admitted.ordinal,
        raw: text(&admitted.raw),
        problem: None,
        action: None,
        kind: kind::UNREADABLE,
        success: None,
        detail: None,
        request_id: None,
        user: User::default(),
        access_key: None,
        client: Client::default(),
        app: App::default(),
        region: None,
        resources: Vec::new(),
    };
    // What had to be replaced to be text is no record.
    let filled = match (&event.raw, stream.identity.source) {
        (&Cow::Borrowed(raw), Source::Genauth) => genauth::fill(&mut event, raw),
        (&Cow::Borrowed(raw), Source::Scloud) => scloud::fill(&mut event, raw),
        (Cow::Owned(_), _) => None,
    };
    if filled.is_none() {
        event.problem = Some(Problem::NotARecord);
    }
    event
}

fn text(bytes: &[u8]) -> Text<'_> {
    // Lossy reading alone checks a valid text several times slower.
    std::str::from_utf8(bytes).map_or_else(|_| String::from_utf8_lossy(bytes), Cow::Borrowed)
}
