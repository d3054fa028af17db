//! Members of groups: on threads of this process, or in separate processes that can be killed.

use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::Sender;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use highwater_engine::TestBroker;
use rdkafka::consumer::{BaseConsumer, Consumer as _, ConsumerContext, Rebalance};
use rdkafka::topic_partition_list::TopicPartitionListElem;
use rdkafka::{ClientContext, TopicPartitionList};

use crate::support::{POLL_TIMEOUT, Placed, config, poll};

/// An event of a member.
#[derive(Debug)]
pub(crate) enum Event {
    Assigned(Vec<i32>),
    Revoked(Vec<i32>),
    Read(Placed),
}

/// Sends the events of a member to the test, with the member's number.
pub(crate) struct Reporter {
    member: usize,
    events: Mutex<Sender<(usize, Event)>>,
}

impl Reporter {
    fn report(&self, event: Event) {
        // The receiver is dropped at the end of the test.
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
            Rebalance::Assign(list) => self.report(Event::Assigned(partitions(list))),
            Rebalance::Revoke(list) => self.report(Event::Revoked(partitions(list))),
            Rebalance::Error(error) => panic!("member {}: {error}", self.member),
        }
    }
}

/// A member on its own thread, which polls continuously. Leaves the group when dropped, unless it is static.
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
                if let Some(placed) = poll(&consumer) {
                    consumer.context().report(Event::Read(placed));
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
            assert!(ended.is_ok() || std::thread::panicking(), "the member panicked");
        }
    }
}

/// Environment variable with the arguments of a member process: `address topic name=value ...`.
const ARGUMENTS: &str = "HIGHWATER_TEST_MEMBER";

/// A member in a separate process. Killed when dropped, without leaving its group.
pub(crate) struct Process(Child);

impl Process {
    pub(crate) fn start(broker: &TestBroker, topic: &str, settings: &[(&str, &str)]) -> Self {
        let settings: Vec<String> = settings.iter().map(|(name, value)| format!("{name}={value}")).collect();
        let child = Command::new(std::env::current_exe().expect("this program"))
            .args(["--exact", "member::a_member_that_reads_until_it_is_killed", "--ignored"])
            .env(ARGUMENTS, format!("{} {topic} {}", broker.kafka_address(), settings.join(" ")))
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .expect("this program can be started");
        Self(child)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Fails if it has already ended.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
#[ignore = "started and killed by another test, which passes its arguments"]
fn a_member_that_reads_until_it_is_killed() {
    let arguments = std::env::var(ARGUMENTS).expect("arguments");
    let mut words = arguments.split(' ');
    let (address, topic) = (words.next().expect("an address"), words.next().expect("a topic"));
    let settings: Vec<(&str, &str)> = words.filter_map(|word| word.split_once('=')).collect();
    let consumer: BaseConsumer = config(address, &settings).create().expect("settings that librdkafka knows");
    consumer.subscribe(&[topic]).expect("subscribed");
    // Exit when the test ends, which closes stdin.
    std::thread::spawn(|| {
        let _ = std::io::copy(&mut std::io::stdin(), &mut std::io::sink());
        std::process::exit(1);
    });
    loop {
        let _ = consumer.poll(POLL_TIMEOUT).transpose().expect("it can read");
    }
}
