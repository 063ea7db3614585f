//! `/status` for a person: one page, no scripts, nothing loaded.

use std::fmt::{self, Display, Write};

use super::answer::{Condition, Status};

const HEAD: &str = "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\">\
<meta http-equiv=\"refresh\" content=\"5\"><title>trailcast</title><style>\
body{font:15px/1.5 system-ui,sans-serif;margin:2rem;max-width:80rem;color-scheme:light dark}\
table{border-collapse:collapse;margin:.5rem 0 2rem}th,td{text-align:left;padding:.2rem .8rem .2rem 0;\
border-bottom:1px solid #8884;vertical-align:top}td{font-variant-numeric:tabular-nums}.failing{color:#c33}\
</style>";

/// The whole page.
pub(super) fn render(status: &Status) -> String {
    let mut page = HEAD.to_owned();
    // Writing to a string does not fail.
    let _ = write_body(&mut page, status);
    page
}

fn write_body(page: &mut String, status: &Status) -> fmt::Result {
    let ready = if status.ready { "ready" } else { "not ready" };
    let revision = status.revision.map(|revision| format!(" ({revision})")).unwrap_or_default();
    write!(page, "<h1>trailcast</h1><p>{}{}, ", Escaped(status.version), Escaped(&revision))?;
    write!(page, "up {}, {ready}</p>", span(status.uptime_seconds))?;

    page.push_str(
        "<h2>Streams</h2><table><tr><th>stream<th>source<th>tenant<th>runs<th>state<th>read through<th>lag<th>clock offset",
    );
    for stream in &status.streams {
        write!(page, "<tr><td>{}<td>{}<td>{}", Escaped(&stream.name), stream.source, Escaped(&stream.tenant))?;
        match (stream.running, &stream.owner) {
            (true, _) => write!(page, "<td>here")?,
            (false, Some(owner)) => write!(page, "<td>last at {}", Escaped(owner))?,
            (false, None) => write!(page, "<td>not here")?,
        }
        health(page, &stream.health)?;
        write!(page, "<td>{}<td>{}", known(stream.read_through), seconds(stream.fetch_lag_seconds))?;
        write!(page, "<td>{}", seconds(stream.clock_offset_seconds))?;
    }
    page.push_str("</table><h2>Lanes</h2><table><tr><th>stream<th>sink<th>state<th>events<th>gaps<th>delivered through<th>lag<th>verified through<th>passes");
    for lane in &status.lanes {
        write!(page, "<tr><td>{}<td>{}", Escaped(&lane.stream), Escaped(&lane.sink))?;
        health(page, &lane.health)?;
        write!(page, "<td>{}<td>{}", lane.delivered, lane.gaps)?;
        if lane.newest_gaps.len() < lane.gaps {
            write!(page, ", the newest:")?;
        }
        for gap in &lane.newest_gaps {
            write!(page, "<br>{} to {}: {}", gap.from, gap.to, gap.reason)?;
        }
        write!(page, "<td>{}", known(lane.delivered_through))?;
        write!(page, "<td>{}<td>{}<td>", seconds(lane.delivery_lag_seconds), known(lane.verified_through))?;
        for (pass, through) in &lane.passes {
            write!(page, "{} {through}<br>", Escaped(pass))?;
        }
    }
    page.push_str("</table>");
    Ok(())
}

fn health(page: &mut String, health: &Condition) -> fmt::Result {
    if health.message.is_none() {
        return write!(page, "<td>{}", health.state);
    }
    write!(page, "<td class=\"failing\">{}", health.state)?;
    if let (Some(since), Some(reason)) = (&health.since, health.reason) {
        write!(page, " since {since}: {reason}")?;
    }
    write!(page, "<br>{}", Escaped(health.message.as_deref().unwrap_or_default()))
}

fn known(value: Option<impl Display>) -> String {
    value.map_or_else(|| "–".to_owned(), |value| value.to_string())
}

fn seconds(value: Option<f64>) -> String {
    known(value.map(|seconds| format!("{seconds:.1} s")))
}

fn span(seconds: u64) -> String {
    crate::config::units::duration_text(std::time::Duration::from_secs(seconds))
}

/// Text that cannot become markup, in an element or in a quoted attribute.
struct Escaped<'a>(&'a str);

impl Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for character in self.0.chars() {
            match character {
                '&' => f.write_str("&amp;")?,
                '<' => f.write_str("&lt;")?,
                '>' => f.write_str("&gt;")?,
                '"' => f.write_str("&quot;")?,
                '\'' => f.write_str("&#39;")?,
                other => f.write_char(other)?,
            }
        }
        Ok(())
    }
}
