//! Members of groups: on threads of this process, or in processes of their own, so that they can die without a word.

use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::Sender;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use highwater_engine::TestBroker;
use rdkafka::consumer::{BaseConsumer, Consumer as _, ConsumerContext, Rebalance};
use rdkafka::topic_partition_list::TopicPartitionListElem;
use rdkafka::{ClientContext, TopicPartitionList};

use crate::support::{LOOK, Placed, config, look};

/// What a member tells of itself.
#[derive(Debug)]
pub(crate) enum Event {
    Assigned(Vec<i32>),
    Revoked(Vec<i32>),
    Read(Placed),
}

/// Sends what happens to a member to the test, with the member's number.
pub(crate) struct Reporter {
    member: usize,
    events: Mutex<Sender<(usize, Event)>>,
}

impl Reporter {
    fn tell(&self, event: Event) {
        // A test that has seen enough does not listen any more.
        let _ = self.events.lock().unwrap_or_else(PoisonError::into_inner).send((self.member, event));
    }
}

impl ClientContext for Reporter {}

impl ConsumerContext for Reporter {
    fn post_rebalance(&self, _: &BaseConsumer<Self>, rebalance: &Rebalance<'_>) {
        let partitions = |list: &TopicPartitionList| {
            list.elements().iter().map(TopicPartitionListElem::partition).collect()
        };
        match rebalance {
            Rebalance::Assign(list) => self.tell(Event::Assigned(partitions(list))),
            Rebalance::Revoke(list) => self.tell(Event::Revoked(partitions(list))),
            Rebalance::Error(error) => panic!("member {}: {error}", self.member),
        }
    }
}

/// A member on a thread of its own, which reads all the time. Leaves when dropped, unless it is static.
pub(crate) struct Member {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Member {
    pub(crate) fn start(
        broker: &TestBroker,
        topic: &'static str,
        settings: &[(&str, &str)],
        member: usize,
        events: Sender<(usize, Event)>,
    ) -> Self {
        let reporter = Reporter { member, events: Mutex::new(events) };
        let consumer: BaseConsumer<Reporter> = config(&broker.kafka_address(), settings)
            .create_with_context(reporter)
            .expect("settings that librdkafka knows");
        let stop = Arc::new(AtomicBool::new(false));
        let stopping = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            consumer.subscribe(&[topic]).expect("subscribed");
            while !stopping.load(Ordering::Relaxed) {
                if let Some(placed) = look(&consumer) {
                    consumer.context().tell(Event::Read(placed));
                }
            }
        });
        Self { stop, thread: Some(thread) }
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let ended = thread.join();
            assert!(ended.is_ok() || std::thread::panicking(), "the member ends in order");
        }
    }
}

/// Where a process finds what it is to do: `address topic name=value ...`.
const ORDERS: &str = "HIGHWATER_TEST_MEMBER";

/// A member in a process of its own. Killed, without leaving its group, when dropped.
pub(crate) struct Process(Child);

impl Process {
    pub(crate) fn start(broker: &TestBroker, topic: &str, settings: &[(&str, &str)]) -> Self {
        let settings: Vec<String> = settings.iter().map(|(name, value)| format!("{name}={value}")).collect();
        let child = Command::new(std::env::current_exe().expect("this program"))
            .args(["--exact", "member::a_member_that_reads_until_it_is_killed", "--ignored"])
            .env(ORDERS, format!("{} {topic} {}", broker.kafka_address(), settings.join(" ")))
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .expect("this program runs again");
        Self(child)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Already ended is fine.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
#[ignore = "what another test starts and kills; there are no orders without it"]
fn a_member_that_reads_until_it_is_killed() {
    let orders = std::env::var(ORDERS).expect("orders");
    let mut words = orders.split(' ');
    let (address, topic) = (words.next().expect("an address"), words.next().expect("a topic"));
    let settings: Vec<(&str, &str)> = words.filter_map(|word| word.split_once('=')).collect();
    let consumer: BaseConsumer = config(address, &settings).create().expect("settings that librdkafka knows");
    consumer.subscribe(&[topic]).expect("subscribed");
    // It does not outlive the test, however that ends: its stdin ends with it.
    std::thread::spawn(|| {
        let _ = std::io::copy(&mut std::io::stdin(), &mut std::io::sink());
        std::process::exit(1);
    });
    loop {
        let _ = consumer.poll(LOOK).transpose().expect("it can read");
    }
}
