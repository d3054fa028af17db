//! Addresses to listen on and to advertise, parsed from the command line and the configuration file.

use std::str::FromStr;

use highwater_engine::{HostPort, Listener};
use highwater_protocol::address::{
    KAFKA_PORT_DEFAULT, NATIVE_PORT_DEFAULT, PEER_PORT_DEFAULT, with_default_port,
};
use highwater_protocol::text::counted;
use serde::Deserialize;

/// Default address of a broker's native listener, for both broker and client.
pub(crate) const ADDRESS_DEFAULT: &str = "127.0.0.1:9191";

/// Default address of a broker's listener for Kafka clients.
pub(crate) const KAFKA_ADDRESS_DEFAULT: &str = "127.0.0.1:9092";

/// Addresses to listen on; at least one.
#[derive(Deserialize, Clone, PartialEq, Eq, Debug)]
#[serde(try_from = "OneOrMany")]
pub(crate) struct Listen(pub Vec<HostPort>);

/// Addresses to listen on for Kafka clients. Empty if the listener is disabled.
#[derive(Deserialize, Clone, PartialEq, Eq, Debug)]
#[serde(try_from = "OneOrMany")]
pub(crate) struct KafkaListen(pub Vec<HostPort>);

/// Addresses of nodes for each other; at least one.
#[derive(Deserialize, Clone, PartialEq, Eq, Debug)]
#[serde(try_from = "OneOrMany")]
pub(crate) struct PeerAddresses(pub Vec<HostPort>);

/// Advertised address of each listener. `None` advertises the address that the client connected to.
#[derive(Deserialize, Clone, PartialEq, Eq, Debug)]
#[serde(try_from = "OneOrMany")]
pub(crate) struct Advertise(pub Vec<Option<HostPort>>);

/// Value that disables a listener.
const NONE: &str = "none";

/// Value that advertises the address that the client connected to.
const AUTO: &str = "auto";

/// Addresses in a file: a comma-separated string, or a list of strings.
#[derive(Deserialize, Debug)]
#[serde(untagged, expecting = "an address such as \"127.0.0.1:9191\" or a list of them")]
enum OneOrMany {
    One(String),
    Many(Vec<String>),
}

impl OneOrMany {
    /// Returns the addresses in the form of the command line.
    fn joined(self) -> String {
        match self {
            Self::One(text) => text,
            Self::Many(texts) => texts.join(","),
        }
    }
}

fn parse_list<T>(text: &str, parse: impl Fn(&str) -> Result<T, String>) -> Result<Vec<T>, String> {
    text.split(',').map(|part| parse(part.trim())).collect()
}

impl FromStr for Listen {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        parse_list(text, |part| with_port(part, NATIVE_PORT_DEFAULT)).map(Self)
    }
}

impl FromStr for KafkaListen {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text.trim() == NONE {
            return Ok(Self(Vec::new()));
        }
        parse_list(text, |part| with_port(part, KAFKA_PORT_DEFAULT)).map(Self)
    }
}

impl FromStr for PeerAddresses {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        parse_list(text, |part| with_port(part, PEER_PORT_DEFAULT)).map(Self)
    }
}

/// Checks an address of a broker to connect to.
pub(crate) fn server_address(text: &str) -> Result<String, String> {
    host_port(text.trim(), NATIVE_PORT_DEFAULT)?;
    Ok(text.trim().to_owned())
}

fn host_port(text: &str, port: u16) -> Result<HostPort, String> {
    if text.is_empty() {
        return Err("an address is empty; give HOST or HOST:PORT".into());
    }
    with_default_port(text, port).parse()
}

/// Parses an address to listen on, with a default port. Rejects `none` and `auto`, which are not host names here.
fn with_port(text: &str, port: u16) -> Result<HostPort, String> {
    match text {
        NONE | AUTO => Err(format!("`{text}` is not an address to listen on")),
        _ => host_port(text, port),
    }
}

impl FromStr for Advertise {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        parse_list(text, |part| if part == AUTO { Ok(None) } else { part.parse().map(Some) }).map(Self)
    }
}

/// A list of addresses that is the value of a flag.
pub(crate) trait AddressList: Sized {
    /// Joins the values of a flag in the order in which they were given, as if they were one, separated by commas. Returns `None` if there
    /// are none.
    fn join(given: &[Self]) -> Result<Option<Self>, String>;
}

