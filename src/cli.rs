//! The command line: what can be typed, and what it means. Parses and explains; does nothing.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::builder::PossibleValuesParser;
use clap::{Args, Parser, Subcommand};

use crate::clock;
use crate::config::Start;
use crate::config::units::{self, UnitError};
use crate::dead_letter::DeadLetterReason;
use crate::encode::Format;
use crate::event::Millis;
use crate::{simulate, version};

/// Tails the audit logs of GenAuth and SCloud and delivers every event once.
///
/// Both APIs give no event ids, shift pages while they are read and show records late. trailcast reads every window
/// until it is proven complete, gives each event an id made from its content, reads again later for what came late,
/// and moves its cursors only once events are delivered.
///
/// stdout carries events or the answer, nothing else; all else goes to stderr.
/// Exit status: 0 done or drained, 1 failed while running, 2 wrong usage or config.
#[derive(Debug, Parser)]
#[command(name = "trailcast", version = version::LINE.as_str(), after_help = "\
Examples:
  trailcast demo --for 30s                     see it work: no file, server or key needed
  trailcast check -c trailcast.yaml            do the config, the APIs and the sinks work?
  trailcast run -c trailcast.yaml              the job, until SIGTERM or SIGINT
  trailcast run -c trailcast.yaml --until-caught-up | gzip > events.ndjson.gz
  trailcast schema > trailcast.schema.json     help from an editor while writing the config")]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// The job: tails every stream into its sinks until SIGTERM or SIGINT, then drains
    Run(RunArgs),
    /// Says whether a config is right, and whether its sources, sinks and checkpoint work
    Check(CheckArgs),
    /// Shows trailcast at work: simulated APIs on loopback, their events on stdout
    Demo(DemoArgs),
    /// Serves both APIs on loopback, with faults on request and a truth ledger, for tests of your own
    Simulate(Box<simulate::Options>),
    /// Shows or changes where lanes stand
    #[command(subcommand)]
    Cursor(CursorCommand),
    /// Shows what sinks refused for good, tries it again, or takes it away
    #[command(subcommand)]
    DeadLetters(DeadLettersCommand),
    /// Prints the JSON schema of the config
    #[command(after_help = "\
Example:
  trailcast schema > trailcast.schema.json
and as the first line of the config:
  # yaml-language-server: $schema=trailcast.schema.json")]
    Schema,
}

/// Where the config is.
#[derive(Debug, Clone, Args)]
pub struct ConfigArgs {
    /// The config: one YAML file
    #[arg(short, long, value_name = "FILE")]
    pub config: PathBuf,
}

/// `trailcast run`
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  trailcast run -c trailcast.yaml
  trailcast run -c trailcast.yaml --until-caught-up    for a schedule: what there is, then end
  trailcast run -c trailcast.yaml --until-caught-up --timeout 10m

Processes that share a checkpoint in Kafka share the streams; each catches up with those that
it is given.

The first SIGTERM, SIGINT or SIGHUP drains, the second ends at once; within half a second of
the first it is the same one. Status 0 says that all was drained, with --until-caught-up that
it has caught up. Dead letters count as done, as they are kept: a warning at the end says how
many there are. It is 1 if that was asked to end before, was not through in time, gave up a
part of the log, or can only go on once a person has done something.")]
pub struct RunArgs {
    /// The config.
    #[command(flatten)]
    pub config: ConfigArgs,
    /// End with 0 once every lane has delivered all that was readable at the start, or keeps it as dead letters, and every
    /// sweep due by then is done
    #[arg(long)]
    pub until_caught_up: bool,
    /// End with 1 if that takes longer, and say which lanes have not caught up; without it, that takes as long as it takes
    #[arg(long, value_name = "DURATION", value_parser = duration, requires = "until_caught_up")]
    pub timeout: Option<Duration>,
}

/// `trailcast check`
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  trailcast check -c trailcast.yaml             a line for each part, with what to do
  trailcast check -c trailcast.yaml --offline   the config alone: for a build pipeline")]
pub struct CheckArgs {
    /// The config.
    #[command(flatten)]
    pub config: ConfigArgs,
    /// Check the config alone: ask no API, open no checkpoint
    #[arg(long)]
    pub offline: bool,
    /// Answer in JSON
    #[arg(long)]
    pub json: bool,
}

/// `trailcast demo`
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  trailcast demo --for 30s
  trailcast demo --faults --format ecs | jq .event.id")]
