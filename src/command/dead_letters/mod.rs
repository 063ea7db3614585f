//! `trailcast dead-letters`: what sinks refused for good, another try, and an end to it.

mod place;
mod retry;

use std::io::{ErrorKind, Write as _};
use std::ops::ControlFlow;
use std::sync::Arc;

use super::cursor::{confirm, usage};
use super::{Answer, CommandError};
use crate::blocking::blocking;
use crate::cli::{DeadLettersArgs, DeadLettersCommand, DeadLettersDropArgs};
use crate::config;
use crate::dead_letter::DeadLetter;
use crate::words::counted;
use place::{Place, Told};

/// Lists, tries again, or drops.
///
/// # Errors
/// The config is wrong, or the letters cannot be read.
pub async fn dead_letters(command: &DeadLettersCommand) -> Result<Answer, CommandError> {
    let which = match command {
        DeadLettersCommand::List(args) => &args.which,
        DeadLettersCommand::Retry(args) => &args.which,
        DeadLettersCommand::Drop(args) => &args.which,
    };
    let config = config::load(&which.config.config)?.config;
    let place = Arc::new(Place::of(&config)?);
    let (of, chosen) = (Arc::clone(&place), which.clone());
    let streams: Vec<String> = config.streams.keys().cloned().collect();
    let sinks: Vec<String> = config.sinks.keys().cloned().collect();
    blocking(move || known(&of, &chosen, &streams, &sinks)).await?;
    match command {
        DeadLettersCommand::List(args) => {
            let (which, json) = (which.clone(), args.json);
            let none = none(&which);
            let found = blocking(move || list(&place, &which, json)).await?;
            Ok(Answer::done(if found || json { String::new() } else { none }))
        }
        DeadLettersCommand::Retry(args) => retry::retry(&config, place, args).await,
        DeadLettersCommand::Drop(args) => {
            let args = args.clone();
            blocking(move || drop_letters(&place, &args)).await
        }
    }
}

/// Refuses a name that neither the config nor any letter has: a slip of the pen would look like success.
fn known(place: &Place, which: &DeadLettersArgs, streams: &[String], sinks: &[String]) -> Result<(), CommandError> {
    type Of = fn(&DeadLetter) -> &str;
    let asked: [(&str, &Option<String>, &[String], Of); 2] = [
        ("stream", &which.stream, streams, |letter| &letter.stream),
        ("sink", &which.sink, sinks, |letter| &letter.sink),
    ];
    for (kind, name, configured, of) in asked {
        let Some(name) = name.as_ref().filter(|name| !configured.contains(name)) else { continue };
        let mut found = false;
        place.visit(&mut |_, letter| {
            found = of(&letter) == name;
            if found { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        })?;
        if !found {
            let configured = configured.join(", ");
            let message =
                format!("--{kind} {name}: no dead letter is of it, and the config has none such; it has {configured}");
            return Err(usage(&message));
        }
    }
    Ok(())
}

/// That there are none of those that were asked for.
fn none(which: &DeadLettersArgs) -> String {
    let asked = [("of stream", &which.stream), ("refused by sink", &which.sink), ("refused as", &which.reason)];
    let asked: Vec<String> =
        asked.iter().filter_map(|(kind, name)| Some(format!("{kind} {}", name.as_ref()?))).collect();
    match asked.as_slice() {
        [] => "no dead letters".to_owned(),
        asked => format!("no dead letters {}", asked.join(", ")),
    }
}

fn is_wanted(which: &DeadLettersArgs, letter: &DeadLetter) -> bool {
    let fits = |wanted: &Option<String>, is: &str| wanted.as_ref().is_none_or(|wanted| wanted == is);
    fits(&which.stream, &letter.stream) && fits(&which.sink, &letter.sink) && fits(&which.reason, letter.reason.label())
}

/// Prints them one by one, however many there are; whether there are any.
fn list(place: &Place, which: &DeadLettersArgs, json: bool) -> Result<bool, String> {
    let mut out = std::io::BufWriter::new(std::io::stdout().lock());
    let mut found = false;
    let mut written = Ok(());
    place.visit(&mut |_, letter| {
        if !is_wanted(which, &letter) {
            return ControlFlow::Continue(());
        }
        found = true;
        written = if json {
            out.write_all(&letter.to_json()).and_then(|()| out.write_all(b"\n"))
        } else {
            writeln!(out, "{}", line(&letter))
        };
        // A reader that has gone has seen enough.
        if written.is_err() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    })?;
    let written = written.and_then(|()| out.flush());
    // Such as `head`.
    if written.as_ref().is_err_and(|error| error.kind() == ErrorKind::BrokenPipe) {
        return Ok(true);
    }
    written.map_err(|error| format!("cannot write to stdout: {error}"))?;
    Ok(found)
}

fn line(letter: &DeadLetter) -> String {
    let DeadLetter { id, stream, sink, time, reason, message, record_bytes, .. } = letter;
    let cut = if letter.is_whole() { "" } else { ", kept in part" };
    format!("{id} {time} {stream} to {sink}: {}, record of {record_bytes} bytes{cut}: {message}", reason.label())
}

/// The most that are taken away at once.
const TOGETHER: usize = 500;

/// Counts, asks, and takes away what it has counted. Blocks.
fn drop_letters(place: &Place, args: &DeadLettersDropArgs) -> Result<Answer, CommandError> {
    let Some(mut dealing) = place.deal()? else { return Ok(Answer::done(none(&args.which))) };
    let mut count = 0_u64;
    place.visit(&mut |_, letter| {
        count += u64::from(is_wanted(&args.which, &letter));
        ControlFlow::Continue(())
    })?;
    if count == 0 {
        return Ok(Answer::done(none(&args.which)));
    }
    let names = [counted(count, "dead letter")];
    confirm(&names, "be gone for good, with the events in them", args.yes)?;
    let mut left = count;
    let mut some: Vec<Told> = Vec::new();
    let mut result = Ok(());
    place.visit(&mut |at, letter| {
        // Those that came meanwhile nobody was asked about.
        if left > 0 && is_wanted(&args.which, &letter) {
            left -= 1;
            some.push(Told::of(at, &letter));
        }
        if some.len() >= TOGETHER || left == 0 {
            result = dealing.done(&std::mem::take(&mut some));
        }
        if result.is_err() || left == 0 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    })?;
    result?;
    dealing.done(&some)?;
    dealing.end()?;
    Ok(Answer::done(format!("{count} dropped")))
}
