//! Open Cybersecurity Schema Framework 1.8.0.
//!
//! Attributes that are not of an event's class are errors to a strict reader, so what has no place in the class
//! goes under `unmapped`, with trailcast's own facts under `unmapped.trailcast`.

use super::json::Members;
use crate::event::Source;
use crate::normalize::{Class, Event, Geo, OTHER, Problem, Text, User};

const VERSION: &str = "1.8.0";

/// What stands where OCSF wants a name and the record gives none.
const UNKNOWN: &str = "Unknown";

/// `os.type_id` by what the system's name begins with, in lower case.
const SYSTEMS: [(&str, u32); 11] = [
    ("windows phone", 101),
    ("windows mobile", 101),
    ("windows", 100),
    ("linux", 200),
    ("ubuntu", 200),
    ("android", 201),
    ("mac", 300),
    ("os x", 300),
    ("ipados", 302),
    ("ios", 301),
    ("iphone", 301),
];

/// `network_endpoint.type_id` and its caption, by the device's name in lower case.
const DEVICES: [(&str, u32, &str); 6] = [
    ("desktop", 2, "Desktop"),
    ("pc", 2, "Desktop"),
    ("laptop", 3, "Laptop"),
    ("tablet", 4, "Tablet"),
    ("mobile", 5, "Mobile"),
    ("phone", 5, "Mobile"),
];

pub(super) fn members(event: &Event<'_>, raw: Option<&Text<'_>>, to: &mut Members<'_>) {
    let kind = event.kind;
    let (severity_id, severity, status_id, status) = match event.success {
        Some(true) => (1, "Informational", 1, "Success"),
        Some(false) => (2, "Low", 2, "Failure"),
        None => (1, "Informational", 0, UNKNOWN),
    };
    let activity_name = match &event.action {
        Some(action) if kind.activity == OTHER => action,
        _ => kind.activity_name,
    };
    to.put("time", &event.time);
    to.some("timezone_offset", event.utc_offset);
    to.put("category_uid", &kind.class.category());
    to.put("class_uid", &kind.class.uid());
    to.put("class_name", kind.class.name());
    to.put("type_uid", &kind.type_uid());
    to.put("activity_id", &kind.activity);
    to.put("activity_name", activity_name);
    to.put("severity_id", &severity_id);
    to.put("severity", severity);
    to.put("status_id", &status_id);
    to.put("status", status);
    match (event.problem, event.success) {
        (Some(problem), _) => {
            to.put("status_code", problem.name());
            to.put("status_detail", problem.message());
        }
        (None, Some(false)) => to.some("status_detail", event.detail.as_ref()),
        (None, _) => {}
    }
    to.some("message", event.detail.as_ref());
    to.object("metadata", |to| metadata(event, to));
    match kind.class {
        Class::BaseEvent => {}
        Class::Authentication => {
            account(event, to);
            to.object("service", |to| {
                to.some("uid", event.app.id.as_ref());
                match &event.app.name {
                    Some(name) => to.put("name", name),
                    None if event.app.id.is_none() => to.put("name", UNKNOWN),
                    None => {}
                }
            });
            if event.action.as_deref() == Some("verifyMfa") {
                to.put("is_mfa", &true);
            }
        }
        Class::AccountChange => {
            account(event, to);
            match kind.activity {
                OTHER => to.object("user_result", |to| user(&event.user, to)),
                MFA_ENABLE | MFA_DISABLE => to.objects("auth_factors", [UNKNOWN], |to, factor| {
                    to.put("factor_type_id", &0);
                    to.put("factor_type", factor);
                }),
                _ => {}
            }
        }
        Class::WebResourcesActivity => {
            to.object("actor", |to| actor(event, to));
            origin(event, to);
            to.objects("web_resources", [event.app.id.as_ref()], |to, uid| {
                to.some("uid", uid);
                to.put("name", event.detail.as_deref().unwrap_or(UNKNOWN));
            });
        }
        Class::ApiActivity => {
            to.object("actor", |to| actor(event, to));
            origin(event, to);
            to.object("api", |to| to.put("operation", event.action.as_deref().unwrap_or(UNKNOWN)));
            to.object("cloud", |to| {
                to.put("provider", "ucloud");
                to.put("project_uid", &event.stream.identity.tenant);
                to.some("region", event.region.as_ref());
            });
            to.objects("resources", &event.resources, |to, resource| {
                to.some("uid", resource.id.as_ref());
                to.some("name", resource.name.as_ref());
                to.some("region", event.region.as_ref());
            });
        }
    }
    to.object("unmapped", |to| unmapped(event, to));
    to.some("raw_data", raw);
}

/// Account Change's `activity_id` "MFA Factor Enable".
const MFA_ENABLE: u32 = 10;
/// Account Change's `activity_id` "MFA Factor Disable".
const MFA_DISABLE: u32 = 11;

fn metadata(event: &Event<'_>, to: &mut Members<'_>) {
    let (product, log) = match event.stream.identity.source {
        Source::Genauth => ("GenAuth", "user-action-logs"),
        Source::Scloud => ("SCloud", "user-operation-events"),
    };
    to.put("version", VERSION);
    to.put("uid", &event.id);
    to.object("product", |to| {
        to.put("name", product);
        to.put("vendor_name", product);
    });
    to.put("log_provider", event.stream.identity.source.name());
    to.put("log_name", log);
    to.put("tenant_uid", &event.stream.identity.tenant);
    to.some("event_code", event.action.as_ref());
    to.some("original_time", event.written_time.as_ref());
    to.some("correlation_uid", event.request_id.as_ref());
    match event.kind.class {
        Class::ApiActivity => to.put("profiles", &["cloud"]),
        // The profile that gives this class its actor.
        Class::WebResourcesActivity => to.put("profiles", &["host"]),
        _ => {}
    }
}