pub struct DemoArgs {
    /// End after this long; without it, at SIGINT
    #[arg(long = "for", value_name = "DURATION", value_parser = duration)]
    pub duration: Option<Duration>,
    /// Let the simulated APIs throttle, fail, shift pages and show records late
    #[arg(long)]
    pub faults: bool,
    /// How an event is written: ocsf, ecs or native
    #[arg(long, value_name = "FORMAT", default_value = "ocsf", value_parser = format)]
    pub format: Format,
}

/// `trailcast cursor`
#[derive(Debug, Subcommand)]
#[command(after_help = "\
Examples:
  trailcast cursor show -c trailcast.yaml
  trailcast cursor set -c trailcast.yaml --stream users --to 2026-01-31T00:00:00Z
  trailcast cursor delete -c trailcast.yaml --stream users --sink out --yes
  trailcast cursor export -c file.yaml > cursors.ndjson
  trailcast cursor import -c kafka.yaml --from cursors.ndjson --yes    to another checkpoint
  trailcast cursor accept -c trailcast.yaml    go on from an older copy, and repeat

With a checkpoint in a file, a cursor can be changed only while no trailcast runs on it. With
one in Kafka, a replica that runs takes the changed cursor over at once.")]
pub enum CursorCommand {
    /// Shows where lanes stand
    Show(CursorShowArgs),
    /// Makes lanes go on from a time; events after it that were delivered before come again, with the same ids
    Set(CursorSetArgs),
    /// Forgets where lanes stand: they begin again at their stream's `start`
    Delete(CursorDeleteArgs),
    /// Writes where lanes stand, and what they remember, to stdout, for `import` with another checkpoint; its last line
    /// says how many entries these are, and their hash
    Export(CursorExportArgs),
    /// Takes what `export` wrote over into this config's checkpoint, instead of what it has of the same lanes; refuses an
    /// export that was cut or changed, and one of version 0.1.0, which does not say where it ends
    Import(CursorImportArgs),
    /// Takes a checkpoint for right that was refused: an older copy that was put back, one that was lost, another group's
    Accept(CursorAcceptArgs),
}

/// Which lanes.
#[derive(Debug, Clone, Args)]
pub struct LaneArgs {
    /// The config.
    #[command(flatten)]
    pub config: ConfigArgs,
    /// Only lanes of this stream
    #[arg(long, value_name = "STREAM")]
    pub stream: Option<String>,
    /// Only lanes into this sink
    #[arg(long, value_name = "SINK")]
    pub sink: Option<String>,
    /// Answer in JSON
    #[arg(long)]
    pub json: bool,
}

/// `trailcast cursor show`
#[derive(Debug, Args)]
pub struct CursorShowArgs {
    /// Which lanes; default: all.
    #[command(flatten)]
    pub lanes: LaneArgs,
}

/// `trailcast cursor set`
#[derive(Debug, Args)]
pub struct CursorSetArgs {
    /// Which lanes; default: all.
    #[command(flatten)]
    pub lanes: LaneArgs,
    /// Where to go on: now or an age such as 2h, by this machine's clock, or a time such as 2026-01-31T00:00:00Z
    /// (RFC 3339)
    #[arg(long, value_name = "now|AGE|TIME", value_parser = time)]
    pub to: Millis,
    /// Let it pass over what a pass, be it a sweep, has not read yet: what of it was not delivered before never is
    #[arg(long)]
    pub skip: bool,
    /// Do not ask
    #[arg(long)]
    pub yes: bool,
}

/// `trailcast cursor delete`
#[derive(Debug, Args)]
pub struct CursorDeleteArgs {
    /// Which lanes; default: all.
    #[command(flatten)]
    pub lanes: LaneArgs,
    /// Do not ask
    #[arg(long)]
    pub yes: bool,
}

/// `trailcast cursor export`
#[derive(Debug, Args)]
pub struct CursorExportArgs {
    /// The config.
    #[command(flatten)]
    pub config: ConfigArgs,
    /// Only lanes of this stream
    #[arg(long, value_name = "STREAM")]
    pub stream: Option<String>,
    /// Only lanes into this sink
    #[arg(long, value_name = "SINK")]
    pub sink: Option<String>,
}

/// `trailcast cursor import`
#[derive(Debug, Args)]
pub struct CursorImportArgs {
    /// The config.
    #[command(flatten)]
    pub config: ConfigArgs,
    /// What `export` wrote
    #[arg(long, value_name = "FILE")]
    pub from: PathBuf,
    /// Do not ask
    #[arg(long)]
    pub yes: bool,
}

