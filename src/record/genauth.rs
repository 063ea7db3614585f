//! A GenAuth user action as the API writes it: `UserActionLog` in the vendor's OpenAPI document.

use super::field::object;
use super::time::{self, Stamp};

object! {
    /// One user action. Every field may be missing or of another type than documented.
    UserAction {
        /// Who acted.
        user_id: "userId",
        /// The user's present name, looked up at each read.
        user_display_name: "userDisplayName",
        /// The user's present picture, looked up at each read.
        user_avatar: "userAvatar",
        /// The user's present count of logins, looked up at each read.
        user_logins_count: "userLoginsCount",
        /// The application in which the user acted.
        app_id: "appId",
        /// The application's present name, looked up at each read.
        app_name: "appName",
        /// The application's present logo, looked up at each read.
        app_logo: "appLogo",
        /// The application's present login page, looked up at each read.
        app_login_url: "appLoginUrl",
        /// Where the request came from.
        client_ip: "clientIp",
        /// What the user did.
        event_type: "eventType",
        /// What happened, in words, often Chinese.
        event_detail: "eventDetail",
        /// Whether it succeeded.
        success: "success",
        /// The client's `User-Agent` header.
        user_agent: "userAgent",
        /// A [`UserAgent`], parsed afresh at each read.
        parsed_user_agent: "parsedUserAgent",
        /// A [`Geo`], looked up at each read.
        geoip: "geoip",
        /// When, as `2022-09-20T08:55:00.188+0800`.
        timestamp: "timestamp",
        /// Which request wrote it; one request may write several records.
        request_id: "requestId",
    }
}

impl UserAction<'_> {
    /// When it happened, if it says so readably: as documented, or as a number or a text of one.
    #[must_use]
    pub fn time(&self) -> Option<Stamp> {
        let written = self.timestamp.text()?;
        time::parse(&written).or_else(|| Some(Stamp { instant: time::from_number(written.trim())?, offset: 0 }))
    }
}

object! {
    /// What GenAuth makes of a `User-Agent` header.
    UserAgent {
        /// Such as `Desktop`.
        device: "device",
        /// The browser, which the vendor's Node SDK calls `name`.
        browser: "browser" | "name",
        /// The operating system.
        os: "os",
    }
}

object! {
    /// Where GenAuth places an IP address. Null or partial for private addresses.
    Geo {
        /// A [`Location`].
        location: "location",
        /// Such as `China`.
        country_name: "country_name",
        /// ISO 3166-1 alpha-2.
        country_code2: "country_code2",
        /// ISO 3166-1 alpha-3.
        country_code3: "country_code3",
        /// Such as `Beijing`.
        region_name: "region_name",
        /// The part of ISO 3166-2 after the country.
        region_code: "region_code",
        /// Such as `Beijing`.
        city_name: "city_name",
        /// Such as `AS`.
        continent_code: "continent_code",
        /// Such as `Asia/Shanghai`.
        timezone: "timezone",
    }
}

object! {
    /// Degrees, as numbers or as strings.
    Location {
        /// Degrees east.
        lon: "lon",
        /// Degrees north.
        lat: "lat",
    }
}
