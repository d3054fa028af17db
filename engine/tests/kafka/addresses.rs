//! The address that is advertised to clients of each listener, in every response that has it.

use std::net::{IpAddr, SocketAddr};

use highwater_engine::{Broker, BrokerConfig, HostKind, HostPort, Listener};
use highwater_net::kafka::api::ApiKey;
use highwater_net::kafka::messages::{
    DescribeClusterRequest, DescribeClusterResponse, DescribeConfigsRequest, DescribeConfigsResource,
    DescribeConfigsResponse, FindCoordinatorRequest, FindCoordinatorResponse, MetadataRequest,
    MetadataResponse,
};

use crate::client::Kafka;
use crate::common::{Client, stop};

const BROKER: i8 = 4;

fn listener(address: &str, advertised: Option<&str>) -> Listener {
    let read = |text: &str| text.parse::<HostPort>().expect("an address");
    Listener { address: read(address), advertised: advertised.map(read) }
}

fn start(data: &std::path::Path, native: Vec<Listener>, kafka: Vec<Listener>) -> Broker {
    Broker::start(BrokerConfig {
        data_dir: data.to_owned(),
        listen: native,
        kafka_listen: kafka,
        insecure: true,
        cores: Some(2),
        host: HostKind::Thread,
        stop_on_signals: false,
        memory_bytes: Some(256 << 20),
        ..BrokerConfig::default()
    })
    .expect("the broker starts")
}

/// Returns the address that is advertised to a Kafka client that connects to `address`. It must be the same in every response.
fn address_for_kafka_clients(address: SocketAddr) -> String {
    let mut kafka = Kafka::connect(address);
    let answer = kafka.call(ApiKey::Metadata, 12, &MetadataRequest::default());
    let metadata: MetadataResponse<'_> = answer.body();
    let [broker] = &metadata.brokers[..] else { panic!("one broker: {metadata:?}") };
    let reported = (broker.host.to_string(), broker.port);

    for version in [3, 6] {
        let request = match version {
            3 => FindCoordinatorRequest { key: "g", ..Default::default() },
            _ => FindCoordinatorRequest { coordinator_keys: vec!["g"], ..Default::default() },
        };
        let answer = kafka.call(ApiKey::FindCoordinator, version, &request);
        let found: FindCoordinatorResponse<'_> = answer.body();
        let coordinator = match &found.coordinators[..] {
            [found] => (found.host.to_string(), found.port),
            _ => (found.host.to_string(), found.port),
        };
        assert_eq!(coordinator, reported);
    }

    let answer = kafka.call(
        ApiKey::DescribeCluster,
        1,
        &DescribeClusterRequest { endpoint_type: 1, ..Default::default() },
    );
    let cluster: DescribeClusterResponse<'_> = answer.body();
    assert_eq!((cluster.brokers[0].host.to_string(), cluster.brokers[0].port), reported);

    let address = HostPort { host: reported.0, port: reported.1 as u16 }.to_string();
    let resource = DescribeConfigsResource {
        resource_type: BROKER,
        resource_name: "0",
        configuration_keys: Some(vec!["advertised.listeners"]),
    };
    let request = DescribeConfigsRequest { resources: vec![resource], ..Default::default() };
    let answer = kafka.call(ApiKey::DescribeConfigs, 4, &request);
    let configs: DescribeConfigsResponse<'_> = answer.body();
    let value = configs.results[0].configs[0].value.as_deref();
    assert_eq!(value, Some(&format!("PLAINTEXT://{address}")[..]));
    address
}

fn address_for_native_clients(address: SocketAddr, shard: u16) -> String {
    Client::connect_to(address, Some(shard)).metadata().nodes[0].address.clone()
}

#[test]
fn without_an_advertised_address_clients_get_the_one_that_they_connected_to() {
    let dir = tempfile::tempdir().expect("a directory");
    let any = || vec![listener("0.0.0.0:0", None)];
    let broker = start(dir.path(), any(), any());
    for ip in ["127.0.0.1", "127.0.0.2"] {
        let at = |port| SocketAddr::new(ip.parse::<IpAddr>().expect("an address"), port);
        let kafka = at(broker.kafka_addr().expect("it has one").port());
        assert_eq!(address_for_kafka_clients(kafka), kafka.to_string());
        let native = at(broker.native_addr().port());
        for shard in 0..2 {
            assert_eq!(address_for_native_clients(native, shard), native.to_string());
        }
    }
    stop(broker);
}

#[test]
fn an_ipv6_listener_advertises_to_each_client_an_address_of_its_family() {
    if std::net::TcpListener::bind("[::1]:0").is_err() {
        eprintln!("skipped: this machine has no IPv6");
        return;
    }
    let dir = tempfile::tempdir().expect("a directory");
    let any = || vec![listener("[::]:0", None)];
    let broker = start(dir.path(), any(), any());
    for ip in ["::1", "127.0.0.1"] {
        let at = |port| SocketAddr::new(ip.parse::<IpAddr>().expect("an address"), port);
        let kafka = at(broker.kafka_addr().expect("it has one").port());
        assert_eq!(address_for_kafka_clients(kafka), kafka.to_string());
        let native = at(broker.native_addr().port());
        assert_eq!(address_for_native_clients(native, 1), native.to_string());
    }
    stop(broker);
}

#[test]
fn each_listener_has_its_own_advertised_address() {
    let dir = tempfile::tempdir().expect("a directory");
    let listeners = |name: &str| {
        let advertised = [Some(format!("{name}.example.com:9092")), None, Some("[2001:db8::1]:7".to_owned())];
        advertised.map(|advertised| listener("127.0.0.1:0", advertised.as_deref())).to_vec()
    };
    let broker = start(dir.path(), listeners("native"), listeners("kafka"));
    let (native, kafka) = (broker.ready().native.clone(), broker.ready().kafka.clone());
    for _ in 0..4 {
        // Connections are assigned to shards in rotation.
        assert_eq!(address_for_kafka_clients(kafka[0]), "kafka.example.com:9092");
        assert_eq!(address_for_kafka_clients(kafka[1]), kafka[1].to_string());
        assert_eq!(address_for_kafka_clients(kafka[2]), "[2001:db8::1]:7");
    }
    for shard in 0..2 {
        assert_eq!(address_for_native_clients(native[0], shard), "native.example.com:9092");
        assert_eq!(address_for_native_clients(native[1], shard), native[1].to_string());
        assert_eq!(address_for_native_clients(native[2], shard), "[2001:db8::1]:7");
    }
    stop(broker);
}
