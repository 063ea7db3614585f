//! GenAuth user actions.

use super::kind::Class::{AccountChange, Authentication, WebResourcesActivity};
use super::kind::{Class, Kind, OTHER};
use super::{App, Client, Coordinates, Event, Geo, Problem, Text, User};
use crate::record::field::{Field, parse};
use crate::record::genauth::{Geo as GeoRecord, Location, UserAction, UserAgent};

type Words = &'static [&'static str];

const fn row(
    name: &'static str,
    class: Class,
    activity: u32,
    activity_name: &'static str,
    category: Words,
    types: Words,
) -> Kind {
    Kind { event_name: name, class, activity, activity_name, category, types }
}

const AUTHENTICATION: Words = &["authentication"];
const SESSION: Words = &["authentication", "session"];
const IAM: Words = &["iam"];
const CHANGE: Words = &["user", "change"];

/// Every event type that the API documents (`UserActionLogDto.eventType`). OCSF 1.8.0 has no activity for a changed
/// profile (1.9 will), so those are "Other" changes of an account.
#[rustfmt::skip]
const KINDS: [(&str, Kind); 19] = [
    ("login",                  row("genauth.user.login",                     Authentication, 1,     "Logon",              AUTHENTICATION, &["start"])),
    ("logout",                 row("genauth.user.logout",                    Authentication, 2,     "Logoff",             SESSION,        &["end"])),
    ("verifyMfa",              row("genauth.user.verify_mfa",                Authentication, OTHER, "Other",              AUTHENTICATION, &["info"])),
    ("verifyFirstLogin",       row("genauth.user.verify_first_login",        Authentication, OTHER, "Other",              AUTHENTICATION, &["info"])),
    ("refreshUserTokenBySelf", row("genauth.user.refresh_token",             Authentication, OTHER, "Other",              SESSION,        &["info"])),
    ("register",               row("genauth.user.register",                  AccountChange,  1,     "Create",             IAM,            &["user", "creation"])),
    ("deleteAccount",          row("genauth.user.delete_account",            AccountChange,  6,     "Delete",             IAM,            &["user", "deletion"])),
    ("updateUserPassword",     row("genauth.user.update_password",           AccountChange,  3,     "Password Change",    IAM,            CHANGE)),
    ("bindMfa",                row("genauth.user.bind_mfa",                  AccountChange,  10,    "MFA Factor Enable",  IAM,            CHANGE)),
    ("unbindMFA",              row("genauth.user.unbind_mfa",                AccountChange,  11,    "MFA Factor Disable", IAM,            CHANGE)),
    ("updateUserProfile",      row("genauth.user.update_profile",            AccountChange,  OTHER, "Other",              IAM,            CHANGE)),
    ("updateUserPrefile",      row("genauth.user.update_profile",            AccountChange,  OTHER, "Other",              IAM,            CHANGE)), // so spelled by the API
    ("updateUserEmail",        row("genauth.user.update_email",              AccountChange,  OTHER, "Other",              IAM,            CHANGE)),
    ("updateUserPhone",        row("genauth.user.update_phone",              AccountChange,  OTHER, "Other",              IAM,            CHANGE)),
    ("bindEmail",              row("genauth.user.bind_email",                AccountChange,  OTHER, "Other",              IAM,            CHANGE)),
    ("bindPhone",              row("genauth.user.bind_phone",                AccountChange,  OTHER, "Other",              IAM,            CHANGE)),
    ("unbindEmail",            row("genauth.user.unbind_email",              AccountChange,  OTHER, "Other",              IAM,            CHANGE)),
    ("unbindPhone",            row("genauth.user.unbind_phone",              AccountChange,  OTHER, "Other",              IAM,            CHANGE)),
    ("securityResourceAccess", row("genauth.user.security_resource_access",  WebResourcesActivity, 2, "Read",             &["api"],       &["access"])),
];

/// An event type that is not documented: known to be an act of a user of an identity service, no more.
const UNKNOWN: &Kind = &row("genauth.user.other", AccountChange, OTHER, "Other", IAM, &["info"]);

fn kind(event_type: &str) -> &'static Kind {
    KINDS.iter().find(|(name, _)| *name == event_type).map_or(UNKNOWN, |(_, kind)| kind)
}

