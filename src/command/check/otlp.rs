//! Whether receivers of OTLP answer. Delivers nothing: a request with no record and no span in it.

use super::{Finding, State, age};
use crate::clock;
use crate::config::{Config, MaxEventAgePolicy, OtlpConfig, SinkConfig, units};
use crate::event::Millis;
use crate::sink::OtlpSink;
use crate::telemetry::export;

/// What Loki refuses to take unless told otherwise (`reject_old_samples_max_age`).
const LOKI_OLDEST: Millis = 7 * 86_400_000;

/// All of them.
pub(super) async fn sinks(config: &Config) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (name, sink) in &config.sinks {
        let SinkConfig::Otlp(otlp) = sink else { continue };
        let part = format!("sinks.{name}");
        let (state, message) = match OtlpSink::new((**otlp).clone()).probe().await {
            Ok(()) => (State::Ok, format!("{} answers", otlp.endpoint)),
            Err(error) => (State::Failed, format!("{error} ({})", error.reason().label())),
        };
        findings.push(Finding { part: part.clone(), state, message });
        let now = clock::now();
        let streams = config.streams.values().filter(|stream| stream.sinks.contains(name));
        let oldest = streams.map(|stream| age(stream.start, now)).max().unwrap_or(0);
        if let Some(message) = too_old(otlp, oldest) {
            findings.push(Finding { part, state: State::Warning, message });
        }
    }
    findings
}

/// Whether whoever is to have our traces takes them.
pub(super) async fn traces(config: &Config) -> Option<Finding> {
    let traces = config.traces.as_ref()?;
    let (state, message) = match export::probe(traces).await {
        Ok(()) => (State::Ok, format!("{} answers", traces.endpoint)),
        Err(error) => (State::Failed, format!("{}: {error}", traces.endpoint)),
    };
    Some(Finding { part: "traces".to_owned(), state, message })
}

/// What becomes of the oldest events, if `start` reaches back farther than the receiver may.
fn too_old(config: &OtlpConfig, oldest: Millis) -> Option<String> {
    let days = |age: Millis| units::duration_text(std::time::Duration::from_millis(u64::try_from(age).unwrap_or(0)));
    match config.max_event_age {
        Some(age) if oldest > clock::millis(age) => {
            let fate = match config.max_event_age_policy {
                MaxEventAgePolicy::DeadLetter => "kept as dead letters and not sent",
                MaxEventAgePolicy::Send => "sent all the same",
                MaxEventAgePolicy::Clamp => "sent with a later time",
            };
            Some(format!(
                "`start` reaches back {}, and events older than max_event_age, {}, are {fate}",
                days(oldest),
                units::duration_text(age)
            ))
        }
        None if oldest > LOKI_OLDEST && config.endpoint.path().ends_with("/otlp/v1/logs") => Some(format!(
            "`start` reaches back {}: Loki refuses what is older than 7d unless reject_old_samples_max_age says otherwise",
            days(oldest)
        )),
        _ => None,
    }
}
