//! What goes into a transaction, and what it writes; no broker is asked.

use super::*;
use crate::checkpoint::kafka::tests::topic;

fn writer() -> Writer {
    let topic = topic(8);
    let producer = Arc::new(Producer::new(&topic.config.cluster, &[], None, None).unwrap());
    let (sum, standing) = (Sum::default(), Arc::new(Mutex::new(Standing { identity: 1, commits: 0 })));
    let told = Told { bookmark: None, last: None };
    Writer {
        topic,
        number: 3,
        producer,
        state: Arc::default(),
        sum,
        standing,
        told,
        has_format: true,
        upset: false,
        next: 0,
    }
}

fn put(key: &[u8], value: &[u8]) -> Changes {
    Changes { puts: vec![(key.to_vec(), value.to_vec())], ..Changes::default() }
}

/// Built on so many commits of `lane`.
fn work(lane: &str, commits: u64) -> Work {
    Work { after: Some(After { cursor: lane.into(), commits }), ..Work::default() }
}

type Reply = oneshot::Receiver<Result<(), TransactError>>;

fn submitted(work: Work) -> (Submitted, Reply) {
    let (reply, answer) = oneshot::channel();
    (Submitted { work, reply }, answer)
}

/// The groups that `works` make, as lanes and the commits they are built on, none of which is committed.
fn groups(writer: &Writer, works: Vec<Work>) -> (Vec<Vec<(String, u64)>>, Vec<Reply>) {
    let (sender, mut waiting) = mpsc::channel(WAITING);
    let mut replies = Vec::new();
    for work in works {
        let (submitted, reply) = submitted(work);
        sender.try_send(submitted).unwrap();
        replies.push(reply);
    }
    let mut held = None;
    let mut groups = Vec::new();
    while let Some(first) = held.take().or_else(|| waiting.try_recv().ok()) {
        let name = |submitted: &Submitted| {
            let After { cursor, commits } = submitted.work.after.clone().unwrap();
            (String::from_utf8(cursor).unwrap(), commits)
        };
        groups.push(writer.group(first, &mut waiting, &mut held).iter().map(name).collect());
    }
    (groups, replies)
}

#[test]
fn a_work_goes_with_what_it_is_built_on_or_not_at_all() {
    let writer = writer();
    let mut cursor = serde_json::json!({ "source": "genauth", "tenant": "t", "live": 0, "overlap": 0, "sweeps": {} });
    cursor["commits"] = 7.into();
    writer.state.apply(&put(b"a", cursor.to_string().as_bytes()));
    let works = [work("a", 7), work("new", 0), work("a", 8), work("a", 10), work("new", 0), work("a", 9)];
    let (made, mut replies) = groups(&writer, works.to_vec());
    let named = |name: &str, commits| (name.to_owned(), commits);
    assert_eq!(made, [[named("a", 7), named("new", 0), named("a", 8), named("a", 9)]]);
    let unfounded = |reply: &mut Reply| matches!(reply.try_recv(), Ok(Err(TransactError::Unfounded)));
    assert_eq!(replies.iter_mut().map(unfounded).collect::<Vec<_>>(), [false, false, false, true, true, false]);

    // The first has failed: nothing that was built on it goes, however late it comes.
    assert_eq!(groups(&writer, vec![work("a", 8), work("a", 9)]).0, [vec![]]);
}

#[test]
fn what_is_sent_one_by_one_has_a_transaction_of_its_own() {
    let alone = Work { one_by_one: Some(0), ..work("b", 0) };
    let (made, _replies) = groups(&writer(), vec![work("a", 0), alone, work("a", 1), work("c", 0)]);
    let named = |name: &str, commits| vec![(name.to_owned(), commits)];
    // What `a` built on its first is not so here, where nothing is ever committed.
    assert_eq!(made, [named("a", 0), named("b", 0), named("c", 0)]);
}

#[test]
fn what_nobody_waits_for_is_left_out() {
    let writer = writer();
    let (_sender, mut waiting) = mpsc::channel(WAITING);
    let (first, reply) = submitted(work("a", 0));
    drop(reply);
    assert!(writer.group(first, &mut waiting, &mut None).is_empty());
}

/// Each key once, as all works together leave it: what one puts, a later one may take away.
#[test]
fn a_transaction_writes_what_its_works_leave() {
    let writer = writer();
    writer.state.apply(&put(b"d1", b"old"));
    let writer = Writer { sum: Sum::of(&writer.state), ..writer };
    let range = b"d1".to_vec()..b"d3".to_vec();
    let works = [
        put(b"d2", b"new"),
        Changes { delete_ranges: vec![range], ..put(b"c", b"2") },
        Changes { deletes: vec![b"e".to_vec(), b"nowhere".to_vec()], ..put(b"c", b"3") },
    ];
    let mut works: Vec<Work> =
        works.map(|changes| Work { changes: Arc::new(changes), ..Work::default() }).into_iter().collect();
    works.insert(0, Work { changes: Arc::new(put(b"e", b"5")), ..Work::default() });
    let (messages, sum) = writer.state_messages(&works.iter().collect::<Vec<_>>());
    works.iter().for_each(|work| writer.state.apply(&work.changes));
    assert_eq!(sum, Sum::of(&writer.state), "kept up");
    let written = messages.iter().map(|message| (message.key.as_deref().unwrap(), message.value.as_deref()));
    let expected: [(&[u8], Option<&[u8]>); 4] = [(b"c", Some(b"3")), (b"d1", None), (b"d2", None), (b"e", None)];
    assert_eq!(written.collect::<Vec<_>>(), expected);
}
