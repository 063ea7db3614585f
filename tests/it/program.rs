//! The program as its users start it. Alone knows the binary, its arguments, its config and how to end it.

use std::fmt::Write as _;
use std::fs::{File, OpenOptions};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, ChildStdout, Command};
use tokio::task::JoinHandle;
use trailcast::event::Millis;
use trailcast::simulate::{Options, Simulator, genauth, scloud};

use crate::ledger::Event;

const TRAILCAST: &str = env!("CARGO_BIN_EXE_trailcast");
/// The longest that anything is waited for: no test needs a tenth of it on an idle machine.
pub const BOUND: Duration = Duration::from_secs(120);
/// Between two looks at what no one tells us of.
const LOOK: Duration = Duration::from_millis(20);

/// Stream keys that make a run quick; any stays as it is where a test says something else of it.
const QUICK: [(&str, &str); 7] = [
    ("start", "15m"),
    ("poll_interval", "1s"),
    ("overlap", "2s"),
    ("sweeps", "[3s]"),
    ("concurrency", "8"),
    ("rate_limit", "1000"),
    ("request_timeout", "10s"),
];

/// A config in a folder of its own, with what the program leaves there.
pub struct Config {
    pub folder: TempDir,
    pub streams: Vec<Stream>,
    /// YAML: what stands below `sinks`.
    pub sinks: String,
    /// The folder of the checkpoint.
    pub checkpoint: PathBuf,
    /// YAML: what stands below `checkpoint` instead of a file in that folder.
    pub store: Option<String>,
    /// YAML: what stands below `dead_letters`, if anything is to.
    pub dead_letters: Option<String>,
    /// YAML: what stands below `traces`, if anything is to.
    pub traces: Option<String>,
    /// YAML: what stands below `memory`, if anything is to.
    pub memory: Option<String>,
    /// `log.level`
    pub level: &'static str,
}

/// One stream of a config.
#[derive(Clone)]
pub struct Stream {
    pub name: &'static str,
    /// YAML: `genauth` or `scloud` and what stands below it, as one line.
    pub source: String,
    pub keys: Vec<(&'static str, String)>,
}

impl Stream {
    /// The stream `users` of a GenAuth API at `url`.
    pub fn users(url: &str) -> Self {
        Self::genauth(url, genauth::USER_POOL_ID, genauth::ACCESS_KEY_SECRET)
    }

    pub fn genauth(url: &str, pool: &str, secret: &str) -> Self {
        let key = genauth::ACCESS_KEY_ID;
        Self {
            name: "users",
            source: format!(
                "genauth: {{ endpoint: \"{url}\", user_pool_id: {pool}, access_key_id: {key}, access_key_secret: \"{secret}\" }}"
            ),
            keys: Vec::new(),
        }
    }

    /// The stream `cloud` of an SCloud API at `url`.
    pub fn cloud(url: &str) -> Self {
        let (project, public, private) = (scloud::PROJECT_ID, scloud::PUBLIC_KEY, scloud::PRIVATE_KEY);
        Self {
            name: "cloud",
            source: format!(
                "scloud: {{ endpoint: \"{url}\", project_id: {project}, public_key: \"{public}\", private_key: \"{private}\" }}"
            ),
            keys: Vec::new(),
        }
    }

    /// With a key of the stream set.
    pub fn with(mut self, key: &'static str, value: impl Into<String>) -> Self {
        self.keys.push((key, value.into()));
        self
    }
}

impl Config {
    /// One sink, `out`, in the format `native`.
    pub fn new(streams: impl IntoIterator<Item = Stream>) -> Self {
        let folder = tempfile::tempdir().expect("a folder for the test");
        Self {
            streams: streams.into_iter().collect(),
            sinks: "{ out: { stdout: { format: native } } }".to_owned(),
            checkpoint: folder.path().join("state"),
            store: None,
            dead_letters: None,
            traces: None,
            memory: None,
            level: "info",
            folder,
        }
    }

