//! Resolves the names of other nodes, outside the shards: the resolver of the operating system blocks.

use std::collections::BTreeMap;
use std::io;
use std::net::{SocketAddr, ToSocketAddrs as _};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;

use crate::address::{HostPort, Resolve};

/// Names that are remembered. They are those of seeds and of nodes; if there are more, all are forgotten.
const NAMES_MAX: usize = 4096;

/// A table of names, and a thread that fills it.
///
/// Asking for a name returns what was found last, and has it looked up again: so the attempt after the next finds a node that has moved. Nothing is looked up
/// that nobody asks for.
pub(super) struct Names {
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    table: Mutex<Table>,
    changed: Condvar,
}

#[derive(Default)]
struct Table {
    names: BTreeMap<String, Name>,
    is_closed: bool,
}

struct Name {
    found: Result<Vec<SocketAddr>, String>,
    /// How often it was asked for: attempts take turns with its addresses.
    asked: usize,
    is_wanted: bool,
}

impl Names {
    pub(super) fn new() -> io::Result<Self> {
        let shared = Arc::new(Shared::default());
        let table = Arc::clone(&shared);
        // Not joined at the end: a lookup may take many seconds.
        thread::Builder::new().name("hw-names".into()).spawn(move || table.run())?;
        Ok(Self { shared })
    }
}

impl Drop for Names {
    fn drop(&mut self) {
        self.shared.lock().is_closed = true;
        self.shared.changed.notify_all();
    }
}

impl Resolve for Names {
    fn resolve(&self, address: &HostPort) -> Result<SocketAddr, String> {
        if let Some(address) = address.ip() {
            return Ok(address);
        }
        let text = address.to_string();
        let mut table = self.shared.lock();
        if table.names.len() >= NAMES_MAX && !table.names.contains_key(&text) {
            table.names.clear();
        }
        let name = table.names.entry(text).or_insert_with(|| Name {
            found: Err(format!("the name {} is being looked up", address.host)),
            asked: 0,
            is_wanted: false,
        });
        name.is_wanted = true;
        self.shared.changed.notify_all();
        let found = name.found.as_ref().map_err(Clone::clone)?;
        let address = found[name.asked % found.len()];
        name.asked += 1;
        Ok(address)
    }
}

impl Shared {
    /// Looks up the names that are wanted, until the table is closed.
    fn run(&self) {
        let mut table = self.lock();
        while !table.is_closed {
            let Some(text) = table.take_wanted() else {
                table = self.changed.wait(table).unwrap_or_else(PoisonError::into_inner);
                continue;
            };
            drop(table);
            let found = look_up(&text);
            table = self.lock();
            if let Some(name) = table.names.get_mut(&text) {
                name.found = found;
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        // Nothing panics while it is held.
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Table {
    fn take_wanted(&mut self) -> Option<String> {
        let (text, name) = self.names.iter_mut().find(|(_, name)| name.is_wanted)?;
        name.is_wanted = false;
        Some(text.clone())
    }
}

/// Returns the addresses of a host and port: at least one. Blocks.
pub(super) fn look_up(text: &str) -> Result<Vec<SocketAddr>, String> {
    let found: io::Result<Vec<_>> = text.to_socket_addrs().map(Iterator::collect);
    match found {
        Ok(found) if found.is_empty() => Err("the name has no address".into()),
        Ok(found) => Ok(found),
        Err(e) => Err(format!("the name cannot be resolved: {e}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> HostPort {
        text.parse().expect("an address")
    }

    #[test]
    fn an_ip_address_needs_no_lookup() {
        let names = Names::new().expect("a thread");
        assert_eq!(names.resolve(&address("127.0.0.1:5")), Ok(([127, 0, 0, 1], 5).into()));
        assert!(names.shared.lock().names.is_empty());
    }

    #[test]
    fn a_name_is_looked_up_outside_of_the_caller_and_its_addresses_take_turns() {
        let shared = Arc::new(Shared::default());
        let names = Names { shared: Arc::clone(&shared) };
        let node = address("node.invalid:5");
        assert!(names.resolve(&node).is_err_and(|why| why.contains("being looked up")));
        assert_eq!(shared.lock().take_wanted().as_deref(), Some("node.invalid:5"));
        assert_eq!(shared.lock().take_wanted(), None);
        let found: Vec<SocketAddr> = [1, 2].map(|last| ([10, 0, 0, last], 5).into()).to_vec();
        shared.lock().names.get_mut("node.invalid:5").expect("it was asked for").found = Ok(found.clone());
        let asked: Vec<_> = (0..3).map(|_| names.resolve(&node).expect("found")).collect();
        assert_eq!(asked, [found[0], found[1], found[0]]);
        assert_eq!(shared.lock().take_wanted().as_deref(), Some("node.invalid:5"), "it is looked up again");
        shared.lock().names.get_mut("node.invalid:5").expect("still there").found = look_up("node.invalid:5");
        assert!(names.resolve(&node).is_err_and(|why| why.contains("cannot be resolved")));
    }
}
