//! What of Kafka's protocol is served: the one table behind the ApiVersions answer, the gate for requests and
//! docs/kafka-compatibility.md.
//!
//! A row stands here when its messages can be read and written. It is offered to clients when `served` is true, which is set in the
//! change that brings its handler: clients choose what they do by what is offered.

use super::error::KafkaError;
use super::messages::{ApiVersion, ApiVersionsResponse};

/// One kind of request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Api {
    /// Its number.
    pub key: ApiKey,
    /// Its name.
    pub name: &'static str,
    /// The oldest version that is offered.
    pub min: i16,
    /// The oldest version that is accepted, which is not always the oldest offered.
    pub accepted_min: i16,
    /// The newest version that is offered and accepted.
    pub max: i16,
    /// The first version with compact lengths and tagged fields.
    pub flexible_from: i16,
    /// Whether there is a handler.
    pub served: bool,
    /// What a user should know.
    pub remark: &'static str,
}

macro_rules! apis {
    ($($name:ident = $key:literal, $min:literal ..= $max:literal $(from $accepted:literal)?, flexible $flexible:literal,
        served $served:literal $(, $remark:literal)?;)+) => {
        /// The number of a kind of request.
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
        #[repr(i16)]
        #[allow(missing_docs, reason = "Kafka's names; the messages say what they are")]
        pub enum ApiKey {
            $($name = $key,)+
        }

        impl ApiKey {
            /// The kind of request with this number.
            pub const fn from_i16(key: i16) -> Option<Self> {
                match key {
                    $($key => Some(Self::$name),)+
                    _ => None,
                }
            }

            /// Its row.
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
                            served: $served,
                            remark: concat!($($remark)?),
                        }
                    },)+
                }
            }
        }

        /// Every row, in the order of the numbers.
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
    Produce = 0, 0..=11 from 3, flexible 9, served true,
        "0 to 2 are offered and refused, as Kafka does: some clients compress only if they see them. Topic ids (13) are not offered";
    Fetch = 1, 4..=17, flexible 12, served true,
        "no fetch sessions: every answer is full and says session 0. Batches are never split";
    ListOffsets = 2, 1..=11, flexible 6, served true,
        "all special times. Nothing is tiered: -4 is the earliest offset, -5 and -6 find nothing";
    Metadata = 3, 0..=13, flexible 9, served true, "topics by name and by id";
    OffsetCommit = 8, 2..=10, flexible 8, served true,
        "offsets are kept as `offsets_retention_minutes` says; the retention time of old versions is ignored";
    OffsetFetch = 9, 1..=10, flexible 6, served true;
    FindCoordinator = 10, 0..=6, flexible 3, served true,
        "groups only; there are no transactions, and asking for their coordinator is an INVALID_REQUEST";
    JoinGroup = 11, 0..=9, flexible 6, served true;
    Heartbeat = 12, 0..=4, flexible 4, served true;
    LeaveGroup = 13, 0..=5, flexible 4, served true;
    SyncGroup = 14, 0..=5, flexible 4, served true;
    DescribeGroups = 15, 0..=6, flexible 5, served true;
    ListGroups = 16, 0..=5, flexible 3, served true;
    ApiVersions = 18, 0..=4, flexible 3, served true, "any version is answered; one that is not offered with error 35 and this table";
    CreateTopics = 19, 2..=7, flexible 5, served true, "one replica; compact topics keep every record (see below)";
    DeleteTopics = 20, 1..=6, flexible 4, served true, "by name and by id";
    DeleteRecords = 21, 0..=2, flexible 2, served true;
    InitProducerId = 22, 0..=5, flexible 2, served true,
        "a transactional id is answered with UNSUPPORTED_VERSION";
    OffsetForLeaderEpoch = 23, 2..=4, flexible 4, served true;
    DescribeConfigs = 32, 1..=4, flexible 4, served true, "topics, this broker, groups";
    AlterConfigs = 33, 0..=2, flexible 2, served true, "topics";
    CreatePartitions = 37, 0..=3, flexible 2, served true;
    DeleteGroups = 42, 0..=2, flexible 2, served true;
    IncrementalAlterConfigs = 44, 0..=1, flexible 1, served true, "topics";
    OffsetDelete = 47, 0..=0, flexible 32767, served true;
    DescribeCluster = 60, 0..=2, flexible 0, served true;
    ConsumerGroupHeartbeat = 68, 0..=1, flexible 0, served true,
        "assignors uniform and range; classic and consumer members are not mixed in one group";
    ConsumerGroupDescribe = 69, 0..=1, flexible 0, served true;
    DescribeTopicPartitions = 75, 0..=0, flexible 0, served true;
}

impl Api {
    /// Whether a request of this version is accepted.
    pub const fn accepts(&self, version: i16) -> bool {
        self.accepted_min <= version && version <= self.max
    }

    /// Whether the request's header ends in tagged fields.
    pub const fn request_header_is_flexible(&self, version: i16) -> bool {
        version >= self.flexible_from
    }

    /// Whether the response's header ends in tagged fields.
    pub const fn response_header_is_flexible(&self, version: i16) -> bool {
        // A client that has just connected cannot know yet which header to expect, so that of ApiVersions never changes.
        version >= self.flexible_from && !matches!(self.key, ApiKey::ApiVersions)
    }
}

/// What is offered, as clients are told it.
pub fn api_versions(error_code: KafkaError) -> ApiVersionsResponse<'static> {
    let served = APIS.iter().filter(|api| api.served);
    ApiVersionsResponse {
        error_code,
        api_keys: served
            .map(|api| ApiVersion { api_key: api.key as i16, min_version: api.min, max_version: api.max })
            .collect(),
        ..Default::default()
    }
}

/// The version in which an ApiVersions request of `version` is answered, and the error that the answer bears.
pub const fn api_versions_answer(version: i16) -> (i16, KafkaError) {
    if ApiKey::ApiVersions.api().accepts(version) {
        (version, KafkaError::NONE)
    } else {
        (0, KafkaError::UNSUPPORTED_VERSION)
    }
}