    /// Both streams of a simulator.
    pub fn of(simulator: &Simulator) -> Self {
        Self::new([Stream::users(&simulator.url()), Stream::cloud(&simulator.url())])
    }

    /// Each stream begins at `time`.
    pub fn starting_at(mut self, time: Millis) -> Self {
        let time = jiff::Timestamp::from_millisecond(time).expect("a time of this century").to_string();
        self.streams = self.streams.into_iter().map(|stream| stream.with("start", time.clone())).collect();
        self
    }

    /// Writes it, and says where.
    pub fn file(&self) -> PathBuf {
        let mut text = "streams:\n".to_owned();
        for stream in &self.streams {
            let _ = writeln!(text, "  {}:\n    {}", stream.name, stream.source);
            let quick = QUICK.into_iter().filter(|(key, _)| stream.keys.iter().all(|(said, _)| said != key));
            let said = stream.keys.iter().map(|(key, value)| (*key, value.as_str()));
            for (key, value) in quick.chain(said) {
                let _ = writeln!(text, "    {key}: {value}");
            }
        }
        let _ = writeln!(text, "sinks: {}", self.sinks);
        match &self.store {
            Some(store) => drop(writeln!(text, "checkpoint: {store}")),
            None => drop(writeln!(text, "checkpoint: {{ file: {{ path: \"{}\" }} }}", self.checkpoint.display())),
        }
        if let Some(dead_letters) = &self.dead_letters {
            let _ = writeln!(text, "dead_letters: {dead_letters}");
        }
        if let Some(traces) = &self.traces {
            let _ = writeln!(text, "traces: {traces}");
        }
        if let Some(memory) = &self.memory {
            let _ = writeln!(text, "memory: {memory}");
        }
        let _ = writeln!(text, "admin: {{ listen: \"127.0.0.1:0\" }}\nlog: {{ level: \"{}\" }}", self.level);
        let path = self.folder.path().join("trailcast.yaml");
        std::fs::write(&path, text).expect("the config can be written");
        path
    }

    /// Where [`Config::append`] leads.
    pub fn out(&self) -> PathBuf {
        self.folder.path().join("out.ndjson")
    }

    /// A stdout as the shell's `>>` makes it.
    pub fn append(&self) -> Stdio {
        OpenOptions::new().append(true).create(true).open(self.out()).expect("a file for events").into()
    }

    /// All events that were appended so far.
    pub fn events(&self) -> Vec<Event> {
        Event::all_of(&self.out())
    }

    /// Starts `trailcast run`, its events appended.
    pub fn run(&self) -> Program {
        self.start(&[], self.append())
    }

    /// Starts `trailcast run` with more arguments. A file that may not grow is an error to it, not the end.
    pub fn start(&self, more: &[&str], stdout: Stdio) -> Program {
        self.start_after("true", more, stdout)
    }

    /// The same after a command of the shell that starts it, such as `ulimit`.
    pub fn start_after(&self, first: &str, more: &[&str], stdout: Stdio) -> Program {
        let mut command = Command::new("sh");
        let script = format!("trap '' XFSZ; {first} && exec \"$@\"");
        command.args(["-c", &script, "sh", TRAILCAST, "run", "-c"]);
        command.arg(self.file()).args(more).stdin(Stdio::null()).stdout(stdout).kill_on_drop(true);
        Program::of(command)
    }

    /// `trailcast run --until-caught-up`, its events appended, until it ends.
    ///
    /// # Panics
    /// Unless it ends with 0.
    pub async fn catch_up(&self) -> Vec<String> {
        let mut program = self.start(&["--until-caught-up"], self.append());
        let status = program.ended().await;
        assert_eq!(status.code(), Some(0), "{}", program.log());
        program.lines()
    }

