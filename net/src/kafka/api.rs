//! The table of Kafka's APIs: the single source of the ApiVersions response, of the gate for requests, and of
//! docs/kafka-compatibility.md.
//!
//! The table has the APIs whose messages have a codec. ApiVersions offers those that are [`State::Served`]; clients choose their behaviour
//! by what is offered, so an API becomes `Served` in the change that adds its handler.

use super::error::KafkaError;
use super::messages::{ApiVersion, ApiVersionsRequest, ApiVersionsResponse};

/// How the broker handles an API.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum State {
    /// Offered to clients and implemented.
    Served,
    /// Not offered. A client that sends it anyway gets a permanent error. (After a closed connection it would retry.)
    Refused,
    /// Only the codec knows it. A request closes the connection.
    Declared,
}

/// An API: a kind of request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Api {
    /// API key.
    pub key: ApiKey,
    /// Name.
    pub name: &'static str,
    /// Oldest version offered.
    pub min: i16,
    /// Oldest version accepted, which may be newer than the oldest offered.
    pub accepted_min: i16,
    /// Newest version offered and accepted.
    pub max: i16,
    /// First flexible version: with compact lengths and tagged fields.
    pub flexible_from: i16,
    /// How the broker handles it.
    pub state: State,
    /// Remark for users.
    pub remark: &'static str,
}

macro_rules! apis {
    ($($name:ident = $key:literal, $min:literal ..= $max:literal $(from $accepted:literal)?, flexible $flexible:literal,
        $state:ident $(, $remark:literal)?;)+) => {
        /// API key.
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
        #[repr(i16)]
        #[allow(missing_docs, reason = "Kafka's names; the messages say what they are")]
        pub enum ApiKey {
            $($name = $key,)+
        }

        impl ApiKey {
            /// Returns the API with this key.
            pub const fn from_i16(key: i16) -> Option<Self> {
                match key {
                    $($key => Some(Self::$name),)+
                    _ => None,
                }
            }

            /// Returns its row of the table.
            pub const fn api(self) -> &'static Api {
                match self {
                    $(Self::$name => const {
                        &Api {
                            key: Self::$name,
                            name: stringify!($name),
                            min: $min,
                            accepted_min: accepted_min($min, &[$($accepted)?]),
                            max: $max,
                            flexible_from: $flexible,
                            state: State::$state,
                            remark: concat!($($remark)?),
                        }
                    },)+
                }
            }
        }

        /// All rows, in order of API key.
        pub const APIS: &[&Api] = &[$(ApiKey::$name.api(),)+];
    };
}

const fn accepted_min(min: i16, accepted: &[i16]) -> i16 {
    match accepted {
        [accepted, ..] => *accepted,
        [] => min,
    }
}