/// The parts that both account classes share: users act on their own accounts here.
fn account(event: &Event<'_>, to: &mut Members<'_>) {
    to.object("user", |to| user(&event.user, to));
    to.object("actor", |to| actor(event, to));
    origin(event, to);
}

fn actor(event: &Event<'_>, to: &mut Members<'_>) {
    to.object("user", |to| {
        user(&event.user, to);
        to.objects("programmatic_credentials", &event.access_key, |to, key| to.put("uid", key));
    });
    to.some("app_uid", event.app.id.as_ref());
    to.some("app_name", event.app.name.as_ref());
}

/// OCSF wants a user's `uid` or `name`.
fn user(user: &User<'_>, to: &mut Members<'_>) {
    to.some("uid", user.id.as_ref());
    match user.name.as_ref().or(user.email.as_ref()) {
        Some(name) => to.put("name", name),
        None if user.id.is_none() => to.put("name", UNKNOWN),
        None => {}
    }
    to.some("display_name", user.display_name.as_ref());
    to.some("email_addr", user.email.as_ref().filter(|email| is_email(email)));
}

/// Where from: `src_endpoint` and the header of its request.
fn origin(event: &Event<'_>, to: &mut Members<'_>) {
    let client = &event.client;
    to.object("src_endpoint", |to| {
        match (&client.ip, &client.address) {
            (Some(ip), _) => to.put("ip", ip),
            (None, Some(address)) => to.put("name", address),
            // The endpoint must be called something.
            (None, None) => to.put("svc_name", UNKNOWN),
        }
        if let Some(device) = &client.device {
            let known = DEVICES.iter().find(|(name, ..)| device.eq_ignore_ascii_case(name));
            to.put("type_id", &known.map_or(99, |(_, type_id, _)| *type_id));
            to.put("type", known.map_or(device.as_ref(), |(.., caption)| *caption));
        }
        if let Some(os) = &client.os {
            let known = SYSTEMS.iter().find(|(prefix, _)| {
                os.as_bytes().get(..prefix.len()).is_some_and(|start| start.eq_ignore_ascii_case(prefix.as_bytes()))
            });
            to.object("os", |to| {
                to.put("name", os);
                to.put("type_id", &known.map_or(99, |(_, type_id)| *type_id));
            });
        }
        let geo = &client.geo;
        if is_located(geo) {
            to.object("location", |to| {
                to.some("city", geo.city.as_ref());
                to.some("region", geo.region_name.as_ref());
                to.some("country", geo.country_code.as_ref());
                to.some("continent", geo.continent_code.as_ref());
                to.some("lat", geo.coordinates.map(|point| point.lat));
                to.some("long", geo.coordinates.map(|point| point.lon));
            });
        }
    });
    to.object("http_request", |to| to.some("user_agent", client.user_agent.as_ref()));
}

/// OCSF wants a location's city, country or region.
fn is_located(geo: &Geo<'_>) -> bool {
    geo.city.is_some() || geo.region_name.is_some() || geo.country_code.is_some()
}

fn unmapped(event: &Event<'_>, to: &mut Members<'_>) {
    to.object("trailcast", |to| {
        to.put("stream", &event.stream.name);
        to.put("late", &event.late);
        to.put("ordinal", &event.ordinal);
        to.some("problem", event.problem.map(Problem::name));
    });
    to.object("user", |to| {
        to.some("logins_count", event.user.logins_count);
        to.some("avatar", event.user.avatar.as_ref());
        to.some("email", event.user.email.as_ref().filter(|email| !is_email(email)));
    });
    to.object("app", |to| {
        to.some("logo", event.app.logo.as_ref());
        to.some("login_url", event.app.login_url.as_ref());
    });
    to.some("browser", event.client.browser.as_ref());
    let geo = &event.client.geo;
    to.object("geo", |to| {
        to.some("country_name", geo.country_name.as_ref());
        to.some("country_code3", geo.country_code3.as_ref());
        to.some("region_code", geo.region_code.as_ref());
        to.some("timezone", geo.timezone.as_ref());
        if !is_located(geo) {
            to.some("continent", geo.continent_code.as_ref());
            to.some("lat", geo.coordinates.map(|point| point.lat));
            to.some("long", geo.coordinates.map(|point| point.lon));
        }
    });
}

/// OCSF's `email_t`: one `@`, plain characters before it, a name with a dot behind it.
fn is_email(text: &str) -> bool {
    let plain = |text: &str, marks: &str| {
        !text.is_empty() && text.chars().all(|c| c.is_ascii_alphanumeric() || marks.contains(c))
    };
    let parts = text.split_once('@').and_then(|(local, host)| Some((local, host.split_once('.')?)));
    parts.is_some_and(|(local, (label, rest))| {
        plain(local, "!#$%&'*+,-./=?^_`{|}~") && plain(label, "-") && plain(rest, "-.")
    })
}