/// `trailcast cursor accept`
#[derive(Debug, Args)]
pub struct CursorAcceptArgs {
    /// The config.
    #[command(flatten)]
    pub config: ConfigArgs,
    /// Do not ask
    #[arg(long)]
    pub yes: bool,
}

/// `trailcast dead-letters`
#[derive(Debug, Subcommand)]
#[command(after_help = "\
Examples:
  trailcast dead-letters list -c trailcast.yaml
  trailcast dead-letters list -c trailcast.yaml --reason too_large --json | jq .record
  trailcast dead-letters retry -c trailcast.yaml --sink events    once it takes larger ones
  trailcast dead-letters retry -c trailcast.yaml --sink old --to events    a sink was renamed
  trailcast dead-letters drop -c trailcast.yaml --sink old

All work while trailcast runs. Of two that retry or drop at once the second waits or, where the
letters are in Kafka, the first ends; no letter is dealt with twice.")]
pub enum DeadLettersCommand {
    /// Shows them, oldest first
    List(DeadLettersListArgs),
    /// Delivers them to their sinks again, with the same ids, and takes away what is accepted
    Retry(DeadLettersRetryArgs),
    /// Takes them away for good, with the events in them
    Drop(DeadLettersDropArgs),
}

/// Which dead letters.
#[derive(Debug, Clone, Args)]
pub struct DeadLettersArgs {
    /// The config.
    #[command(flatten)]
    pub config: ConfigArgs,
    /// Only those of this stream
    #[arg(long, value_name = "STREAM")]
    pub stream: Option<String>,
    /// Only those that this sink refused
    #[arg(long, value_name = "SINK")]
    pub sink: Option<String>,
    /// Only those that were refused for this reason
    #[arg(long, value_name = "REASON", value_parser = reasons())]
    pub reason: Option<String>,
}

/// `trailcast dead-letters list`
#[derive(Debug, Args)]
pub struct DeadLettersListArgs {
    /// Which; default: all.
    #[command(flatten)]
    pub which: DeadLettersArgs,
    /// Answer in JSON, one object a line, with the records
    #[arg(long)]
    pub json: bool,
}

/// `trailcast dead-letters retry`
#[derive(Debug, Clone, Args)]
pub struct DeadLettersRetryArgs {
    /// Which; default: all.
    #[command(flatten)]
    pub which: DeadLettersArgs,
    /// Deliver to this sink instead of the one that refused them
    #[arg(long, value_name = "SINK")]
    pub to: Option<String>,
}

/// `trailcast dead-letters drop`
#[derive(Debug, Clone, Args)]
pub struct DeadLettersDropArgs {
    /// Which; default: all.
    #[command(flatten)]
    pub which: DeadLettersArgs,
    /// Do not ask
    #[arg(long)]
    pub yes: bool,
}

/// How the process ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// Done or drained.
    Done = 0,
    /// Failed while running: not drained, or a check found something.
    Failed = 1,
    /// Wrong usage or config. clap uses the same number.
    Usage = 2,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// As in the config.
fn duration(text: &str) -> Result<Duration, units::UnitError> {
    units::duration(text)
}

/// As in the config; `now` and an age are by this machine's clock.
fn time(text: &str) -> Result<Millis, UnitError> {
    Ok(match text.parse()? {
        Start::At(time) => time,
        Start::Now => clock::now(),
        Start::Age(age) => clock::now() - clock::millis(age),
    })
}

/// The closed set of them.
fn reasons() -> PossibleValuesParser {
    PossibleValuesParser::new(DeadLetterReason::ALL.map(DeadLetterReason::label))
}