apis! {
    Produce = 0, 0..=11 from 3, flexible 9, Served,
        "0 to 2 are offered and refused, as Kafka does: some clients compress only if they see them. Topic ids (13) are not offered";
    Fetch = 1, 4..=17, flexible 12, Served,
        "no fetch sessions: every answer is full and says session 0. Batches are never split";
    ListOffsets = 2, 1..=11, flexible 6, Served,
        "all special times. Nothing is tiered: -4 is the earliest offset, -5 and -6 find nothing";
    Metadata = 3, 0..=13, flexible 9, Served, "topics by name and by id";
    OffsetCommit = 8, 2..=10, flexible 8, Served,
        "offsets are kept as `offsets_retention_minutes` says; the retention time of old versions is ignored";
    OffsetFetch = 9, 1..=10, flexible 6, Served;
    FindCoordinator = 10, 0..=6, flexible 3, Served,
        "groups only; a transactional id is answered with TRANSACTIONAL_ID_AUTHORIZATION_FAILED (see below)";
    JoinGroup = 11, 0..=9, flexible 6, Served;
    Heartbeat = 12, 0..=4, flexible 4, Served;
    LeaveGroup = 13, 0..=5, flexible 4, Served;
    SyncGroup = 14, 0..=5, flexible 4, Served;
    DescribeGroups = 15, 0..=6, flexible 5, Served;
    ListGroups = 16, 0..=5, flexible 3, Served;
    SaslHandshake = 17, 0..=1, flexible 32767, Served, "answered with ILLEGAL_SASL_STATE: listeners are plain";
    ApiVersions = 18, 0..=4, flexible 3, Served, "any version is answered; one that is not offered with error 35 and this table";
    CreateTopics = 19, 2..=7, flexible 5, Served;
    DeleteTopics = 20, 1..=6, flexible 4, Served, "by name and by id";
    DeleteRecords = 21, 0..=2, flexible 2, Served;
    InitProducerId = 22, 0..=5, flexible 2, Served,
        "a transactional id is answered with TRANSACTIONAL_ID_AUTHORIZATION_FAILED (see below)";
    OffsetForLeaderEpoch = 23, 2..=4, flexible 4, Served;
    AddPartitionsToTxn = 24, 0..=5, flexible 3, Refused, "TRANSACTIONAL_ID_AUTHORIZATION_FAILED";
    AddOffsetsToTxn = 25, 0..=4, flexible 3, Refused, "TRANSACTIONAL_ID_AUTHORIZATION_FAILED";
    EndTxn = 26, 0..=5, flexible 3, Refused, "TRANSACTIONAL_ID_AUTHORIZATION_FAILED";
    TxnOffsetCommit = 28, 0..=5, flexible 3, Refused, "TRANSACTIONAL_ID_AUTHORIZATION_FAILED";
    DescribeAcls = 29, 1..=3, flexible 2, Served, "answered with SECURITY_DISABLED";
    DescribeConfigs = 32, 1..=4, flexible 4, Served, "topics, this broker, groups";
    AlterConfigs = 33, 0..=2, flexible 2, Served, "topics";
    DescribeLogDirs = 35, 1..=4, flexible 2, Served, "one directory, the data directory, with the total and usable bytes of its file system";
    SaslAuthenticate = 36, 0..=2, flexible 2, Served, "answered with ILLEGAL_SASL_STATE: listeners are plain";
    CreatePartitions = 37, 0..=3, flexible 2, Served;
    DeleteGroups = 42, 0..=2, flexible 2, Served;
    ElectLeaders = 43, 0..=2, flexible 2, Served, "never needed";
    IncrementalAlterConfigs = 44, 0..=1, flexible 1, Served, "topics";
    ListPartitionReassignments = 46, 0..=0, flexible 0, Served, "there are none";
    OffsetDelete = 47, 0..=0, flexible 32767, Served;
    DescribeClientQuotas = 48, 0..=1, flexible 1, Served, "there are none";
    DescribeUserScramCredentials = 50, 0..=0, flexible 0, Served, "there are none";
    DescribeCluster = 60, 0..=2, flexible 0, Served;
    DescribeProducers = 61, 0..=0, flexible 0, Served;
    ListTransactions = 66, 0..=2, flexible 0, Served, "there are none";
    ConsumerGroupHeartbeat = 68, 0..=1, flexible 0, Served,
        "assignors uniform and range; classic and consumer members are not mixed in one group";
    ConsumerGroupDescribe = 69, 0..=1, flexible 0, Served;
    DescribeTopicPartitions = 75, 0..=0, flexible 0, Served;
}

impl Api {
    /// Returns whether requests of this version are accepted.
    pub const fn accepts(&self, version: i16) -> bool {
        self.accepted_min <= version && version <= self.max
    }

    /// Returns whether the request's header has tagged fields.
    pub const fn request_header_is_flexible(&self, version: i16) -> bool {
        version >= self.flexible_from
    }

    /// Returns whether the response's header has tagged fields.
    pub const fn response_header_is_flexible(&self, version: i16) -> bool {
        // A client that has just connected does not know which header to expect, so that of ApiVersions never changes.
        version >= self.flexible_from && !matches!(self.key, ApiKey::ApiVersions)
    }
}

/// Returns the ApiVersions response.
pub fn api_versions(error_code: KafkaError) -> ApiVersionsResponse<'static> {
    let served = APIS.iter().filter(|api| api.state == State::Served);
    ApiVersionsResponse {
        error_code,
        api_keys: served
            .map(|api| ApiVersion { api_key: api.key as i16, min_version: api.min, max_version: api.max })
            .collect(),
        ..Default::default()
    }
}

/// Returns the version of the response to an ApiVersions request of `version`, and its error code.
pub const fn api_versions_answer(version: i16) -> (i16, KafkaError) {
    if ApiKey::ApiVersions.api().accepts(version) {
        (version, KafkaError::NONE)
    } else {
        (0, KafkaError::UNSUPPORTED_VERSION)
    }
}

/// Returns whether the client's software name and version are valid: letters, digits, and between them dots and dashes. Required from version 3
/// on.
pub fn names_a_client(version: i16, request: &ApiVersionsRequest<'_>) -> bool {
    let is_word = |word: &str| {
        let ends = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphanumeric());
        let mut chars = word.chars();
        ends(word.chars().next())
            && ends(word.chars().next_back())
            && chars.all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '.'))
    };
    version < 3 || (is_word(request.client_software_name) && is_word(request.client_software_version))
}
