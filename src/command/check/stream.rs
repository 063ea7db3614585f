//! What a few answers of an API show: credentials, the clock, and whether it contradicts itself.

use url::Url;

use super::{Finding, State};
use crate::event::Millis;
use crate::page::{Page, PageRequest, Position, Priority};
use crate::source::{Client, FetchError, FetchReason, Fetched};
use crate::window::floor_to;

const HOUR: Millis = 3_600_000;
/// Clocks that are further apart draw a warning.
const APART: Millis = 60_000;

/// Asks for the last hour. What that lists is held against its own count, its second page, and another interval; where it
/// lists nothing, the last day is asked for.
pub(super) async fn stream(name: &str, client: &Client, endpoint: &Url) -> Finding {
    let (state, message) = match ask(client).await {
        Ok(found) => found,
        Err(error) => {
            let hint = hint(&error, endpoint).map_or_else(String::new, |hint| format!("; {hint}"));
            (State::Failed, format!("{}: {error} ({}){hint}", shown(endpoint), error.reason.label()))
        }
    };
    Finding { part: format!("streams.{name}"), state, message }
}

async fn ask(client: &Client) -> Result<(State, String), FetchError> {
    let unit = client.source().clock_unit();
    let now = floor_to(client.clock().now().sure, unit);
    let first = PageRequest { from: now - HOUR, to: now, limit: client.page_limit(), position: Position::First };
    let Fetched { page, timing } = fetch(client, &first).await?;
    let answers = format!("{} {} answers in {} ms", client.source(), client.tenant(), timing.requests.as_millis());
    let offset = client.clock().offset();
    let clock = match offset {
        Some(offset) => format!("its clock is {} s from this machine's", seconds(offset)),
        None => "its answers have no Date that can be read, so this machine's clock alone says what time it is: look that it \
                 is right, and whether a proxy takes the Date away"
            .to_owned(),
    };
    let (state, what) = if page.records.is_empty() {
        let day = fetch(client, &PageRequest { from: now - 24 * HOUR, ..first }).await?.page;
        silence(&page, &day)
    } else if let Some(contradiction) = contradiction(client, &first, &page).await? {
        (State::Failed, contradiction)
    } else {
        (State::Ok, page.total.map_or("records".to_owned(), |total| format!("{total} records")) + " in the last hour")
    };
    let is_doubtful = offset.is_none_or(|offset| offset.abs() >= APART);
    let state = if state == State::Ok && is_doubtful { State::Warning } else { state };
    Ok((state, format!("{answers}: {what}; {clock}")))
}

/// An endpoint without what may be secret in it.
fn shown(endpoint: &Url) -> String {
    let port = endpoint.port().map_or_else(String::new, |port| format!(":{port}"));
    format!("{}://{}{port}{}", endpoint.scheme(), endpoint.host_str().unwrap_or_default(), endpoint.path())
}

/// What to look at where the error itself does not say.
fn hint(error: &FetchError, endpoint: &Url) -> Option<&'static str> {
    let https = endpoint.scheme() == "https";
    match error.reason {
        // As rustls says it.
        FetchReason::Connect if https && error.message.contains("InvalidContentType") => Some(
            "what answers there does not speak TLS: look at the port, or whether endpoint is to begin with http://",
        ),
        FetchReason::Connect if https && error.message.contains("certificate") => {
            Some("look at ca_file, and at the host's name in endpoint")
        }
        FetchReason::Connect => {
            Some("look at the host and port of endpoint, and whether this machine may connect there")
        }
        FetchReason::Timeout => Some("look whether this machine may connect there: a firewall answers nothing"),
        // Of a web server of another kind, to which a POST is nothing.
        FetchReason::HttpStatus if error.message.starts_with("HTTP 501") => {
            Some("look at endpoint: whether it is this API, and its path right")
        }
        FetchReason::Malformed => Some("look at endpoint: whether it is this API, and its path right"),
        FetchReason::Refused if !https && error.message.starts_with("HTTP 400") => {
            Some("if what answers there wants TLS, endpoint is to begin with https://")
        }
        _ => None,
    }
}

async fn fetch(client: &Client, request: &PageRequest) -> Result<Fetched, FetchError> {
    client.fetch(request, client.rank(Priority::Live)).await
}

/// Of an API that lists nothing for the last hour.
fn silence(hour: &Page, day: &Page) -> (State, String) {
    if !day.records.is_empty() {
        return (State::Ok, "no record in the last hour, some in the last day".to_owned());
    }
    let bare = match hour.bare && day.bare {
        true => ", and not even an empty list, as APIs under maintenance do",
        false => "",
    };
    let what = format!(
        "no record in the last day{bare}: right if nothing happened there, wrong credentials, a wrong filter or an API that \
         does not tell the truth if something did"
    );
    (State::Warning, what)
}

/// How answers contradict themselves or each other, if they do. `page` is the first one of `first`, and lists something.
async fn contradiction(client: &Client, first: &PageRequest, page: &Page) -> Result<Option<String>, FetchError> {
    let listed = page.records.len() as u64;
    let full = listed >= u64::from(first.limit);
    if let Some(total) = page.total.filter(|total| !full && *total != listed) {
        return Ok(Some(format!(
            "it contradicts itself: it counts {total} records and lists {listed} of them (malformed)"
        )));
    }
    let second = match &page.next_token {
        Some(token) => Some(Position::Token(token.clone())),
        None => page.total.filter(|_| full).map(|_| Position::Number(2)),
    };
    if let Some(position) = second {
        let second = fetch(client, &PageRequest { position, ..first.clone() }).await;
        let second = match second {
            Ok(fetched) => fetched.page,
            Err(error) => {
                return Ok(Some(format!("its second page cannot be had: {error} ({})", error.reason.label())));
            }
        };
        // More may have come in meanwhile, and is counted then.
        match page.total {
            Some(total) if total > listed && second.records.is_empty() => {
                return Ok(Some(format!(
                    "it contradicts itself: it counts {total} records and lists {listed} (malformed)"
                )));
            }
            Some(total) if total == listed && second.total <= Some(total) && !second.records.is_empty() => {
                return Ok(Some(format!(
                    "it contradicts itself: it counts {total} records and lists more (malformed)"
                )));
            }
            _ => {}
        }
    }
    let away = PageRequest { from: first.from - 48 * HOUR, to: first.to - 48 * HOUR, ..first.clone() };
    let elsewhere = fetch(client, &away).await?.page;
    let same = elsewhere.records.iter().any(|other| {
        page.records.iter().any(|record| record.fingerprint == other.fingerprint && record.time == other.time)
    });
    Ok(same.then(|| {
        "it lists the same records for the last hour and for one two days before: an API that ignores the bounds it is asked \
         for cannot be read completely (doubtful)"
            .to_owned()
    }))
}

/// Of milliseconds: as people read them.
fn seconds(millis: Millis) -> String {
    #[expect(clippy::cast_precision_loss, reason = "shown to a tenth")]
    let seconds = millis as f64 / 1000.0;
    format!("{seconds:.1}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_offset_is_told_in_seconds() {
        assert_eq!(seconds(90_012), "90.0");
        assert_eq!(seconds(-340), "-0.3");
    }
}
