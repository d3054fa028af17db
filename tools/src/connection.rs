//! What a command says of its connection while it runs: that it is lost, and that it is back. Everything else is the client's to mend.

use std::convert::Infallible;
use std::future::pending;

use highwater_client::{Event, Events};

use crate::output;

/// Says on stderr when the connection is lost and when it is back, for as long as it is polled.
pub(crate) async fn tell_of_outages(mut events: Events) -> Infallible {
    let mut outage = Outage::default();
    while let Some(event) = events.next().await {
        if let Some(text) = outage.note(&event) {
            output::complain(&text);
        }
    }
    pending().await
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
            Event::ConnectFailed { reason, .. } if !self.lasts => {
                self.lasts = true;
                Some(format!("{reason}; trying again"))
            }
            Event::Connected { address, .. } if self.lasts => {
                self.lasts = false;
                Some(format!("connected to {address} again"))
            }
            _ => None,
        }
    }
}
