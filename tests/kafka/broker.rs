//! Apache Kafka as a test needs it: started, stopped, killed, started again, and seen by its own client, [`Java`].
//! Alone knows how brokers are started and what they are told.
//!
//! Each broker has a listener for clients, secured as [`Options`] say, and one inside, in plain text and without limits,
//! where brokers and tests meet. Ports lie below those that the system hands out to outgoing connections, so that a
//! broker that was killed finds them free again.

use std::collections::{BTreeMap, HashSet};
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rand::RngExt;
use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::metadata::Metadata;
use rdkafka::producer::{BaseProducer, Producer};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tempfile::TempDir;

use crate::program::{Answer, BOUND, until};

const SCRIPTS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/kafka");
/// For one request to a broker that may not answer yet.
const REQUEST: Duration = Duration::from_secs(2);
const PORTS: std::ops::Range<u16> = 12_000..32_000;

/// How brokers are to be.
#[derive(Clone, Default)]
pub struct Options {
    tls: bool,
    users: Vec<(String, String)>,
    properties: Vec<(String, String)>,
}

impl Options {
    /// A property of the broker, in Apache Kafka's words. Of two the later counts, and any counts more than ours.
    pub fn with(mut self, key: &str, value: &str) -> Self {
        self.properties.push((key.to_owned(), value.to_owned()));
        self
    }

    /// Clients speak TLS; see [`Broker::certificates`].
    pub fn tls(mut self) -> Self {
        self.tls = true;
        self
    }

    /// Clients show a certificate, which names them: `User:CN=trailcast`.
    pub fn mutual_tls(self) -> Self {
        self.tls().with("listener.name.client.ssl.client.auth", "required")
    }

    /// Clients say a password, by PLAIN, SCRAM-SHA-256 or SCRAM-SHA-512; this is one that is right.
    pub fn user(mut self, name: &str, password: &str) -> Self {
        self.users.push((name.to_owned(), password.to_owned()));
        self
    }

    /// Clients may do what [`Java::allow`] says, and nothing else.
    pub fn acls(self) -> Self {
        self.with("authorizer.class.name", "org.apache.kafka.metadata.authorizer.StandardAuthorizer")
            .with("super.users", "User:ANONYMOUS")
    }

    fn protocol(&self) -> &'static str {
        match (self.tls, self.users.is_empty()) {
            (false, true) => "PLAINTEXT",
            (true, true) => "SSL",
            (false, false) => "SASL_PLAINTEXT",
            (true, false) => "SASL_SSL",
        }
    }

    /// The properties that secure the listener for clients.
    fn secured(&self, certificates: &Path) -> Vec<(String, String)> {
        let mut properties = Vec::new();
        let mut set = |key: &str, value: String| properties.push((format!("listener.name.client.{key}"), value));
        if self.tls {
            set("ssl.keystore.type", "PEM".to_owned());
            set("ssl.keystore.location", certificates.join("server-keystore.pem").display().to_string());
            set("ssl.truststore.type", "PEM".to_owned());
            set("ssl.truststore.location", certificates.join("ca.pem").display().to_string());
        }
        if !self.users.is_empty() {
            set("sasl.enabled.mechanisms", "PLAIN,SCRAM-SHA-256,SCRAM-SHA-512".to_owned());
            let scram = "org.apache.kafka.common.security.scram.ScramLoginModule required;";
            set("scram-sha-256.sasl.jaas.config", scram.to_owned());
            set("scram-sha-512.sasl.jaas.config", scram.to_owned());
            let users: String = self.users.iter().map(|(name, word)| format!(" user_{name}=\"{word}\"")).collect();
            let plain = "org.apache.kafka.common.security.plain.PlainLoginModule required";
            set("plain.sasl.jaas.config", format!("{plain}{users};"));
        }
        properties
    }
}

/// A broker, and a controller in the same process; killed when dropped.
pub struct Broker {
    /// `node.id`, from 1
    pub id: i32,
    dir: PathBuf,
    ports: Ports,
    arguments: Vec<String>,
    child: Option<Child>,
    folder: Arc<Folder>,
}

