//! Prints client events on stderr while a command runs: lost and restored connections, and positions that were reset because they do not
//! exist. The client handles all other events by itself.

use std::convert::Infallible;
use std::future::{pending, ready};

use highwater_client::{Event, Events};

use crate::output;

/// Prints events for as long as it is polled.
pub(crate) async fn print_events(events: &mut Events) -> Infallible {
    let mut outage = Outage::default();
    while let Some(event) = events.next().await {
        if let Some(text) = outage.observe(&event).or_else(|| reset_message(&event)) {
            output::print_stderr(&text);
        }
    }
    pending().await
}

/// Prints the queued events about reset positions, without waiting for new events. Called when the command is done, as it may have ended
/// before [`print_events`] was polled again.
pub(crate) async fn print_queued_resets(events: &mut Events) {
    let print = async {
        while let Some(event) = events.next().await {
            if let Some(text) = reset_message(&event) {
                output::print_stderr(&text);
            }
        }
    };
    tokio::select! {
        biased;
        () = print => {}
        () = ready(()) => {}
    }
}

/// Returns the message about a position that was reset, if the event is one.
fn reset_message(event: &Event) -> Option<String> {
    let Event::PositionReset { topic, partition, from, .. } = event else { return None };
    let from = from.map_or_else(|| "the position".to_owned(), |from| format!("offset {from}"));
    Some(format!(
        "{topic}/{partition}: {from} does not exist: its records were deleted, or the topic was recreated; reading continues at the first record"
    ))
}

/// Tracks outages, so that each is printed once. A client has a connection to each core of the broker, and loses all of them together: an
/// outage lasts from the first lost connection to the first restored one.
#[derive(Default)]
struct Outage {
    is_active: bool,
}

impl Outage {
    /// Returns the message about an event, if it begins or ends an outage.
    fn observe(&mut self, event: &Event) -> Option<String> {
        match event {
            Event::Disconnected { address, reason, .. } if !self.is_active => {
                self.is_active = true;
                Some(format!("connection to {address} lost ({reason}); reconnecting"))
            }
            // The command started with an established connection. If the broker ends while another one is being opened, this event comes first.
            Event::ConnectFailed { reason, .. } if !self.is_active => {
                self.is_active = true;
                Some(format!("connection to the broker lost ({reason}); reconnecting"))
            }
            Event::Connected { address, .. } if self.is_active => {
                self.is_active = false;
                Some(format!("connected to {address} again"))
            }
            _ => None,
        }
    }
}
