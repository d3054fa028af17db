//! A connection: queues requests, matches answers to requests by id, and dispatches pushes to subscriptions.
//!
//! `send_*` are the commands. [`ConnCore::gather`] and [`ConnCore::finish_write`] drain the output queue.
//! [`ConnCore::handle_message`] takes a received message and returns its recipient. [`ConnCore::handle_closed`] returns
//! every open request. A request counts as *sent* once its first byte may have been written: only from then on can it
//! have had an effect.

use std::collections::VecDeque;
use std::io::IoSlice;
use std::time::Instant;

use ahash::AHashMap;
use bytes::Bytes;
use highwater_protocol::error::ErrorCode;
use highwater_protocol::native::{MessageKind, PRODUCE_HEAD_BYTES, error_text};

use super::split::{Message, ProtocolViolation};

/// The body of an answer, or the error code and its text.
pub(crate) type Answer = Result<Bytes, (ErrorCode, String)>;

/// A message with its recipient. `C` waits for one answer; `S` is a subscription.
#[derive(Debug)]
pub(crate) enum ConnEvent<C, S> {
    /// The answer to a call.
    Answered(C, Answer),
    /// A batch that expects no answer was written to the socket, as the request with this id.
    Sent(C, u64),
    /// The broker rejected a batch that expected no answer: the request with this id.
    LateRejection(u64, ErrorCode, String),
    /// The answer to a subscribe request. After an error the subscription does not exist.
    Subscribed(S, Answer),
    /// Frames for a subscription, or the error that ended it.
    Pushed(S, Answer),
}

/// The requests and subscriptions that were open when a connection ended.
#[derive(Debug)]
pub(crate) struct OpenRequests<C, S> {
    /// Unanswered calls, in order; `true`: the broker may have received the request.
    pub(crate) calls: Vec<(C, bool)>,
    pub(crate) subscriptions: Vec<S>,
}

/// See the module documentation.
#[derive(Debug)]
pub(crate) struct ConnCore<C, S> {
    next_id: u64,
    outgoing: VecDeque<Outgoing<C>>,
    /// Bytes of the first outgoing message already written.
    front_written: usize,
    /// Requests with ids below this may have been written.
    started: u64,
    /// In order of id.
    pending: VecDeque<PendingRequest<C, S>>,
    subscriptions: AHashMap<u64, S>,
}

#[derive(Debug)]
struct Outgoing<C> {
    head: [u8; PRODUCE_HEAD_BYTES],
    head_bytes: usize,
    body: Bytes,
    /// For a request without an answer: notified with its id once it was written.
    waiter: Option<(C, u64)>,
}

#[derive(Debug)]
struct PendingRequest<C, S> {
    id: u64,
    kind: MessageKind,
    since: Instant,
    waiter: Waiter<C, S>,
}

#[derive(Debug)]
enum Waiter<C, S> {
    Call(C),
    Subscribe(S),
    /// Cancelled: the user unsubscribed before the answer.
    Nobody,
}

impl<C, S: Clone> ConnCore<C, S> {
    /// Creates the state of a connection. `first_id` is the first request id; the hello used those before it.
    pub(crate) fn new(first_id: u64) -> Self {
        Self {
            next_id: first_id,
            outgoing: VecDeque::new(),
            front_written: 0,
            started: first_id,
            pending: VecDeque::new(),
            subscriptions: AHashMap::with_hasher(ahash::RandomState::with_seeds(1, 2, 3, 4)),
        }
    }

    /// Queues a request with one answer. `message` encodes it with its id.
    pub(crate) fn send_call(
        &mut self,
        kind: MessageKind,
        message: impl FnOnce(u64) -> Bytes,
        waiter: C,
        now: Instant,
    ) -> u64 {
        let id = self.queue(message);
        self.pending.push_back(PendingRequest { id, kind, since: now, waiter: Waiter::Call(waiter) });
        id
    }

    /// Queues a produce request: a head encoded with the request id, followed by the batch, which is not copied. The
    /// waiter gets the answer or, if none is expected, a notification once the batch was written.
    pub(crate) fn send_produce(
        &mut self,
        head: impl FnOnce(u64) -> [u8; PRODUCE_HEAD_BYTES],
        batch: Bytes,
        waiter: C,
        is_answered: bool,
        now: Instant,
    ) -> u64 {
        let id = self.take_id();
        let mut outgoing =
            Outgoing { head: head(id), head_bytes: PRODUCE_HEAD_BYTES, body: batch, waiter: None };
        if is_answered {
            let waiter = Waiter::Call(waiter);
            self.pending.push_back(PendingRequest { id, kind: MessageKind::Produce, since: now, waiter });
        } else {
            outgoing.waiter = Some((waiter, id));
        }
        self.outgoing.push_back(outgoing);
        id
    }