#[derive(Clone, Copy)]
struct Ports {
    client: u16,
    inside: u16,
    controller: u16,
}

impl Broker {
    /// Starts the only broker of a cluster, and waits until it serves.
    pub async fn start(options: Options) -> Self {
        let mut cluster = Cluster::start_of(1, options).await;
        cluster.brokers.remove(0)
    }

    /// Where clients connect.
    pub fn bootstrap(&self) -> String {
        format!("127.0.0.1:{}", self.ports.client)
    }

    /// Where a test connects: in plain text, with all rights.
    pub fn inside(&self) -> String {
        format!("127.0.0.1:{}", self.ports.inside)
    }

    /// A client of librdkafka's at [`Broker::inside`], to be configured further.
    pub fn client(&self) -> ClientConfig {
        client(&self.inside())
    }

    /// Apache Kafka's own client at [`Broker::inside`].
    pub fn java(&self) -> Java {
        Java::at(&self.inside())
    }

    /// What tests/kafka/certificates made: `ca.pem`, `client.pem`, `client.key`, `other-ca.pem` and more.
    pub fn certificates(&self) -> PathBuf {
        self.folder.certificates()
    }

    /// Ends it at once, as a lost machine would, and waits until it has gone.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().expect("it can be killed");
            child.wait().expect("it can be waited for");
        }
    }

    /// Sends a signal such as `STOP` or `CONT`.
    pub fn signal(&self, name: &str) {
        let pid = self.child.as_ref().expect("it was not killed").id().to_string();
        let status = Command::new("kill").args(["-s", name, &pid]).status();
        assert!(status.expect("kill is there").success());
    }

    /// Asks it to end, as an upgrade does, and waits until it has.
    pub async fn shut_down(&mut self) {
        self.signal("TERM");
        let mut child = self.child.take().expect("it was not killed");
        let dir = self.dir.clone();
        until("the broker's end", || log(&dir), async || child.try_wait().expect("it can be asked")).await;
    }

    /// Starts it again on the same folder and ports, after its end, and waits until it serves.
    pub async fn restart(&mut self) {
        assert!(self.child.is_none(), "it runs");
        self.spawn();
        self.serves(1).await;
    }

    /// The end of what it said.
    pub fn log(&self) -> String {
        log(&self.dir)
    }

    fn spawn(&mut self) {
        let mut command = Command::new(format!("{SCRIPTS}/broker"));
        command.args(&self.arguments).stdin(Stdio::null()).stdout(Stdio::null());
        self.child = Some(command.spawn().expect("tests/kafka/broker starts"));
    }

    /// Waits until it knows of so many brokers, itself among them, and of a coordinator of transactions.
    async fn serves(&mut self, brokers: usize) {
        let (id, dir, at) = (self.id, self.dir.clone(), self.inside());
        let child = self.child.as_mut().expect("it was started");
        until(
            &format!("broker {id}"),
            || log(&dir),
            async || {
                if let Some(status) = child.try_wait().expect("it can be asked") {
                    panic!("broker {id} has ended, {status}:\n{}", log(&dir));
                }
                let at = at.clone();
                blocking(move || serves(&at, id, brokers)).await.then_some(())
            },
        )
        .await;
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Brokers that are one cluster; topics and transactions outlive any one of three.
pub struct Cluster {
    pub brokers: Vec<Broker>,
}

impl Cluster {
    pub async fn start(brokers: usize) -> Self {
        Self::start_of(brokers, Options::default()).await
    }

    pub async fn start_of(count: usize, options: Options) -> Self {
        let folder = Arc::new(Folder(tempfile::tempdir().expect("a folder for the brokers")));
        if options.tls {
            let certificates = folder.certificates();
            let status = Command::new(format!("{SCRIPTS}/certificates")).arg(certificates).status();
            assert!(status.expect("it starts").success(), "no certificates");
        }
        let ports: Vec<Ports> =
            (0..count).map(|_| Ports { client: port(), inside: port(), controller: port() }).collect();
        let ids = || 1i32..;
        let voters: Vec<String> =
            ids().zip(&ports).map(|(id, ports)| format!("{id}@127.0.0.1:{}", ports.controller)).collect();
        let mut properties = vec![("controller.quorum.voters".to_owned(), voters.join(","))];
        if count > 1 {
            let (all, most) = (count.to_string(), (count / 2 + 1).to_string());
            for (key, value) in [
                ("offsets.topic.replication.factor", &all),
                ("transaction.state.log.replication.factor", &all),
                ("transaction.state.log.min.isr", &most),
                ("default.replication.factor", &all),
                ("min.insync.replicas", &most),
            ] {
                properties.push((key.to_owned(), value.clone()));
            }
        }
        properties.extend(options.secured(&folder.certificates()));
        let brokers = ids().zip(ports).map(|(id, ports)| {
            let dir = folder.0.path().join(id.to_string());
            let mut arguments = Vec::new();
            for (name, password) in &options.users {
                arguments.extend(["--scram".to_owned(), format!("{name}={password}")]);
            }
            arguments.extend([dir.display().to_string(), id.to_string()]);
            arguments.extend([ports.client.to_string(), ports.controller.to_string()]);
            let listeners = format!(
                "CLIENT://127.0.0.1:{},INSIDE://127.0.0.1:{},CONTROLLER://127.0.0.1:{}",
                ports.client, ports.inside, ports.controller
            );
            let protocols = format!("CLIENT:{},INSIDE:PLAINTEXT,CONTROLLER:PLAINTEXT", options.protocol());
            arguments.push(format!("listeners={listeners}"));
            arguments.push(format!("listener.security.protocol.map={protocols}"));
            arguments.push("inter.broker.listener.name=INSIDE".to_owned());
            arguments.extend(properties.iter().chain(&options.properties).map(|(key, value)| format!("{key}={value}")));
            Broker { id, dir, ports, arguments, child: None, folder: Arc::clone(&folder) }
        });
        let mut brokers: Vec<Broker> = brokers.collect();
        for broker in &mut brokers {
            broker.spawn();
        }
        for broker in &mut brokers {
            broker.serves(count).await;
        }
        Self { brokers }
    }

    /// Where clients connect: all brokers.
    pub fn bootstrap(&self) -> String {
        self.brokers.iter().map(Broker::bootstrap).collect::<Vec<_>>().join(",")
    }

    /// Where a test connects: all brokers, in plain text, with all rights.
    pub fn inside(&self) -> String {
        self.brokers.iter().map(Broker::inside).collect::<Vec<_>>().join(",")
    }

    pub fn client(&self) -> ClientConfig {
        client(&self.inside())
    }

    pub fn java(&self) -> Java {
        Java::at(&self.inside())
    }

    /// The broker that leads a partition, once one does.
    pub async fn leader(&mut self, topic: &str, partition: i32) -> &mut Broker {
        let id = self
            .shows(topic, "a leader", move |metadata| {
                let mut partitions = metadata.topics().iter().flat_map(|topic| topic.partitions());
                let leader = partitions.find(|found| found.id() == partition)?.leader();
                (leader > 0).then_some(leader)
            })
            .await;
        self.brokers.iter_mut().find(|broker| broker.id == id).expect("brokers have these ids")
    }

    /// Waits until every partition of a topic is on `brokers` brokers in full.
    pub async fn in_sync(&self, topic: &str, brokers: usize) {
        self.shows(topic, "all replicas in sync", move |metadata| {
            let mut partitions = metadata.topics().iter().flat_map(|topic| topic.partitions());
            partitions.all(|partition| partition.isr().len() == brokers).then_some(())
        })
        .await;
    }

    async fn shows<T: Send + 'static>(
        &self,
        topic: &str,
        what: &str,
        look: impl Fn(&Metadata) -> Option<T> + Clone + Send + 'static,
    ) -> T {
        let logs = || self.brokers.iter().map(Broker::log).collect::<Vec<_>>().join("\n");
        until(&format!("{what} of {topic}"), logs, async || {
            let (at, topic, look) = (self.inside(), topic.to_owned(), look.clone());
            blocking(move || {
                let consumer: BaseConsumer = client(&at).create().expect("a client");
                look(&consumer.fetch_metadata(Some(&topic), REQUEST).ok()?)
            })
            .await
        })
        .await
    }
}