/// Fills in what the record says; `None` when it is no record.
pub(super) fn fill<'a>(event: &mut Event<'a>, raw: &'a str) -> Option<()> {
    let record: UserAction<'a> = parse(raw)?;
    event.action = record.event_type.text();
    event.kind = event.action.as_deref().map_or(UNKNOWN, kind);
    event.written_time = record.timestamp.text();
    event.utc_offset = record.time().map(|stamp| stamp.offset);
    if event.utc_offset.is_none() {
        event.problem = Some(Problem::NoTime);
    }
    event.success = record.success.truth();
    event.detail = record.event_detail.text();
    event.request_id = record.request_id.text();
    event.user = User {
        id: record.user_id.text(),
        display_name: record.user_display_name.text(),
        avatar: record.user_avatar.text(),
        logins_count: record.user_logins_count.integer(),
        ..User::default()
    };
    event.app = App {
        id: record.app_id.text(),
        name: record.app_name.text(),
        logo: record.app_logo.text(),
        login_url: record.app_login_url.text(),
    };
    let agent: UserAgent<'a> = record.parsed_user_agent.object().unwrap_or_default();
    event.client = Client {
        user_agent: record.user_agent.text(),
        device: agent.device.text(),
        browser: agent.browser.text(),
        os: agent.os.text(),
        geo: geo(record.geoip),
        ..Client::at(record.client_ip.text())
    };
    Some(())
}

fn geo(field: Field<'_>) -> Geo<'_> {
    let geo: GeoRecord<'_> = field.object().unwrap_or_default();
    let location: Location<'_> = geo.location.object().unwrap_or_default();
    Geo {
        coordinates: Coordinates::new(location.lat.number(), location.lon.number()),
        country_name: geo.country_name.text(),
        country_code: geo.country_code2.text().map(upper_case),
        country_code3: geo.country_code3.text(),
        region_name: geo.region_name.text(),
        region_code: geo.region_code.text(),
        city: geo.city_name.text(),
        continent_code: geo.continent_code.text(),
        timezone: geo.timezone.text(),
    }
}

fn upper_case(text: Text<'_>) -> Text<'_> {
    if text.bytes().any(|byte| byte.is_ascii_lowercase()) { text.to_ascii_uppercase().into() } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_event_type_has_its_ocsf_type_and_ecs_words() {
        let golden = [
            ("login", 300_201, "authentication", "start"),
            ("logout", 300_202, "authentication session", "end"),
            ("verifyMfa", 300_299, "authentication", "info"),
            ("verifyFirstLogin", 300_299, "authentication", "info"),
            ("refreshUserTokenBySelf", 300_299, "authentication session", "info"),
            ("register", 300_101, "iam", "user creation"),
            ("deleteAccount", 300_106, "iam", "user deletion"),
            ("updateUserPassword", 300_103, "iam", "user change"),
            ("bindMfa", 300_110, "iam", "user change"),
            ("unbindMFA", 300_111, "iam", "user change"),
            ("updateUserProfile", 300_199, "iam", "user change"),
            ("updateUserPrefile", 300_199, "iam", "user change"),
            ("updateUserEmail", 300_199, "iam", "user change"),
            ("updateUserPhone", 300_199, "iam", "user change"),
            ("bindEmail", 300_199, "iam", "user change"),
            ("bindPhone", 300_199, "iam", "user change"),
            ("unbindEmail", 300_199, "iam", "user change"),
            ("unbindPhone", 300_199, "iam", "user change"),
            ("securityResourceAccess", 600_102, "api", "access"),
            ("somethingNew", 300_199, "iam", "info"),
            ("LOGIN", 300_199, "iam", "info"),
        ];
        for (event_type, type_uid, category, types) in golden {
            let kind = kind(event_type);
            assert_eq!(kind.type_uid(), type_uid, "{event_type}");
            assert_eq!(kind.category.join(" "), category, "{event_type}");
            assert_eq!(kind.types.join(" "), types, "{event_type}");
        }
        for (event_type, kind) in &KINDS {
            assert!(golden.iter().any(|row| row.0 == *event_type), "{event_type} has a golden row");
            assert!(kind.event_name.starts_with("genauth.user."), "{event_type}");
        }
    }
}
