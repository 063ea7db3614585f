//! A fault of ours, or of a library: no input is known that makes the program panic, so here its own lanes run before the
//! simulator with a checkpoint that does.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::ops::Range;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use trailcast::admin::StatusBoard;
use trailcast::checkpoint::{CheckpointError, MemoryStore, Store};
use trailcast::clock::millis;
use trailcast::config::{self, StreamConfig};
use trailcast::event::{StreamContext, StreamIdentity};
use trailcast::feed::Feed;
use trailcast::health::{self, LaneState};
use trailcast::lane::{self, Kept, Lane, LaneMaker, Until};
use trailcast::memory::Budget;
use trailcast::metrics::Metrics;
use trailcast::shutdown;
use trailcast::sink::Sink;
use trailcast::source::{Client, Connections, Limiter, install_tls_provider};
use trailcast::state::schedule::Schedule;
use trailcast::state::store::Changes;

use crate::letters::receiver;
use crate::program::{Config, history, simulate, until};

/// How often it panics.
const FAULTS: u32 = 4;

/// How often each event arrived, by whether it is SCloud's and its id.
type Arrived = Arc<Mutex<BTreeMap<(bool, String), u32>>>;

/// A store whose commits panic once GenAuth's events have arrived, as often as is said.
struct Faulty {
    store: MemoryStore,
    arrived: Arrived,
    left: AtomicU32,
}

impl Store for Faulty {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, CheckpointError> {
        self.store.get(key)
    }

    fn scan(&self, range: Range<&[u8]>, visit: &mut dyn FnMut(&[u8], &[u8])) -> Result<(), CheckpointError> {
        self.store.scan(range, visit)
    }

    fn commit(&self, changes: &Changes) -> Result<(), CheckpointError> {
        let some = self.arrived.lock().unwrap().keys().any(|(is_cloud, _)| !is_cloud);
        let is_left = |left: u32| left.checked_sub(1);
        let faults = some && self.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, is_left).is_ok();
        assert!(!faults, "a fault that names secret-4711");
        self.store.commit(changes)
    }
}

/// As the program makes a stream's lane into a sink.
fn maker(name: &str, config: &StreamConfig, sink: &Arc<Sink>, metrics: &Metrics, board: &StatusBoard) -> LaneMaker {
    let budget = Budget::new(64 << 20, 64 << 20, 1);
    let limiter = Limiter::new(config.rate_limit, config.concurrency);
    let client = Client::build(name, config, limiter, budget.share(), &mut Connections::default()).unwrap();
    let identity = StreamIdentity { source: client.source(), tenant: client.tenant().to_owned() };
    let shown = board.stream(name, &identity);
    shown.set_running(true, None);
    let schedule = Schedule {
        unit: identity.source.clock_unit(),
        poll: millis(config.poll_interval),
        phase: 0,
        settle: millis(config.settle),
        overlap: millis(config.overlap),
        sweeps: config.sweeps.iter().copied().map(millis).collect(),
    };
    let stream = Arc::new(StreamContext { identity, name: name.to_owned() });
    let feed = Arc::new(Feed::new(stream, client, metrics.stream(name), shown, schedule, config.concurrency, 1));
    let allowed = health::allowed(config.settle, config.poll_interval);
    let lane_board = board.lane(name, "out", allowed);
    let (sink, start) = (Arc::clone(sink), config.start);
    let (lane_metrics, sink_metrics) = (metrics.lane(name, "out"), metrics.sink("out"));
    Arc::new(move |kept| Lane {
        feed: Arc::clone(&feed),
        sink: Arc::clone(&sink),
        start,
        kept,
        letters: None,
        metrics: lane_metrics.clone(),
        sink_metrics: sink_metrics.clone(),
        board: lane_board.clone(),
        sink_name: "out".to_owned(),
        voice: Mutex::default(),
    })
}

#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// One lane's panics are told, counted and shown, and it is begun again; the other never notices. What was on its way when
/// it panicked comes once more, as after a crash, and nothing is missing. All on one thread, where its log is caught.
#[tokio::test]
async fn a_lane_that_panics_is_begun_again_and_no_other_notices() {
    install_tls_provider();
    let log = Log::default();
    let to = log.clone();
    let _caught = tracing::subscriber::set_default(
        tracing_subscriber::fmt().json().with_max_level(tracing::Level::INFO).with_writer(move || to.clone()).finish(),
    );
    let simulator = simulate(history(500)).await;
    let arrived = Arrived::default();
    let arrives = Arc::clone(&arrived);
    let url = receiver(move |records| {
        let mut arrived = arrives.lock().unwrap();
        for record in records {
            let has = |key: &str| record.attributes.iter().find(|attribute| attribute.key == key);
            let id = format!("{:?}", has("log.record.uid").unwrap().value);
            *arrived.entry((has("cloud.provider").is_some(), id)).or_default() += 1;
        }
        None
    })
    .await;
    let mut config = Config::of(&simulator);
    config.sinks = format!("{{ out: {{ otlp: {{ endpoint: \"{url}\", compression: none }} }} }}");
    let loaded = config::load(&config.file()).unwrap();
    let sink = Arc::new(Sink::build(&loaded.config.sinks["out"]));
    let (metrics, board, (_trigger, shutdown)) = (Metrics::new(), StatusBoard::default(), shutdown::channel());
    let left = AtomicU32::new(FAULTS);
    let faulty = Faulty { store: MemoryStore::default(), arrived: Arc::clone(&arrived), left };
    let faulty = Arc::new(faulty);
    let stores: [(&str, Arc<dyn Store>); 2] =
        [("users", Arc::clone(&faulty) as _), ("cloud", Arc::new(MemoryStore::default()))];
    let lanes = stores.map(|(name, store)| {
        let make = maker(name, &loaded.config.streams[name], &sink, &metrics, &board);
        tokio::spawn(lane::run(make, Kept::Store(store), Until::CaughtUp, shutdown.clone()))
    });
    let state = |stream: &str| {
        let states = board.lane_states();
        states.into_iter().find(|((of, _), _)| of == stream).map(|(_, state)| state)
    };
    let text = || String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
    let fails = async || (state("users") == Some(LaneState::Failing)).then_some(());
    until("a lane that fails", text, fails).await;
    assert_ne!(state("cloud"), Some(LaneState::Failing), "{}", text());
    for lane in lanes {
        tokio::time::timeout(Duration::from_secs(60), lane).await.unwrap().unwrap().unwrap();
    }
    assert_eq!(faulty.left.load(Ordering::Relaxed), 0, "the test proves nothing: it did not panic");
    assert_ne!(state("users"), Some(LaneState::Failing), "it is over");
    let told = text().lines().filter(|line| line.contains("a fault of trailcast itself ended the lane")).count();
    assert_eq!(told, FAULTS as usize, "{}", text());
    assert!(!text().contains("secret-4711"), "{}", text());
    let counted = |stream: &str, count: u32| {
        let series =
            format!("trailcast_sink_errors_total{{reason=\"fault\",sink=\"out\",stream=\"{stream}\"}} {count}");
        metrics.render().contains(&series)
    };
    assert!(counted("users", FAULTS) && counted("cloud", 0), "{}", metrics.render());
    let arrived = arrived.lock().unwrap();
    for is_cloud in [false, true] {
        let times: Vec<u32> = arrived.iter().filter(|((of, _), _)| *of == is_cloud).map(|(_, times)| *times).collect();
        assert_eq!(times.len(), 500);
        let again = times.iter().filter(|times| **times > 1).count();
        assert!(if is_cloud { again == 0 } else { again > 0 }, "{again} again, of cloud: {is_cloud}");
    }
}
