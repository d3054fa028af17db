//! Compares the hand-written codecs with those generated from the declarations of the same messages.

use bytes::{Bytes, BytesMut};

use crate::in_order::Answer as _;
use crate::kafka::api::ApiKey;
use crate::kafka::fetch::FetchAnswer;
use crate::kafka::messages::{FetchResponse, ProduceRequest};
use crate::kafka::produce::{Produce, Records};
use crate::kafka::replies::{Origin, response};
use crate::kafka::samples::{Sample, Samples, Shape};
use crate::kafka::schema::Message;
use crate::kafka::wire::Reader;
use crate::request::Batch;

#[test]
fn produce_is_decoded_like_its_declaration() {
    for shape in Shape::ALL {
        let sample = ProduceRequest::sample(&mut Samples::new(shape));
        for version in ProduceRequest::VERSION_MIN..=ProduceRequest::VERSION_MAX {
            let mut bytes = BytesMut::new();
            sample.encode(version, &mut bytes);
            let mut r = Reader::new(&bytes);
            let produce = Produce::decode(version, &mut r).expect("it can be read");
            r.finish().expect("all of it");
            let declared = ProduceRequest::decode(version, &mut Reader::new(&bytes)).expect("it can be read");
            assert_eq!(
                (produce.transactional_id, produce.acks, produce.timeout_ms),
                (declared.transactional_id, declared.acks, declared.timeout_ms)
            );
            let mut flat = produce.partitions.iter();
            for topic in &declared.topic_data {
                for partition in &topic.partition_data {
                    let to = flat.next().expect("as many partitions");
                    let place = (to.topic, to.topic_id, to.index);
                    assert_eq!(place, (topic.name, topic.topic_id, partition.index));
                    let records = match &to.records {
                        Records::Null => None,
                        Records::Batch(Batch::Small(bytes)) => Some(*bytes),
                        other @ Records::Batch(_) => panic!("{other:?}"),
                    };
                    assert_eq!(records, partition.records);
                }
            }
            assert!(flat.next().is_none());
            for end in 0..bytes.len().min(2000) {
                assert!(Produce::decode(version, &mut Reader::new(&bytes[..end])).is_err());
            }
        }
    }
}

#[test]
fn fetch_responses_are_encoded_like_their_declaration_without_copying_records() {
    for shape in Shape::ALL {
        let mut sample = FetchResponse::sample(&mut Samples::new(shape));
        sample.session_id = 0;
        for topic in &mut sample.responses {
            for partition in &mut topic.partitions {
                partition.records = partition.records.or(Some(&[]));
            }
        }
        for version in FetchResponse::VERSION_MIN..=FetchResponse::VERSION_MAX {
            let origin = Origin { api: ApiKey::Fetch, version, correlation_id: 77 };
            let mut answer =
                FetchAnswer::new(origin, sample.throttle_time_ms, sample.error_code, sample.responses.len());
            let mut pages = Vec::new();
            for topic in &sample.responses {
                answer.topic(&topic.topic, topic.topic_id, topic.partitions.len());
                for partition in &topic.partitions {
                    let records = Bytes::copy_from_slice(partition.records.expect("records"));
                    // In two slices, because a batch may span two buffers.
                    let middle = records.len() / 2;
                    let pieces = [records.slice(..middle), records.slice(middle..)];
                    answer.partition(partition, &pieces);
                    pages.extend(pieces.into_iter().filter(|piece| !piece.is_empty()));
                }
            }
            let reply = answer.finish(&sample.node_endpoints);
            let whole = [std::slice::from_ref(&reply.head), &reply.rest[..]].concat().concat();
            assert_eq!(Bytes::from(whole), response(origin, &sample).head, "{version} {shape:?}");
            assert_eq!(reply.bytes(), response(origin, &sample).bytes());
            for page in pages {
                assert!(reply.rest.iter().any(|part| part.as_ptr() == page.as_ptr()), "not copied");
            }
        }
    }
}

#[test]
#[should_panic(expected = "the announced number of topics and partitions")]
fn completing_an_incomplete_fetch_response_panics() {
    let origin = Origin { api: ApiKey::Fetch, version: 12, correlation_id: 1 };
    let _ = FetchAnswer::new(origin, 0, crate::kafka::KafkaError::NONE, 1).finish(&[]);
}
