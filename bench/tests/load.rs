//! Short runs against a broker in this process, and against the null backend.

use std::sync::atomic::AtomicBool;

use highwater_bench::BenchError;
use highwater_bench::backend::{Backend, Native, Null};
use highwater_bench::load::run::{RunContext, Unwatched, run_once};
use highwater_bench::outcome::Outcome;
use highwater_bench::scenario::Scenario;
use highwater_bench::scenarios::find;
use highwater_engine::TestBroker;

/// Returns a shortened built-in scenario. It has few outstanding records, so that on a busy machine those of the warm-up are done before the
/// end of the measured time.
fn short(name: &str) -> Scenario {
    let mut scenario = find(name).expect("a built-in scenario");
    scenario.load.warmup_s = 0.1;
    scenario.load.duration_s = 1.0;
    scenario.load.outstanding = scenario.load.outstanding.min(500);
    scenario
}

fn run_on(backend: &dyn Backend, scenario: &Scenario) -> Result<Outcome, BenchError> {
    let interrupted = AtomicBool::new(false);
    let mut context = RunContext {
        backend,
        server: None,
        broker_pids: &[],
        threads: 1,
        interrupted: &interrupted,
        watch: &Unwatched,
    };
    run_once(&mut context, scenario, 1)
}

fn run(broker: &TestBroker, scenario: &Scenario) -> Outcome {
    let native = Native::new(vec![broker.address()], None);
    run_on(&native, scenario).unwrap_or_else(|e| panic!("{}: {e}", scenario.name))
}

/// Asserts that every acknowledged record was read once and in order, and that every record has a latency.
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
fn scenarios_complete_without_lost_duplicated_or_reordered_records() {
    let broker = TestBroker::start();
    for name in ["few-big", "small-batches", "many-partitions-100", "many-producers-4"] {
        let mut scenario = short(name);
        scenario.load.rate = scenario.load.rate.min(2000);
        is_sound(&run(&broker, &scenario));
    }
}

#[test]
fn consumers_at_the_tail_and_of_a_backlog_read_all_records() {
    let broker = TestBroker::start();
    let mut scenario = short("tail-and-cold");
    scenario.load.rate = 2000;
    scenario.load.warmup_s = 0.0;
    scenario.consumers.backlog_bytes = 4 << 20;
    let outcome = run(&broker, &scenario);
    is_sound(&outcome);
    assert_eq!(
        outcome.tail_records,
        outcome.produce.len(),
        "the consumer at the tail reads each record once"
    );
    assert_eq!(outcome.end_to_end.len(), outcome.tail_records);
    let cold = outcome.cold.expect("the backlog was read");
    assert_eq!(cold.bytes, 3 * (4 << 20), "each of three consumers reads all of it");
}

#[test]
fn records_removed_by_retention_during_the_load_are_not_lost() {
    let broker = TestBroker::start();
    let mut scenario = short("retention-on");
    scenario.topic.partitions = 1;
    scenario.topic.config.insert("retention.bytes".into(), (1 << 20).to_string());
    scenario.load.rate = 20_000;
    is_sound(&run(&broker, &scenario));
}

#[test]
fn records_removed_by_compaction_during_the_load_are_not_lost() {
    let broker = TestBroker::start();
    let mut scenario = short("compaction-on");
    scenario.load.warmup_s = 0.0;
    scenario.load.rate = 2000;
    scenario.record.keys = 50;
    assert!(scenario.removes_records());
    is_sound(&run(&broker, &scenario));
}

#[test]
fn a_schedule_that_the_generator_cannot_keep_is_reported_as_saturated() {
    let mut scenario = short("small-batches");
    scenario.load.rate = 100_000_000;
    let outcome = run_on(&Null, &scenario).expect("the null backend does not fail");
    let why = outcome.saturated.expect("no machine sends a record in ten nanoseconds");
    assert!(why.contains('%'), "{why}");
    assert_eq!(outcome.overloaded, None);
}

#[test]
fn a_schedule_that_the_broker_cannot_keep_is_reported_as_overloaded() {
    let broker = TestBroker::start();
    let mut scenario = short("small-batches");
    scenario.producers.count = 1;
    scenario.load.warmup_s = 0.0;
    scenario.load.outstanding = 1;
    scenario.load.rate = 200_000;
    let outcome = run(&broker, &scenario);
    is_sound(&outcome);
    assert_eq!(outcome.saturated, None);
    assert!(outcome.overloaded.is_some(), "one outstanding record does not allow 200,000 per second");
}

#[test]
fn an_interrupted_run_ends() {
    let broker = TestBroker::start();
    let native = Native::new(vec![broker.address()], None);
    let interrupted = AtomicBool::new(true);
    let mut context = RunContext {
        backend: &native,
        server: None,
        broker_pids: &[],
        threads: 1,
        interrupted: &interrupted,
        watch: &Unwatched,
    };
    let mut scenario = short("small-batches");
    scenario.load.duration_s = 3600.0;
    let ended = run_once(&mut context, &scenario, 1);
    assert!(matches!(ended, Err(BenchError::Interrupted)), "{ended:?}");
}

#[test]
fn an_unreachable_broker_is_an_error() {
    let native = Native::new(vec!["127.0.0.1:1".into()], None);
    let error = run_on(&native, &short("small-batches")).expect_err("nothing listens there");
    assert!(error.to_string().contains("127.0.0.1:1"), "{error}");
}

#[test]
fn a_scenario_that_kills_its_broker_requires_a_broker_of_the_run() {
    let broker = TestBroker::start();
    let native = Native::new(vec![broker.address()], None);
    let error = run_on(&native, &short("restart-under-load")).expect_err("no broker to kill");
    assert!(error.to_string().contains("--server"), "{error}");
}