    /// Queues a subscribe request. The request id identifies the subscription.
    pub(crate) fn send_subscribe(
        &mut self,
        message: impl FnOnce(u64) -> Bytes,
        subscription: S,
        now: Instant,
    ) -> u64 {
        let id = self.queue(message);
        let waiter = Waiter::Subscribe(subscription);
        self.pending.push_back(PendingRequest { id, kind: MessageKind::Subscribe, since: now, waiter });
        id
    }

    /// Grants a subscription more credit, if it still exists. `message` is complete.
    pub(crate) fn send_credit(&mut self, subscription: u64, message: Bytes) {
        if self.subscriptions.contains_key(&subscription) {
            self.queue_whole(message);
        }
    }

    /// Ends a subscription: later pushes to it are discarded. `message` is complete.
    pub(crate) fn send_unsubscribe(&mut self, subscription: u64, message: Bytes) {
        if self.subscriptions.remove(&subscription).is_some() {
            self.queue_whole(message);
        } else if let Ok(at) = self.pending.binary_search_by_key(&subscription, |pending| pending.id) {
            self.pending[at].waiter = Waiter::Nobody;
            self.queue_whole(message);
        }
    }

    /// Fills `slices` with the next bytes to write. Returns the number of slices filled.
    pub(crate) fn gather<'a>(&'a self, slices: &mut [IoSlice<'a>]) -> usize {
        let mut count = 0;
        let mut skip = self.front_written;
        for message in &self.outgoing {
            for piece in [&message.head[..message.head_bytes], &message.body[..]] {
                let written = skip.min(piece.len());
                skip -= written;
                let piece = &piece[written..];
                if piece.is_empty() {
                    continue;
                }
                let Some(slot) = slices.get_mut(count) else { return count };
                *slot = IoSlice::new(piece);
                count += 1;
            }
        }
        count
    }

    /// Returns whether there is anything to write.
    pub(crate) fn wants_write(&self) -> bool {
        !self.outgoing.is_empty()
    }

    /// Marks everything queued as sent, because it is about to be passed to the socket.
    pub(crate) fn begin_write(&mut self) {
        self.started = self.next_id;
    }

    /// Removes `bytes` of the gathered output, which were written. Appends the requests that expect no answer and were
    /// written completely to `sent`.
    pub(crate) fn finish_write(&mut self, mut bytes: usize, sent: &mut Vec<ConnEvent<C, S>>) {
        while let Some(front) = self.outgoing.front() {
            let left = front.head_bytes + front.body.len() - self.front_written;
            if bytes < left {
                self.front_written += bytes;
                return;
            }
            bytes -= left;
            self.front_written = 0;
            let whole = self.outgoing.pop_front().expect("it is at the front");
            sent.extend(whole.waiter.map(|(waiter, id)| ConnEvent::Sent(waiter, id)));
        }
        assert!(bytes == 0, "more bytes written than were gathered");
    }

    /// Returns a message with its recipient. None if the recipient is gone.
    pub(crate) fn handle_message(
        &mut self,
        message: Message,
    ) -> Result<Option<ConnEvent<C, S>>, ProtocolViolation> {
        let Message { kind, error, request_id: id, body } = message;
        let answer = match error {
            None => Ok(body),
            Some(code) => Err((code, error_text(&body))),
        };
        if kind == MessageKind::Data {
            return self.handle_push(id, answer);
        }
        let Ok(at) = self.pending.binary_search_by_key(&id, |pending| pending.id) else {
            return match kind {
                // An error of a subscription may have either kind.
                MessageKind::Subscribe if answer.is_err() => self.handle_push(id, answer),
                // The broker's last message before it closes the connection.
                MessageKind::Produce if id < self.next_id => Ok(match answer {
                    Ok(_) => None,
                    Err((code, text)) => Some(ConnEvent::LateRejection(id, code, text)),
                }),
                // Nobody waits for the end of a subscription.
                MessageKind::Unsubscribe | MessageKind::Credit if id < self.next_id => Ok(None),
                _ => Err(ProtocolViolation::Unasked(id)),
            };
        };
        if self.pending[at].kind != kind {
            return Err(ProtocolViolation::OtherKind { asked: self.pending[at].kind, got: kind });
        }
        let pending = self.pending.remove(at).expect("just found");
        Ok(match pending.waiter {
            Waiter::Call(waiter) => Some(ConnEvent::Answered(waiter, answer)),
            Waiter::Subscribe(subscription) => {
                if answer.is_ok() {
                    self.subscriptions.insert(id, subscription.clone());
                }
                Some(ConnEvent::Subscribed(subscription, answer))
            }
            Waiter::Nobody => None,
        })
    }

