//! What a command says on stderr of its client while it runs: that the connection is lost, that it is back, and that a position to read
//! from does not exist and where reading goes on instead. Everything else is the client's to mend.

use std::convert::Infallible;
use std::future::{pending, ready};

use highwater_client::{Event, Events};

use crate::output;

/// Tells of events for as long as it is polled.
pub(crate) async fn tell_of_events(events: &mut Events) -> Infallible {
    let mut outage = Outage::default();
    while let Some(event) = events.next().await {
        if let Some(text) = outage.note(&event).or_else(|| reset(&event)) {
            output::complain(&text);
        }
    }
    pending().await
}

/// Tells of what happened and was not told while the command was busy with something else, now that it is done.
pub(crate) async fn tell_of_resets(events: &mut Events) {
    let tell = async {
        while let Some(event) = events.next().await {
            if let Some(text) = reset(&event) {
                output::complain(&text);
            }
        }
    };
    tokio::select! {
        biased;
        () = tell => {}
        () = ready(()) => {}
    }
}

/// What to say about a position that does not exist.
fn reset(event: &Event) -> Option<String> {
    let Event::PositionReset { topic, partition, from, .. } = event else { return None };
    let from = from.map_or_else(|| "the position".to_owned(), |from| format!("offset {from}"));
    Some(format!(
        "{topic}/{partition}: {from} does not exist: its records were deleted, or the topic was created anew; reading goes on at the first record there is"
    ))
}

/// Whether there is an outage: from the first connection that is lost to the first that stands again. A client has one for each core of
/// the broker, and they are lost together.
#[derive(Default)]
struct Outage {
    lasts: bool,
}

impl Outage {
    /// What to say about an event, if anything.
    fn note(&mut self, event: &Event) -> Option<String> {
        match event {
            Event::Disconnected { address, reason, .. } if !self.lasts => {
                self.lasts = true;
                Some(format!("connection to {address} lost ({reason}); reconnecting"))
            }
            // The command began with a connection that stood. What ends while another one is being made is noticed there first.
            Event::ConnectFailed { reason, .. } if !self.lasts => {
                self.lasts = true;
                Some(format!("connection to the broker lost ({reason}); reconnecting"))
            }
            Event::Connected { address, .. } if self.lasts => {
                self.lasts = false;
                Some(format!("connected to {address} again"))
            }
            _ => None,
        }
    }
}
