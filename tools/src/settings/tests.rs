//! Precedence of settings, and what is refused.

use clap::FromArgMatches as _;

use super::*;
use crate::cli::{Cli, Command, command};

fn resolve(flags: &[&str], file: Option<&str>) -> Result<Settings, Failure> {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let path = dir.path().join("highwater.toml");
    let mut line = vec!["highwater".to_owned(), "start".to_owned()];
    line.extend(flags.iter().map(ToString::to_string));
    if let Some(text) = file {
        fs::write(&path, text).expect("a writable temporary directory");
        line.extend(["--config".to_owned(), path.to_string_lossy().into_owned()]);
    }
    let matches = command().try_get_matches_from(line).expect("right flags");
    let cli = Cli::from_arg_matches(&matches).expect("right flags");
    let Command::Start(args) = &cli.command else { panic!("not start") };
    let (_, start) = matches.subcommand().expect("start");
    Settings::resolve(args, cli.log_level.as_ref(), start)
}

#[test]
fn without_anything_said_the_defaults_hold() {
    let settings = resolve(&[], None).expect("defaults are right");
    assert_eq!(settings.data_dir.value, PathBuf::from(DATA_DIR_DEFAULT));
    assert_eq!(settings.listen.value, "127.0.0.1:9191".parse().expect("a literal"));
    assert_eq!(settings.cores, Setting { value: None, source: Source::Default });
    assert_eq!(
        settings.to_broker_config(),
        BrokerConfig { data_dir: DATA_DIR_DEFAULT.into(), ..BrokerConfig::default() }
    );
    assert!(!settings.insecure.value);
}

#[test]
fn a_flag_wins_over_the_file_and_the_file_over_the_default() {
    let file = "cores = 3\nmemory = \"1GiB\"\nlisten = \"127.0.0.1:1\"\nlog_level = \"info\"\n";
    let settings = resolve(&["--cores", "2"], Some(file)).expect("all right");
    assert_eq!(settings.cores, Setting { value: Some(2), source: Source::Flag });
    assert_eq!(settings.memory, Setting { value: Some(ByteSize(1 << 30)), source: Source::File });
    assert_eq!(settings.listen.source, Source::File);
    assert_eq!(settings.log_level, Setting { value: "info".into(), source: Source::File });
    assert_eq!(settings.data_dir.source, Source::Default);
}

#[test]
fn the_kafka_listener_can_be_switched_off_and_be_several() {
    for off in [resolve(&["--kafka-listen", "none"], None), resolve(&[], Some("kafka_listen = \"none\""))] {
        let settings = off.expect("all right");
        assert!(settings.to_broker_config().kafka_listen.is_empty());
        let again = resolve(&[], Some(&settings.to_toml())).expect("our own file");
        assert_eq!(again.kafka_listen.value, settings.kafka_listen.value);
    }
    let several = resolve(&["--kafka-listen", "127.0.0.1:0,[::1]:0"], None).expect("all right");
    let again = resolve(&[], Some(&several.to_toml())).expect("our own file");
    assert_eq!(again.kafka_listen.value.0.len(), 2);
}

#[test]
fn the_settings_about_other_nodes_reach_the_broker() {
    let flags =
        ["--peer-listen", "0.0.0.0", "--peer-advertise", "b:9193", "--seeds", "a,b,c:1", "--node-id", "4"];
    let settings = resolve(&flags, None).expect("all right");
    let config = settings.to_broker_config();
    let [listener] = &config.peer_listen[..] else { panic!("{:?}", config.peer_listen) };
    assert_eq!(listener.address.to_string(), "0.0.0.0:9193");
    assert_eq!(listener.advertised.as_ref().map(ToString::to_string).as_deref(), Some("b:9193"));
    let seeds: Vec<String> = config.seeds.iter().map(ToString::to_string).collect();
    assert_eq!((seeds.join(" "), config.node_id), ("a:9193 b:9193 c:1".to_owned(), Some(NodeId(4))));
    let again = resolve(&[], Some(&settings.to_toml())).expect("our own file");
    assert_eq!(again.to_broker_config(), config);
    let error = resolve(&["--peer-advertise", "b:1"], None).expect_err("there is no listener");
    assert!(format!("{error:?}").contains("--peer-advertise"), "{error:?}");
}