/// Apache Kafka's own client: see tests/kafka/Client.java.
pub struct Java {
    bootstrap: String,
    properties: Option<PathBuf>,
}

/// Which records a consumer sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Isolation {
    Committed,
    Uncommitted,
}

/// A record as Java reads it.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Record {
    pub partition: i32,
    pub offset: i64,
    /// Milliseconds.
    pub timestamp: i64,
    pub key: Option<String>,
    pub headers: BTreeMap<String, String>,
    /// None: a tombstone.
    pub value: Option<String>,
    /// The partition that Java gives the key.
    pub java_partition: Option<i32>,
}

/// How many records of a topic a consumer sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub struct Counts {
    pub committed: u64,
    /// Those that were aborted, and those of open transactions, too.
    pub all: u64,
}

impl Java {
    pub fn at(bootstrap: &str) -> Self {
        Self { bootstrap: bootstrap.to_owned(), properties: None }
    }

    /// With properties of Java's client, such as `security.protocol`, that are written to `file`.
    pub fn with(mut self, file: PathBuf, properties: &[(&str, &str)]) -> Self {
        let text: String = properties.iter().map(|(key, value)| format!("{key}={value}\n")).collect();
        std::fs::write(&file, text).expect("properties can be written");
        self.properties = Some(file);
        self
    }

