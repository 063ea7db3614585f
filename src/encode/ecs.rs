//! Elastic Common Schema 9.4.
//!
//! What has no field in the schema stands under `genauth`, `scloud` and `trailcast`, which the schema will not take.

use super::json::Members;
use crate::event::Source;
use crate::normalize::{Class, Event, Text};
use crate::record::time::Rfc3339;

const VERSION: &str = "9.4.0";

pub(super) fn members(event: &Event<'_>, raw: Option<&Text<'_>>, to: &mut Members<'_>) {
    to.put("@timestamp", &Rfc3339(event.time));
    to.object("ecs", |to| to.put("version", VERSION));
    to.object("event", |to| self::event(event, raw, to));
    to.some("message", event.detail.as_ref());
    to.object("organization", |to| to.put("id", &event.stream.identity.tenant));
    to.object("user", |to| {
        to.some("id", event.user.id.as_ref());
        to.some("name", event.user.name.as_ref());
        to.some("full_name", event.user.display_name.as_ref());
        to.some("email", event.user.email.as_ref());
    });
    to.object("client", |to| {
        address(event, to);
        to.object("geo", |to| geo(event, to));
    });
    to.object("source", |to| address(event, to));
    to.object("related", |to| {
        // A list even when it has one member, as the schema wants.
        let users: Vec<&Text<'_>> = [&event.user.id, &event.user.name].into_iter().flatten().collect();
        to.some("user", Some(users).filter(|users| !users.is_empty()));
        to.some("ip", event.client.ip.map(|ip| [ip]));
    });
    to.object("user_agent", |to| {
        to.some("original", event.client.user_agent.as_ref());
        to.some("name", event.client.browser.as_ref());
        to.object("device", |to| to.some("name", event.client.device.as_ref()));
        to.object("os", |to| to.some("name", event.client.os.as_ref()));
    });
    to.object("service", |to| {
        to.some("id", event.app.id.as_ref());
        to.some("name", event.app.name.as_ref());
    });
    to.object("http", |to| to.object("request", |to| to.some("id", event.request_id.as_ref())));
    if event.stream.identity.source == Source::Scloud {
        to.object("cloud", |to| {
            to.put("provider", "ucloud");
            to.some("region", event.region.as_ref());
            to.object("project", |to| to.put("id", &event.stream.identity.tenant));
        });
    }
    if let Some(problem) = event.problem {
        to.object("error", |to| {
            to.put("type", problem.name());
            to.put("message", problem.message());
        });
    }
    own(event, to);
}

fn event(event: &Event<'_>, raw: Option<&Text<'_>>, to: &mut Members<'_>) {
    let (module, dataset) = match event.stream.identity.source {
        Source::Genauth => ("genauth", "genauth.user_action"),
        Source::Scloud => ("scloud", "scloud.operation"),
    };
    to.put("id", &event.id);
    // The schema's word for an event that was not taken in as it should be.
    to.put("kind", if event.problem.is_some() { "pipeline_error" } else { "event" });
    to.put("module", module);
    to.put("dataset", dataset);
    to.put("provider", module);
    if !event.kind.category.is_empty() {
        to.put("category", event.kind.category);
        to.put("type", &types(event));
    }
    to.some("action", event.action.as_ref());
    to.some("code", event.action.as_ref());
    to.put(
        "outcome",
        match event.success {
            Some(true) => "success",
            Some(false) => "failure",
            None => "unknown",
        },
    );
    if event.success == Some(false) {
        to.some("reason", event.detail.as_ref());
    }
    to.some("original", raw);
}

/// An access was allowed or denied; other acts succeed or fail.
fn types(event: &Event<'_>) -> Vec<&'static str> {
    let decision = match event.success {
        Some(true) => Some("allowed"),
        Some(false) => Some("denied"),
        None => None,
    };
    let decision = decision.filter(|_| event.kind.class == Class::WebResourcesActivity);
    event.kind.types.iter().copied().chain(decision).collect()
}

/// `ip` takes IP addresses only: an index would refuse the whole event for another text.
fn address(event: &Event<'_>, to: &mut Members<'_>) {
    to.some("address", event.client.address.as_ref());
    to.some("ip", event.client.ip);
}

fn geo(event: &Event<'_>, to: &mut Members<'_>) {
    let geo = &event.client.geo;
    if let Some(point) = geo.coordinates {
        to.object("location", |to| {
            to.put("lat", &point.lat);
            to.put("lon", &point.lon);
        });
    }
    to.some("continent_code", geo.continent_code.as_ref());
    to.some("country_iso_code", geo.country_code.as_ref());
    to.some("country_name", geo.country_name.as_ref());
    to.some("region_name", geo.region_name.as_ref());
    if let (Some(country), Some(region)) = (&geo.country_code, &geo.region_code) {
        // ISO 3166-2.
        to.put("region_iso_code", &format_args!("{country}-{region}"));
    }
    to.some("city_name", geo.city.as_ref());
    to.some("timezone", geo.timezone.as_ref());
}

fn own(event: &Event<'_>, to: &mut Members<'_>) {
    to.object("trailcast", |to| {
        to.put("stream", &event.stream.name);
        to.put("late", &event.late);
        to.put("ordinal", &event.ordinal);
    });
    to.object(event.stream.identity.source.name(), |to| {
        to.object("user", |to| {
            to.some("avatar", event.user.avatar.as_ref());
            to.some("logins_count", event.user.logins_count);
        });
        to.object("app", |to| {
            to.some("logo", event.app.logo.as_ref());
            to.some("login_url", event.app.login_url.as_ref());
        });
        to.object("geo", |to| to.some("country_code3", event.client.geo.country_code3.as_ref()));
        to.some("access_key_id", event.access_key.as_ref());
        to.objects("resources", &event.resources, |to, resource| {
            to.some("id", resource.id.as_ref());
            to.some("name", resource.name.as_ref());
        });
    });
}
