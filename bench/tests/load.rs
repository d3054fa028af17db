//! Short runs against a real broker in this process, and against none.

use std::sync::atomic::AtomicBool;

use highwater_bench::BenchError;
use highwater_bench::backend::{Backend, Native, Null};
use highwater_bench::load::run::{Stage, Unwatched, run_once};
use highwater_bench::outcome::Outcome;
use highwater_bench::scenario::Scenario;
use highwater_bench::scenarios::find;
use highwater_engine::TestBroker;

/// A scenario that comes with the program, made short. With few records outstanding, so that a machine that has much else to do is not
/// still busy with those of the warm-up when the measured time is over.
fn short(name: &str) -> Scenario {
    let mut scenario = find(name).expect("a scenario that comes with the program");
    scenario.load.warmup_s = 0.1;
    scenario.load.duration_s = 1.0;
    scenario.load.outstanding = scenario.load.outstanding.min(500);
    scenario
}

fn run_on(backend: &dyn Backend, scenario: &Scenario) -> Result<Outcome, BenchError> {
    let interrupted = AtomicBool::new(false);
    let mut stage = Stage {
        backend,
        server: None,
        broker_pid: None,
        threads: 1,
        interrupted: &interrupted,
        watch: &Unwatched,
    };
    run_once(&mut stage, scenario, 1)
}

fn run(broker: &TestBroker, scenario: &Scenario) -> Outcome {
    let native = Native::new(vec![broker.address()], None);
    run_on(&native, scenario).unwrap_or_else(|e| panic!("{}: {e}", scenario.name))
}

/// Everything acknowledged was read, once and in order, and every record has its latency.
fn is_sound(outcome: &Outcome) {
    let name = &outcome.scenario.name;
    assert_eq!((outcome.lost, outcome.duplicated, outcome.reordered), (0, 0, 0), "{name}");
    assert!(outcome.errors.is_empty(), "{name}: {:?}", outcome.errors);
    assert_eq!(outcome.unchecked, None, "{name}");
    assert!(outcome.records > 0, "{name}");
    assert_eq!(outcome.bytes, outcome.records * outcome.scenario.record.bytes as u64, "{name}");
    assert!(!outcome.produce.is_empty(), "{name}");
    assert_eq!(outcome.service.len(), outcome.produce.len(), "{name}");
}

#[test]
fn scenarios_end_with_nothing_lost_doubled_or_reordered() {
    let broker = TestBroker::start();
    for name in ["few-big", "small-batches", "many-partitions-100", "many-producers-4"] {
        let mut scenario = short(name);
        scenario.load.rate = scenario.load.rate.min(2000);
        is_sound(&run(&broker, &scenario));
    }
}

#[test]
fn consumers_at_the_tail_and_of_a_backlog_read_all_of_it() {
    let broker = TestBroker::start();
    let mut scenario = short("tail-and-cold");
    scenario.load.rate = 2000;
    scenario.load.warmup_s = 0.0;
    scenario.consumers.backlog_bytes = 4 << 20;
    let outcome = run(&broker, &scenario);
    is_sound(&outcome);
    assert_eq!(outcome.tail_records, outcome.produce.len(), "the one at the tail has each once");
    assert_eq!(outcome.end_to_end.len(), outcome.tail_records);
    let cold = outcome.cold.expect("the backlog was drained");
    assert_eq!(cold.bytes, 3 * (4 << 20), "each of three has all of it");
}

#[test]
fn what_retention_removes_while_the_load_goes_on_is_not_lost() {
    let broker = TestBroker::start();
    let mut scenario = short("retention-on");
    scenario.topic.partitions = 1;
    scenario.topic.config.insert("retention.bytes".into(), (1 << 20).to_string());
    scenario.load.rate = 20_000;
    is_sound(&run(&broker, &scenario));
}

#[test]
fn a_schedule_that_the_generator_cannot_keep_is_told_as_its_own_fault() {
    let mut scenario = short("small-batches");
    scenario.load.rate = 100_000_000;
    let outcome = run_on(&Null, &scenario).expect("nothing can fail");
    let why = outcome.saturated.expect("no machine sends a record in ten nanoseconds");
    assert!(why.contains('%'), "{why}");
    assert_eq!(outcome.overloaded, None);
}

#[test]
fn a_schedule_that_acknowledgements_do_not_follow_is_told_as_the_brokers() {
    let broker = TestBroker::start();
    let mut scenario = short("small-batches");
    scenario.producers.count = 1;
    scenario.load.warmup_s = 0.0;
    scenario.load.outstanding = 1;
    scenario.load.rate = 200_000;
    let outcome = run(&broker, &scenario);
    is_sound(&outcome);
    assert_eq!(outcome.saturated, None);
    assert!(outcome.overloaded.is_some(), "one record at a time is not 200,000 a second");
}

#[test]
fn a_run_that_is_interrupted_ends() {
    let broker = TestBroker::start();
    let native = Native::new(vec![broker.address()], None);
    let interrupted = AtomicBool::new(true);
    let mut stage = Stage {
        backend: &native,
        server: None,
        broker_pid: None,
        threads: 1,
        interrupted: &interrupted,
        watch: &Unwatched,
    };
    let mut scenario = short("small-batches");
    scenario.load.duration_s = 3600.0;
    let ended = run_once(&mut stage, &scenario, 1);
    assert!(matches!(ended, Err(BenchError::Interrupted)), "{ended:?}");
}

#[test]
fn a_broker_that_is_not_there_is_told() {
    let native = Native::new(vec!["127.0.0.1:1".into()], None);
    let error = run_on(&native, &short("small-batches")).expect_err("nobody listens there");
    assert!(error.to_string().contains("127.0.0.1:1"), "{error}");
}

#[test]
fn a_scenario_that_kills_its_broker_needs_one_of_its_own() {
    let broker = TestBroker::start();
    let native = Native::new(vec![broker.address()], None);
    let error = run_on(&native, &short("restart-under-load")).expect_err("nobody to kill");
    assert!(error.to_string().contains("--server"), "{error}");
}