    /// Runs `trailcast COMMAND -c FILE MORE` to its end, with nothing on stdin.
    pub async fn command(&self, words: &[&str], more: &[&str]) -> Answer {
        let file = self.file();
        let mut command = command(words);
        answer(command.arg("-c").arg(file).args(more)).await
    }
}

/// What a command answered.
#[derive(Debug)]
pub struct Answer {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

/// Runs `trailcast WORDS` to its end, with nothing on stdin.
pub async fn trailcast(words: &[&str]) -> Answer {
    answer(&mut command(words)).await
}

async fn answer(command: &mut Command) -> Answer {
    let output = tokio::time::timeout(BOUND, command.output()).await.expect("it ends").expect("it starts");
    Answer {
        code: output.status.code(),
        stdout: String::from_utf8(output.stdout).expect("stdout is UTF-8"),
        stderr: String::from_utf8(output.stderr).expect("stderr is UTF-8"),
    }
}

fn command(words: &[&str]) -> Command {
    let mut command = Command::new(TRAILCAST);
    command.args(words).stdin(Stdio::null()).kill_on_drop(true);
    command
}

/// A running `trailcast run`; killed when dropped.
pub struct Program {
    child: Child,
    lines: Arc<Mutex<Vec<String>>>,
    reader: JoinHandle<()>,
    client: reqwest::Client,
}

impl Program {
    fn of(mut command: Command) -> Self {
        let mut child = command.stderr(Stdio::piped()).spawn().expect("it starts");
        let mut stderr = BufReader::new(child.stderr.take().expect("it is piped")).lines();
        let lines = Arc::new(Mutex::new(Vec::new()));
        let read = Arc::clone(&lines);
        let reader = tokio::spawn(async move {
            while let Ok(Some(line)) = stderr.next_line().await {
                read.lock().expect("no reader panics").push(line);
            }
        });
        trailcast::source::install_tls_provider();
        let client = reqwest::Client::builder().no_proxy().timeout(BOUND).build().expect("a client");
        Self { child, lines, reader, client }
    }

    /// Its stdout, if that was piped. Dropping it closes the pipe.
    pub fn stdout(&mut self) -> ChildStdout {
        self.child.stdout.take().expect("stdout is piped")
    }

    /// Its log so far.
    pub fn lines(&self) -> Vec<String> {
        self.lines.lock().expect("no reader panics").clone()
    }

    /// Its log so far, to be shown.
    pub fn log(&self) -> String {
        self.lines().join("\n")
    }

    /// The lines of its log that contain `text`.
    pub fn logged(&self, text: &str) -> Vec<String> {
        self.lines().into_iter().filter(|line| line.contains(text)).collect()
    }

    /// Waits for a line of its log that contains `text`.
    pub async fn says(&self, text: &str) -> String {
        until(&format!("the line {text:?} in its log"), || self.log(), async || self.logged(text).into_iter().next())
            .await
    }

    /// Waits until `look` finds something.
    pub async fn shows<T>(&self, what: &str, look: impl AsyncFnMut() -> Option<T>) -> T {
        until(what, || self.log(), look).await
    }

    /// Where its admin server listens, as its log says.
    pub async fn admin(&self) -> SocketAddr {
        let line: Value = serde_json::from_str(&self.says("\"admin\":").await).expect("a line of the log is JSON");
        line["admin"].as_str().and_then(|address| address.parse().ok()).expect("an address")
    }

    /// What the admin server answers at `path`.
    pub async fn get(&self, path: &str) -> String {
        let url = format!("http://{}{path}", self.admin().await);
        let answer = async { self.client.get(url).header("accept", "application/json").send().await?.text().await };
        answer.await.unwrap_or_else(|error| panic!("{path} has no answer: {error}\n{}", self.log()))
    }

    /// `/status`
    pub async fn status(&self) -> Value {
        serde_json::from_str(&self.get("/status").await).expect("JSON")
    }

    /// A stream's entry in `/status`.
    pub async fn stream(&self, name: &str) -> Value {
        let status = self.status().await;
        let streams = status["streams"].as_array().expect("streams").clone();
        streams.into_iter().find(|stream| stream["name"] == name).expect("the stream")
    }

