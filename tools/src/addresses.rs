//! Addresses to listen on and to advertise, as the command line and the configuration file give them.

use std::str::FromStr;

use highwater_engine::{HostPort, Listener};
use highwater_protocol::address::{KAFKA_PORT_DEFAULT, NATIVE_PORT_DEFAULT, with_default_port};
use highwater_protocol::text::counted;
use serde::Deserialize;

/// Addresses to listen on, at least one.
#[derive(Deserialize, Clone, PartialEq, Eq, Debug)]
#[serde(try_from = "OneOrMany")]
pub(crate) struct Listen(pub Vec<HostPort>);

/// Addresses to listen on for Kafka clients; empty: there is no such listener.
#[derive(Deserialize, Clone, PartialEq, Eq, Debug)]
#[serde(try_from = "OneOrMany")]
pub(crate) struct KafkaListen(pub Vec<HostPort>);

/// What clients of each listener are told to connect to; none: the address that they have connected to.
#[derive(Deserialize, Clone, PartialEq, Eq, Debug)]
#[serde(try_from = "OneOrMany")]
pub(crate) struct Advertise(pub Vec<Option<HostPort>>);

/// What says that there is no listener.
const NONE: &str = "none";

/// What says that clients are told the address that they have connected to.
const AUTO: &str = "auto";

/// Addresses in a file: one text, with commas if there are several, or a list of texts.
#[derive(Deserialize, Debug)]
#[serde(untagged, expecting = "an address such as \"127.0.0.1:9191\" or a list of them")]
enum OneOrMany {
    One(String),
    Many(Vec<String>),
}

impl OneOrMany {
    /// As the command line would have it.
    fn joined(self) -> String {
        match self {
            Self::One(text) => text,
            Self::Many(texts) => texts.join(","),
        }
    }
}

fn read_all<T>(text: &str, read: impl Fn(&str) -> Result<T, String>) -> Result<Vec<T>, String> {
    text.split(',').map(|part| read(part.trim())).collect()
}

impl FromStr for Listen {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        read_all(text, |part| with_port(part, NATIVE_PORT_DEFAULT)).map(Self)
    }
}

impl FromStr for KafkaListen {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text.trim() == NONE {
            return Ok(Self(Vec::new()));
        }
        read_all(text, |part| with_port(part, KAFKA_PORT_DEFAULT)).map(Self)
    }
}

/// An address to listen on, which may leave the port out. The words that stand for no address are not names of hosts.
fn with_port(text: &str, port: u16) -> Result<HostPort, String> {
    match text {
        NONE | AUTO => Err(format!("`{text}` is not an address to listen on")),
        _ => with_default_port(text, port).parse(),
    }
}

impl FromStr for Advertise {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        read_all(text, |part| if part == AUTO { Ok(None) } else { part.parse().map(Some) }).map(Self)
    }
}

/// Reads these from the configuration file as from the command line.
macro_rules! readable_in_a_file {
    ($($addresses:ty)*) => {
        $(impl TryFrom<OneOrMany> for $addresses {
            type Error = String;

            fn try_from(addresses: OneOrMany) -> Result<Self, String> {
                addresses.joined().parse()
            }
        })*
    };
}

readable_in_a_file!(Listen KafkaListen Advertise);

impl Listen {
    /// As a value of the configuration file.
    pub(crate) fn to_toml(&self) -> toml::Value {
        list(self.0.iter().map(ToString::to_string))
    }
}

impl KafkaListen {
    /// As a value of the configuration file.
    pub(crate) fn to_toml(&self) -> toml::Value {
        if self.0.is_empty() {
            return toml::Value::String(NONE.to_owned());
        }
        list(self.0.iter().map(ToString::to_string))
    }
}

impl Advertise {
    /// As a value of the configuration file.
    pub(crate) fn to_toml(&self) -> toml::Value {
        let text = |address: &Option<HostPort>| {
            address.as_ref().map_or_else(|| AUTO.to_owned(), ToString::to_string)
        };
        list(self.0.iter().map(text))
    }
}

fn list(texts: impl Iterator<Item = String>) -> toml::Value {
    toml::Value::Array(texts.map(toml::Value::String).collect())
}

/// Each address listened on with what is advertised for it. The error says what does not fit; `flag` is the name of the setting.
pub(crate) fn listeners(
    listen: &[HostPort],
    advertise: Option<&Advertise>,
    flag: &str,
) -> Result<Vec<Listener>, String> {
    let mut listeners: Vec<Listener> = listen.iter().cloned().map(Listener::from).collect();
    let Some(Advertise(advertised)) = advertise else { return Ok(listeners) };
    if advertised.len() != listeners.len() {
        return Err(format!(
            "--{flag} has {} for {}: give one for each, in the same order; `{AUTO}` is the address that a client has connected to",
            counted(advertised.len(), "address"),
            counted(listeners.len(), "listener"),
        ));
    }
    for (listener, advertised) in listeners.iter_mut().zip(advertised) {
        listener.advertised.clone_from(advertised);
    }
    Ok(listeners)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_listener_has_its_own_advertised_address() {
        let listen: Listen = "0.0.0.0:9092,localhost:9093, [::1]:9094".parse().expect("three addresses");
        let advertise: Advertise = "broker.example.com:9092,auto,[2001:db8::1]:9094".parse().expect("three");
        let paired = listeners(&listen.0, Some(&advertise), "kafka-advertise").expect("as many");
        let told: Vec<_> = paired.iter().map(|l| l.advertised.as_ref().map(ToString::to_string)).collect();
        let some = |text: &str| Some(text.to_owned());
        assert_eq!(told, [some("broker.example.com:9092"), None, some("[2001:db8::1]:9094")]);
        assert!(listeners(&listen.0, None, "x").expect("none given").iter().all(|l| l.advertised.is_none()));
        let too_few: Advertise = "broker.example.com:9092".parse().expect("one");
        let e = listeners(&listen.0, Some(&too_few), "kafka-advertise").expect_err("which one is it for?");
        assert!(e.contains("--kafka-advertise has 1 address for 3 listeners"), "{e}");
    }

    #[test]
    fn an_address_to_listen_on_may_leave_its_port_out() {
        let shown =
            |addresses: &[HostPort]| addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ");
        let native: Listen = "127.0.0.1,::1".parse().expect("two addresses");
        assert_eq!(shown(&native.0), "127.0.0.1:9191 [::1]:9191");
        let kafka: KafkaListen = "localhost,[::1],0.0.0.0:1".parse().expect("three addresses");
        assert_eq!(shown(&kafka.0), "localhost:9092 [::1]:9092 0.0.0.0:1");
    }

    #[test]
    fn a_wrong_address_in_a_list_is_named() {
        for text in ["127.0.0.1:1,a b:1", "127.0.0.1:port", "none,127.0.0.1:1", "auto"] {
            assert!(text.parse::<KafkaListen>().is_err(), "{text}");
        }
        assert!("127.0.0.1:1,".parse::<Listen>().is_err());
        assert!("none".parse::<Listen>().is_err());
        let e = "x:1,a b:1".parse::<Advertise>().expect_err("no host");
        assert!(e.contains("\"a b:1\""), "{e}");
    }
}