    /// Every record that is there now; of one partition in order.
    pub async fn consume(&self, topic: &str, isolation: Isolation) -> Vec<Record> {
        let mut words = vec![topic, "--partition-check"];
        if isolation == Isolation::Uncommitted {
            words.push("--uncommitted");
        }
        // Its status says whether all keys were partitioned as Java does, which a test sees in the records.
        let answer = self.tries("consume", &words).await;
        let whole = answer.code == Some(0) || answer.stderr.contains("the partition that Java gives");
        assert!(whole, "{}", answer.stderr);
        answer.stdout.lines().map(parse).collect()
    }

    pub async fn counts(&self, topic: &str) -> Counts {
        parse(&self.does("counts", &[topic]).await)
    }

    /// `configs` are `key=value`.
    pub async fn create(&self, topic: &str, partitions: i32, replication: i32, configs: &[&str]) {
        let (partitions, replication) = (partitions.to_string(), replication.to_string());
        self.does("create", &[&[topic, &partitions, &replication], configs].concat()).await;
    }

    /// `configs` are `key=value`; `key=` is the default again.
    pub async fn configure(&self, topic: &str, configs: &[&str]) {
        self.does("config", &[&[topic], configs].concat()).await;
    }

    /// `{"topic", "partitions": [{"partition", "leader", "replicas", "in_sync"}], "configs": {…}}`
    pub async fn describe(&self, topic: &str) -> Value {
        parse(&self.does("describe", &[topic]).await)
    }

    /// Lets a `principal` (`User:alice`) do `operations` (`Read`) with a `kind` (`Topic`, `Group`, `TransactionalId`,
    /// `Cluster`) of this name; `*`, or a name that ends with it, is many.
    pub async fn allow(&self, principal: &str, kind: &str, name: &str, operations: &[&str]) {
        self.does("acl", &[&["add", principal, kind, name], operations].concat()).await;
    }

    /// Takes back what [`Java::allow`] gave.
    pub async fn forbid(&self, principal: &str, kind: &str, name: &str, operations: &[&str]) {
        self.does("acl", &[&["remove", principal, kind, name], operations].concat()).await;
    }