    fn handle_push(&mut self, id: u64, answer: Answer) -> Result<Option<ConnEvent<C, S>>, ProtocolViolation> {
        if id >= self.next_id {
            return Err(ProtocolViolation::Unasked(id));
        }
        let subscription = match &answer {
            Ok(_) => self.subscriptions.get(&id).cloned(),
            Err(_) => self.subscriptions.remove(&id),
        };
        Ok(subscription.map(|subscription| ConnEvent::Pushed(subscription, answer)))
    }

    /// Returns when the oldest unanswered request was queued.
    pub(crate) fn oldest_unanswered(&self) -> Option<Instant> {
        self.pending.front().map(|pending| pending.since)
    }

    /// Returns the number of unanswered requests.
    #[cfg(test)]
    pub(crate) fn in_flight(&self) -> usize {
        self.pending.len()
    }

    /// Ends the connection. Returns everything that was open.
    pub(crate) fn handle_closed(&mut self) -> OpenRequests<C, S> {
        let mut orphans = OpenRequests { calls: Vec::new(), subscriptions: Vec::new() };
        // A request that was not written completely has no effect.
        let unsent = self.outgoing.drain(..).filter_map(|outgoing| outgoing.waiter);
        orphans.calls.extend(unsent.map(|(waiter, _)| (waiter, false)));
        orphans.subscriptions.extend(self.subscriptions.drain().map(|(_, subscription)| subscription));
        for pending in self.pending.drain(..) {
            match pending.waiter {
                Waiter::Call(waiter) => orphans.calls.push((waiter, pending.id < self.started)),
                Waiter::Subscribe(subscription) => orphans.subscriptions.push(subscription),
                Waiter::Nobody => {}
            }
        }
        orphans
    }

    fn take_id(&mut self) -> u64 {
        let id = self.next_id;
        self.next_id += 1;
        id
    }

    fn queue(&mut self, message: impl FnOnce(u64) -> Bytes) -> u64 {
        let id = self.take_id();
        self.queue_whole(message(id));
        id
    }