/// Implements [`AddressList`] for lists that join with each other whatever they hold.
macro_rules! join_lists {
    ($($addresses:ident)*) => {
        $(impl AddressList for $addresses {
            fn join(given: &[Self]) -> Result<Option<Self>, String> {
                let all: Vec<_> = given.iter().flat_map(|list| list.0.iter().cloned()).collect();
                Ok((!given.is_empty()).then_some(Self(all)))
            }
        })*
    };
}

join_lists!(Listen PeerAddresses Advertise);

impl AddressList for KafkaListen {
    fn join(given: &[Self]) -> Result<Option<Self>, String> {
        if given.len() > 1 && given.iter().any(|list| list.0.is_empty()) {
            return Err(format!(
                "--kafka-listen: `{NONE}` disables the listener, and cannot be combined with another value"
            ));
        }
        let all: Vec<_> = given.iter().flat_map(|list| list.0.iter().cloned()).collect();
        Ok((!given.is_empty()).then_some(Self(all)))
    }
}

/// Implements parsing from the configuration file by that from the command line.
macro_rules! parse_from_file {
    ($($addresses:ty)*) => {
        $(impl TryFrom<OneOrMany> for $addresses {
            type Error = String;

            fn try_from(addresses: OneOrMany) -> Result<Self, String> {
                addresses.joined().parse()
            }
        })*
    };
}

parse_from_file!(Listen KafkaListen PeerAddresses Advertise);

impl Listen {
    /// As a value of the configuration file.
    pub(crate) fn to_toml(&self) -> toml::Value {
        list(self.0.iter().map(ToString::to_string))
    }
}

impl PeerAddresses {
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

/// Pairs each address to listen on with its advertised address. Fails if their numbers differ; `flag` names the setting in the error.
pub(crate) fn listeners(
    listen: &[HostPort],
    advertise: Option<&Advertise>,
    flag: &str,
) -> Result<Vec<Listener>, String> {
    let mut listeners: Vec<Listener> = listen.iter().cloned().map(Listener::from).collect();
    let Some(Advertise(advertised)) = advertise else { return Ok(listeners) };
    if advertised.len() != listeners.len() {
        return Err(format!(
            "--{flag} has {} for {}: give one for each, in the same order; `{AUTO}` advertises the address that the client connected to",
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
        let advertised: Vec<_> =
            paired.iter().map(|l| l.advertised.as_ref().map(ToString::to_string)).collect();
        let some = |text: &str| Some(text.to_owned());
        assert_eq!(advertised, [some("broker.example.com:9092"), None, some("[2001:db8::1]:9094")]);
        assert!(listeners(&listen.0, None, "x").expect("none given").iter().all(|l| l.advertised.is_none()));
        let too_few: Advertise = "broker.example.com:9092".parse().expect("one");
        let e = listeners(&listen.0, Some(&too_few), "kafka-advertise")
            .expect_err("one address for three listeners");
        assert!(e.contains("--kafka-advertise has 1 address for 3 listeners"), "{e}");
    }

    #[test]
    fn an_address_to_listen_on_may_omit_its_port() {
        let shown =
            |addresses: &[HostPort]| addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ");
        let native: Listen = "127.0.0.1,::1".parse().expect("two addresses");
        assert_eq!(shown(&native.0), "127.0.0.1:9191 [::1]:9191");
        let kafka: KafkaListen = "localhost,[::1],0.0.0.0:1".parse().expect("three addresses");
        assert_eq!(shown(&kafka.0), "localhost:9092 [::1]:9092 0.0.0.0:1");
    }

    #[test]
    fn the_error_for_an_invalid_address_in_a_list_names_it() {
        for text in ["127.0.0.1:1,a b:1", "127.0.0.1:port", "none,127.0.0.1:1", "auto"] {
            assert!(text.parse::<KafkaListen>().is_err(), "{text}");
        }
        assert!("127.0.0.1:1,".parse::<Listen>().is_err());
        assert!("none".parse::<Listen>().is_err());
        let e = "x:1,a b:1".parse::<Advertise>().expect_err("an invalid host");
        assert!(e.contains("\"a b:1\""), "{e}");
    }
}
