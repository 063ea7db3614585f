//! Runs the binary on both streams of a simulator, as often as it is killed.

use std::fs::{File, OpenOptions};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use trailcast::event::Millis;
use trailcast::simulate::{genauth, scloud};

/// Longer than any condition takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(120);

/// A folder with a config, a checkpoint, the events and the log of all runs.
pub struct Place {
    folder: tempfile::TempDir,
}

/// A running exporter; killed when dropped.
pub struct Exporter {
    child: Child,
    log: PathBuf,
    log_before: usize,
}

impl Place {
    /// For both streams of the simulator at `url`, with `extra` lines for each stream, from `start`.
    pub fn new(url: &str, start: Millis, extra: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let extra: String = extra.iter().map(|line| format!("    {line}\n")).collect();
        let start = jiff::Timestamp::from_millisecond(start).unwrap();
        let common = format!("    start: {start}\n{extra}");
        let config = format!(
            "streams:\n  users:\n    genauth:\n      endpoint: {url}\n      user_pool_id: {}\n      access_key_id: {}\n      \
             access_key_secret: {}\n{common}  cloud:\n    scloud:\n      endpoint: {url}\n      project_id: {}\n      \
             public_key: {}\n      private_key: {}\n{common}sinks:\n  out: {{ stdout: {{ format: native }} }}\n\
             checkpoint: {{ file: {{ path: {}/state }} }}\nadmin: {{ listen: \"127.0.0.1:0\" }}\n",
            genauth::USER_POOL_ID,
            genauth::ACCESS_KEY_ID,
            genauth::ACCESS_KEY_SECRET,
            scloud::PROJECT_ID,
            scloud::PUBLIC_KEY,
            scloud::PRIVATE_KEY,
            folder.path().display(),
        );
        std::fs::write(folder.path().join("config.yaml"), config).unwrap();
        Self { folder }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// All events that came out so far.
    pub fn events(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(self.path("events")).unwrap_or_default()).into_owned()
    }

    /// How many bytes of events came out so far.
    pub fn size(&self) -> u64 {
        std::fs::metadata(self.path("events")).map_or(0, |metadata| metadata.len())
    }

    /// Starts `trailcast run`, its stdout appended to the events.
    pub fn start(&self) -> Exporter {
        let append = |name| OpenOptions::new().create(true).append(true).open(self.path(name)).unwrap();
        let log: File = append("log");
        let log_before = usize::try_from(log.metadata().unwrap().len()).unwrap();
        let child = Command::new(env!("CARGO_BIN_EXE_trailcast"))
            .args(["run", "-c"])
            .arg(self.path("config.yaml"))
            .stdin(Stdio::null())
            .stdout(append("events"))
            .stderr(log)
            .spawn()
            .unwrap();
        Exporter { child, log: self.path("log"), log_before }
    }
}

impl Exporter {
    /// SIGKILL: nothing in the process knows of it.
    pub fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// SIGTERM, and the end.
    pub fn terminate(mut self) -> ExitStatus {
        let status = Command::new("kill").arg(self.child.id().to_string()).status().unwrap();
        assert!(status.success());
        self.child.wait().unwrap()
    }

    pub fn has_ended(&mut self) -> bool {
        self.child.try_wait().unwrap().is_some()
    }

    /// What this run has logged.
    pub fn log(&self) -> String {
        let log = std::fs::read(&self.log).unwrap_or_default();
        String::from_utf8_lossy(&log[self.log_before..]).into_owned()
    }

    /// Waits until both lanes have been swept through `time` at the oldest age.
    pub async fn verified_through(&mut self, time: Millis) {
        let began = Instant::now();
        trailcast::source::install_tls_provider();
        let client = reqwest::Client::builder().no_proxy().tls_certs_only([]).build().unwrap();
        let mut marks = Vec::new();
        while marks.len() < 2 || marks.iter().any(|mark| mark * 1000.0 < time as f64) {
            assert!(!self.has_ended(), "the exporter ended:\n{}", self.log());
            assert!(began.elapsed() < PATIENCE, "not verified in {PATIENCE:?}: {marks:?} of {time}\n{}", self.log());
            tokio::time::sleep(Duration::from_millis(50)).await;
            let Some(address) = self.admin() else { continue };
            let Ok(answer) = client.get(format!("http://{address}/metrics")).send().await else { continue };
            let metrics = answer.text().await.unwrap_or_default();
            let lines = metrics.lines().filter(|line| line.starts_with("trailcast_verified_through_timestamp_seconds"));
            marks = lines.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).collect();
        }
    }

    fn admin(&self) -> Option<String> {
        let log = self.log();
        let line = log.lines().find(|line| line.contains("\"admin\""))?;
        let line: serde_json::Value = serde_json::from_str(line).ok()?;
        let find = |value: &serde_json::Value| value["admin"].as_str().map(ToOwned::to_owned);
        find(&line).or_else(|| find(&line["fields"]))
    }
}

impl Drop for Exporter {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
