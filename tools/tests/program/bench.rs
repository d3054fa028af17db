//! `bench`: lists the scenarios, and runs one on a broker that it starts and stops.

use crate::support::{Place, program};

#[test]
fn the_scenarios_are_listed() {
    let output = program(&["bench", "list"]).output().expect("the program");
    assert!(output.status.success(), "{output:?}");
    let text = String::from_utf8(output.stdout).expect("text");
    for name in ["few-big", "small-batches", "many-partitions-1000", "tail-and-cold", "restart-under-load"] {
        assert!(text.lines().any(|line| line.starts_with(&format!("{name} "))), "{name} is not in\n{text}");
    }
}

#[test]
fn a_scenario_runs_on_its_own_broker_and_removes_its_files() {
    let place = Place::new();
    let (json, temporary) = (place.path("out.json"), place.path("temporary"));
    std::fs::create_dir(&temporary).expect("a directory");
    let output = program(&["bench", "run", "small-batches", "--runs", "1", "--rate", "500"])
        .args([
            "--duration",
            "1s",
            "--warmup",
            "0s",
            "--partitions",
            "4",
            "--broker-cores",
            "1",
            "--no-limit",
            "--json",
        ])
        .arg(&json)
        .env("TMPDIR", &temporary)
        .output()
        .expect("the program");
    assert!(output.status.success(), "{output:?}");
    let text = String::from_utf8(output.stdout).expect("text");
    assert!(text.contains("small-batches on native"), "{text}");
    let report: serde_json::Value =
        serde_json::from_slice(&std::fs::read(&json).expect("the report")).expect("JSON");
    let run = &report["runs"][0];
    assert_eq!(report["schema"], 1);
    assert_eq!((&run["lost"], &run["duplicated"], &run["reordered"]), (&0.into(), &0.into(), &0.into()));
    assert!(run["latency_ns"]["produce"]["count"].as_u64().is_some_and(|count| count > 0), "{run}");
    let left: Vec<_> = std::fs::read_dir(&temporary).expect("the directory").collect();
    assert!(left.is_empty(), "{left:?}");
}