#[test]
fn a_flag_for_addresses_that_is_given_twice_is_one_list() {
    let once = ["--listen", "a:1,b:2,c:3", "--advertise", "auto,x:1,auto", "--kafka-listen", "d:1,e:2"];
    let once = [&once[..], &["--kafka-advertise", "y:1,z:2"]].concat();
    let twice = [
        ["--listen", "a:1,b:2"],
        ["--advertise", "auto"],
        ["--kafka-listen", "d:1"],
        ["--kafka-advertise", "y:1"],
        ["--listen", "c:3"],
        ["--advertise", "x:1,auto"],
        ["--kafka-listen", "e:2"],
        ["--kafka-advertise", "z:2"],
    ];
    let [once, twice] = [once, twice.concat()].map(|flags| resolve(&flags, None).expect("all right"));
    assert_eq!(twice, once);
    assert_eq!(twice.listen.value.0.len(), 3);
    assert_eq!(twice.listen.source, Source::Flag);

    let flags = ["--kafka-listen", "none", "--kafka-listen", "127.0.0.1:0"];
    let Err(Failure::Message { code, message }) = resolve(&flags, None) else { panic!("it passed") };
    assert_eq!(code, crate::failure::USAGE);
    assert!(message.contains("--kafka-listen"), "{message}");
}

#[test]
fn what_is_printed_is_a_configuration_file_that_says_the_same() {
    let settings = resolve(
        &[
            "--listen",
            "127.0.0.1:0,[::1]:0",
            "--advertise",
            "auto,a.example:1",
            "--durability",
            "sync-per-round",
        ],
        None,
    )
    .expect("all right");
    let again = resolve(&[], Some(&settings.to_toml())).expect("our own file");
    assert_eq!(again.listen.value, settings.listen.value);
    assert_eq!(again.advertise.value, settings.advertise.value);
    assert_eq!(again.memory, settings.memory);
    assert_eq!(again.batch_bytes_max.value, settings.batch_bytes_max.value);
    assert!(settings.to_toml().contains("8GiB; here "), "what is in force is shown");
    assert_eq!(again.durability, Setting { value: Durability::SyncPerRound, source: Source::File });
}

#[test]
fn a_mistyped_or_wrong_entry_names_the_file() {
    for file in [
        "core = 3",
        "cores = \"many\"",
        "memory = \"lots\"",
        "batch_bytes_max = \"lots\"",
        "listen = 5",
        "advertise = \"a b:1\"",
        "kafka_listen = [\"127.0.0.1:1\", 5]",
        "offsets_retention_minutes = 0",
        "group_session_timeout_ms = 0",
        "durability = \"none\"",
        "not toml",
    ] {
        let Err(Failure::Message { code, message }) = resolve(&[], Some(file)) else {
            panic!("{file} passed")
        };
        assert_eq!(code, crate::failure::CONFIGURATION);
        assert!(message.contains("highwater.toml"), "{file}: {message}");
    }
    assert!(resolve(&["--config", "/nonexistent/highwater.toml"], None).is_err());
}

#[test]
fn an_advertised_address_too_few_or_too_many_is_refused() {
    for flags in [
        &["--listen", "127.0.0.1:1,127.0.0.1:2", "--advertise", "a:1"][..],
        &["--kafka-listen", "none", "--kafka-advertise", "a:1"],
        &["--kafka-advertise", "a:1,b:1"],
    ] {
        let Err(Failure::Message { code, message }) = resolve(flags, None) else {
            panic!("{flags:?} passed")
        };
        assert_eq!(code, crate::failure::CONFIGURATION);
        assert!(message.contains("advertise has"), "{message}");
    }
    let settings =
        resolve(&["--kafka-listen", "0.0.0.0:1,localhost:2", "--kafka-advertise", "auto,a:2"], None);
    let config = settings.expect("one each").to_broker_config();
    assert_eq!(config.kafka_listen[1].advertised.as_ref().map(ToString::to_string), Some("a:2".into()));
    assert_eq!(config.kafka_listen[0].advertised, None);
}