    fn queue_whole(&mut self, body: Bytes) {
        let head = [0; PRODUCE_HEAD_BYTES];
        self.outgoing.push_back(Outgoing { head, head_bytes: 0, body, waiter: None });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use highwater_protocol::native::{empty_message, error_message};

    type Core = ConnCore<&'static str, &'static str>;

    fn core() -> Core {
        ConnCore::new(1)
    }

    fn call(core: &mut Core, who: &'static str) -> u64 {
        core.send_call(
            MessageKind::Metadata,
            |id| empty_message(MessageKind::Metadata, id),
            who,
            Instant::now(),
        )
    }

    fn answer(kind: MessageKind, request_id: u64) -> Message {
        Message { kind, error: None, request_id, body: Bytes::from_static(b"x") }
    }

    fn written(core: &mut Core, step: usize) -> Vec<u8> {
        let mut out = Vec::new();
        while core.wants_write() {
            let mut slices = [IoSlice::new(&[]); 3];
            let count = core.gather(&mut slices);
            let all: Vec<u8> = slices[..count].iter().flat_map(|slice| slice.iter().copied()).collect();
            let take = step.min(all.len());
            out.extend_from_slice(&all[..take]);
            core.begin_write();
            core.finish_write(take, &mut Vec::new());
        }
        out
    }

    #[test]
    fn answers_are_matched_to_requests_in_any_order() {
        let mut core = core();
        let ids: Vec<_> = ["a", "b", "c"].map(|who| call(&mut core, who)).into();
        for (id, who) in [(ids[1], "b"), (ids[2], "c"), (ids[0], "a")] {
            match core.handle_message(answer(MessageKind::Metadata, id)).unwrap() {
                Some(ConnEvent::Answered(got, Ok(_))) => assert_eq!(got, who),
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(core.in_flight(), 0);
        assert!(matches!(
            core.handle_message(answer(MessageKind::Metadata, ids[0])),
            Err(ProtocolViolation::Unasked(_))
        ));
    }

    #[test]
    fn an_answer_of_another_kind_is_a_protocol_violation() {
        let mut core = core();
        let id = call(&mut core, "a");
        assert!(matches!(
            core.handle_message(answer(MessageKind::Fetch, id)),
            Err(ProtocolViolation::OtherKind { .. })
        ));
    }

    #[test]
    fn partial_writes_of_any_size_put_the_same_bytes_on_the_wire() {
        let make = || {
            let mut core = core();
            call(&mut core, "a");
            core.send_produce(
                |_| [7; PRODUCE_HEAD_BYTES],
                Bytes::from(vec![9; 100]),
                "p",
                true,
                Instant::now(),
            );
            call(&mut core, "b");
            core
        };
        let whole = written(&mut make(), usize::MAX);
        assert_eq!(whole.len(), 16 + PRODUCE_HEAD_BYTES + 100 + 16);
        for step in 1..whole.len() {
            assert_eq!(written(&mut make(), step), whole, "steps of {step}");
        }
    }

    #[test]
    fn only_bytes_passed_to_the_socket_count_as_sent() {
        let mut core = core();
        call(&mut core, "left");
        written(&mut core, usize::MAX);
        call(&mut core, "stayed");
        let orphans = core.handle_closed();
        assert_eq!(orphans.calls, [("left", true), ("stayed", false)]);
    }

    #[test]
    fn a_batch_without_an_answer_is_reported_once_written_completely_or_returned_as_unsent() {
        let mut core = core();
        for who in ["first", "second"] {
            let batch = Bytes::from_static(&[9; 100]);
            core.send_produce(|_| [7; PRODUCE_HEAD_BYTES], batch, who, false, Instant::now());
        }
        core.begin_write();
        let mut left = Vec::new();
        core.finish_write(PRODUCE_HEAD_BYTES + 99, &mut left);
        assert!(left.is_empty());
        core.finish_write(2, &mut left);
        assert!(matches!(left[..], [ConnEvent::Sent("first", 1)]));
        assert_eq!(core.handle_closed().calls, [("second", false)]);
    }

    #[test]
    fn a_late_rejection_names_its_request() {
        let mut core = core();
        let batch = Bytes::from_static(&[9; 100]);
        let id = core.send_produce(|_| [7; PRODUCE_HEAD_BYTES], batch, "p", false, Instant::now());
        written(&mut core, usize::MAX);
        assert!(matches!(core.handle_message(answer(MessageKind::Produce, id)), Ok(None)));
        let refusal =
            Message { error: Some(ErrorCode::InvalidTimestamp), ..answer(MessageKind::Produce, id) };
        match core.handle_message(refusal).unwrap() {
            Some(ConnEvent::LateRejection(of, ErrorCode::InvalidTimestamp, _)) => assert_eq!(of, id),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn pushes_reach_their_subscription_until_it_ends() {
        let mut core = core();
        let id = core.send_subscribe(|id| empty_message(MessageKind::Subscribe, id), "s", Instant::now());
        assert!(matches!(core.handle_message(answer(MessageKind::Data, id)), Ok(None)));
        let subscribed = core.handle_message(answer(MessageKind::Subscribe, id)).unwrap();
        assert!(matches!(subscribed, Some(ConnEvent::Subscribed("s", Ok(_)))));
        let pushed = core.handle_message(answer(MessageKind::Data, id)).unwrap();
        assert!(matches!(pushed, Some(ConnEvent::Pushed("s", Ok(_)))));
        core.send_unsubscribe(id, empty_message(MessageKind::Unsubscribe, id));
        assert!(matches!(core.handle_message(answer(MessageKind::Data, id)), Ok(None)));
        assert!(matches!(core.handle_message(answer(MessageKind::Unsubscribe, id)), Ok(None)));
        assert!(matches!(
            core.handle_message(answer(MessageKind::Data, 99)),
            Err(ProtocolViolation::Unasked(99))
        ));
    }

    #[test]
    fn an_error_ends_a_subscription() {
        let mut core = core();
        let id = core.send_subscribe(|id| empty_message(MessageKind::Subscribe, id), "s", Instant::now());
        core.handle_message(answer(MessageKind::Subscribe, id)).unwrap();
        let bytes = error_message(MessageKind::Data as u16, id, ErrorCode::UnknownTopic, "gone");
        let mut buf = bytes::BytesMut::from(&bytes[..]);
        let message = super::super::split::next_message(&mut buf).unwrap().unwrap();
        match core.handle_message(message).unwrap() {
            Some(ConnEvent::Pushed("s", Err((code, text)))) => {
                assert_eq!((code, text.as_str()), (ErrorCode::UnknownTopic, "gone"));
            }
            other => panic!("{other:?}"),
        }
        assert!(core.handle_closed().subscriptions.is_empty());
    }
}