fn format(text: &str) -> Result<Format, &'static str> {
    match text {
        "ocsf" => Ok(Format::Ocsf),
        "ecs" => Ok(Format::Ecs),
        "native" => Ok(Format::Native),
        _ => Err("expected `ocsf`, `ecs` or `native`"),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    fn parse(line: &str) -> Result<Command, String> {
        Cli::try_parse_from(line.split(' ')).map(|cli| cli.command).map_err(|error| error.to_string())
    }

    #[test]
    fn the_definition_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn commands() {
        let Ok(Command::Run(run)) = parse("trailcast run -c a.yaml --until-caught-up") else { panic!() };
        assert_eq!((run.config.config, run.until_caught_up), (PathBuf::from("a.yaml"), true));
        assert!(run.timeout.is_none());
        let Ok(Command::Run(run)) = parse("trailcast run -c a --until-caught-up --timeout 5m") else { panic!() };
        assert_eq!(run.timeout, Some(Duration::from_secs(300)));
        let Ok(Command::Check(check)) = parse("trailcast check --config a.yaml --offline --json") else { panic!() };
        assert!(check.offline && check.json);
        let Ok(Command::Demo(demo)) = parse("trailcast demo --for 1h30m --faults --format ecs") else { panic!() };
        assert_eq!(demo.duration, Some(Duration::from_secs(5_400)));
        assert_eq!((demo.faults, demo.format), (true, Format::Ecs));
        let Ok(Command::Demo(demo)) = parse("trailcast demo") else { panic!() };
        assert_eq!((demo.duration, demo.faults, demo.format), (None, false, Format::Ocsf));
        let line = "trailcast cursor set -c a.yaml --stream s --sink k --to 1970-01-01T00:00:01Z --yes";
        let Ok(Command::Cursor(CursorCommand::Set(set))) = parse(line) else { panic!() };
        assert_eq!((set.to, set.skip, set.yes), (1_000, false, true));
        assert_eq!((set.lanes.stream.as_deref(), set.lanes.sink.as_deref()), (Some("s"), Some("k")));
        assert!(matches!(parse("trailcast cursor show -c a"), Ok(Command::Cursor(CursorCommand::Show(_)))));
        assert!(matches!(parse("trailcast cursor delete -c a"), Ok(Command::Cursor(CursorCommand::Delete(_)))));
        assert!(matches!(parse("trailcast schema"), Ok(Command::Schema)));
    }

    #[test]
    fn mistakes_say_what_was_expected() {
        for (line, expected) in [
            ("trailcast run", "--config <FILE>"),
            ("trailcast demo --for 30", "expected a duration such as `500ms`"),
            ("trailcast demo --format xml", "expected `ocsf`, `ecs` or `native`"),
            (
                "trailcast cursor set -c a --to yesterday",
                "expected `now`, an age such as `30d`, or a time such as `2026-01-31T00:00:00Z`",
            ),
            ("trailcast cursor set -c a", "--to <now|AGE|TIME>"),
            ("trailcast rum -c a", "'run'"),
            (
                "trailcast dead-letters list -c a --reason bogus",
                "possible values: too_large, invalid, rejected, too_old, dropped",
            ),
            ("trailcast run -c a --timeout 5m", "--until-caught-up"),
        ] {
            let error = parse(line).unwrap_err();
            assert!(error.contains(expected), "{line}: {error}");
        }
    }

    #[test]
    fn help_teaches() {
        let help = Cli::command().render_long_help().to_string();
        for part in ["Tails the audit logs", "Examples:", "trailcast demo --for 30s", "Exit status: 0"] {
            assert!(help.contains(part), "{part}\n{help}");
        }
        assert!(
            parse("trailcast --version").unwrap_err().starts_with(concat!("trailcast ", env!("CARGO_PKG_VERSION")))
        );
    }

    /// Longer ones are broken anew where they are shown, in the middle of an example.
    #[test]
    fn lines_that_stand_as_they_are_written_are_short() {
        fn all(command: &clap::Command) -> Vec<String> {
            let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
            let mut lines: Vec<String> = help.lines().map(ToOwned::to_owned).collect();
            lines.extend(command.get_subcommands().flat_map(all));
            lines
        }
        let lines = all(&Cli::command());
        assert!(lines.len() > 30, "{lines:?}");
        for line in lines {
            assert!(line.chars().count() <= 95, "{} characters: {line}", line.chars().count());
        }
    }

    #[test]
    fn every_example_parses() {
        fn examples(command: &clap::Command, lines: &mut Vec<String>) {
            let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
            lines.extend(help.lines().filter_map(|line| line.strip_prefix("  trailcast ")).map(ToOwned::to_owned));
            command.get_subcommands().for_each(|command| examples(command, lines));
        }
        let mut lines = Vec::new();
        examples(&Cli::command(), &mut lines);
        assert!(lines.len() > 10, "{lines:?}");
        for line in lines {
            // What follows is for the shell, or says what the command does.
            let line = line.split(" |").next().and_then(|line| line.split(" >").next()).unwrap_or_default();
            let line = line.split("  ").next().unwrap_or_default();
            assert!(parse(&format!("trailcast {line}")).is_ok(), "{line}");
        }
    }
}