    /// `{"group", "state", "members": [{"member", "instance", "client", "assigned": [{"topic", "partition"}]}]}`
    pub async fn group(&self, group: &str) -> Value {
        parse(&self.does("groups", &[group]).await)
    }

    /// `{"producers": [{"partition", "producer", "epoch", "last_sequence", "last_timestamp", "open_from"}],
    /// "transactions": [{"id", "state", "producer", "epoch", "timeout_ms", "partitions"}]}`: the producers that the
    /// topic knows, and all transactional ids, `the-tests-own` among them.
    pub async fn transactions(&self, topic: &str) -> Value {
        parse(&self.does("transactions", &[topic]).await)
    }

    /// # Panics
    /// If it fails.
    async fn does(&self, command: &str, words: &[&str]) -> String {
        let answer = self.tries(command, words).await;
        assert_eq!(answer.code, Some(0), "{command} {words:?}: {}", answer.stderr);
        answer.stdout
    }

    /// A command of Client.java that may fail.
    pub async fn tries(&self, command: &str, words: &[&str]) -> Answer {
        let mut java = tokio::process::Command::new(format!("{SCRIPTS}/client"));
        java.args([command, &self.bootstrap]).args(words).stdin(Stdio::null()).kill_on_drop(true);
        if let Some(file) = &self.properties {
            java.arg("--properties").arg(file);
        }
        let output = tokio::time::timeout(BOUND, java.output()).await.expect("it ends").expect("it starts");
        Answer {
            code: output.status.code(),
            stdout: String::from_utf8(output.stdout).expect("stdout is UTF-8"),
            stderr: String::from_utf8(output.stderr).expect("stderr is UTF-8"),
        }
    }
}

/// What brokers leave; kept, and said where, when the test has failed.
struct Folder(TempDir);

impl Folder {
    fn certificates(&self) -> PathBuf {
        self.0.path().join("certificates")
    }
}

impl Drop for Folder {
    #[expect(clippy::print_stderr, reason = "a failed test says where to look")]
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.disable_cleanup(true);
            eprintln!("the brokers' folders are kept: {}", self.0.path().display());
        }
    }
}

/// A free port that no other broker of this process was given.
fn port() -> u16 {
    static GIVEN: Mutex<Option<HashSet<u16>>> = Mutex::new(None);
    let mut given = GIVEN.lock().expect("no one panics with it");
    let given = given.get_or_insert_default();
    loop {
        let port = rand::rng().random_range(PORTS);
        if !given.contains(&port) && TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            given.insert(port);
            return port;
        }
    }
}

fn client(bootstrap: &str) -> ClientConfig {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", bootstrap);
    config
}

fn serves(at: &str, id: i32, brokers: usize) -> bool {
    // Cheaper than a client that tries in vain.
    if std::net::TcpStream::connect(at).is_err() {
        return false;
    }
    let consumer: BaseConsumer = client(at).create().expect("a client");
    let Ok(metadata) = consumer.fetch_metadata(None, REQUEST) else { return false };
    let known = metadata.brokers();
    if known.len() < brokers || known.iter().all(|broker| broker.id() != id) {
        return false;
    }
    // The first to ask makes the topic that the coordinator keeps transactions in.
    let mut config = client(at);
    // Short, for brokers that allow no longer.
    config.set("transactional.id", "the-tests-own").set("transaction.timeout.ms", "10000");
    let producer: BaseProducer = config.set("socket.timeout.ms", "10000").create().expect("a client");
    producer.init_transactions(10 * REQUEST).is_ok()
}

async fn blocking<T: Send + 'static>(what: impl FnOnce() -> T + Send + 'static) -> T {
    tokio::task::spawn_blocking(what).await.expect("it does not panic")
}

fn parse<T: DeserializeOwned>(text: &str) -> T {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("not what Client.java says: {error}: {text}"))
}

/// The end of what a broker said.
fn log(dir: &Path) -> String {
    let text = std::fs::read_to_string(dir.join("log")).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    format!("{}:\n{}", dir.display(), lines[lines.len().saturating_sub(30)..].join("\n"))
}