    /// A metric's value, by name and labels as `/metrics` writes them.
    pub async fn metric(&self, series: &str) -> Option<f64> {
        let text = self.get("/metrics").await;
        text.lines().find_map(|line| line.strip_prefix(series)?.trim().parse().ok())
    }

    /// A lane's count of events that are delivered and committed.
    pub async fn delivered(&self, stream: &str, sink: &str) -> f64 {
        let series = format!("trailcast_events_delivered_total{{sink=\"{sink}\",stream=\"{stream}\"}}");
        self.metric(&series).await.unwrap_or(0.0)
    }

    /// Waits until these lanes were swept through `end` at the oldest age.
    pub async fn verified(&self, streams: &[&str], sink: &str, end: Millis) {
        for stream in streams {
            let series = format!("trailcast_verified_through_timestamp_seconds{{sink=\"{sink}\",stream=\"{stream}\"}}");
            #[expect(clippy::cast_precision_loss, reason = "a time of this century")]
            let through = async || self.metric(&series).await.filter(|mark| mark * 1000.0 >= end as f64);
            self.shows(&format!("{stream} verified through {end}"), through).await;
        }
    }

    /// The most memory that it has held so far, MiB, as the system counts it.
    pub fn peak(&self) -> u64 {
        self.count("VmHWM:") / 1024
    }

    /// What the system counts of it, such as `VmRSS`, in KiB where it is bytes, or `Threads`.
    pub fn count(&self, what: &str) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.id())).expect("it runs, on Linux");
        let line = status.lines().find_map(|line| line.strip_prefix(what)).expect("a count");
        line.trim().trim_end_matches(" kB").parse().expect("a number")
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.child.id().expect("it runs")
    }

    /// Sends a signal such as `TERM`.
    pub fn signal(&self, name: &str) {
        let pid = self.id().to_string();
        let status = std::process::Command::new("kill").args(["-s", name, &pid]).status();
        assert!(status.expect("kill is there").success());
    }

    /// Whether it runs on.
    pub fn runs(&mut self) -> bool {
        self.child.try_wait().expect("it can be asked").is_none()
    }

    /// Waits for its end and the end of its log.
    pub async fn ended(&mut self) -> ExitStatus {
        let status = tokio::time::timeout(BOUND, self.child.wait()).await;
        let Ok(status) = status else { panic!("it does not end:\n{}", self.log()) };
        (&mut self.reader).await.expect("the reader does not panic");
        status.expect("it can be waited for")
    }

    /// Asks it to end and waits until it has, whether or not it could drain.
    pub async fn drain_or_not(mut self) {
        self.signal("TERM");
        let _ = self.ended().await;
    }

    /// Asks it to end and waits until it has.
    ///
    /// # Panics
    /// Unless it drained.
    pub async fn drain(mut self) -> Vec<String> {
        self.signal("TERM");
        let status = self.ended().await;
        assert_eq!(status.code(), Some(0), "{}", self.log());
        self.lines()
    }
}

/// Waits until `look` finds something; `context` is shown if it never does.
pub async fn until<T>(what: &str, context: impl Fn() -> String, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let found = async {
        loop {
            if let Some(found) = look().await {
                return found;
            }
            tokio::time::sleep(LOOK).await;
        }
    };
    match tokio::time::timeout(BOUND, found).await {
        Ok(found) => found,
        Err(_) => panic!("waited in vain for {what}\n{}", context()),
    }
}

/// Both APIs at a free port.
pub async fn simulate(options: Options) -> Simulator {
    Simulator::start(options).await.expect("a free port on loopback")
}

/// A history of so many records of each source that nothing is added to. A second of SCloud fits a page: equal records on
/// two pages of one second are nothing that a reader can count.
pub fn history(events: u64) -> Options {
    Options { rate: 20.0, events: Some(events), ..Options::default() }
}

/// A file whose content is `text`.
pub fn file_of(path: &std::path::Path, text: &str) -> File {
    std::fs::write(path, text).expect("the file can be written");
    OpenOptions::new().append(true).open(path).expect("the file can be opened")
}
