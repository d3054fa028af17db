//! Connects that fail because of the operating system. This test changes a limit of the process, so it is alone here.

#[macro_use]
mod ignore;

use std::fs::File;
use std::net::{SocketAddr, TcpListener};
use std::sync::mpsc::{Sender, channel};

use highwater_runtime::buf::AlignedBuf;
use highwater_runtime::plane::{
    CONNECT_TIME_MAX, CloseReason, Completion, ConnId, ConnectError, ConnectFailure, ListenerId, Plane,
    ShardApp, ShardIndex, Token,
};
use highwater_runtime::{HostKind, RuntimeConfig, available_cpus, start};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Open files of this process.
const FILES_MAX: u64 = 256;

/// Connects to each address in turn; to the first while the process is out of file descriptors.
struct Dialer {
    to: Vec<SocketAddr>,
    held: Vec<File>,
    outcomes: Sender<Result<(), ConnectError>>,
}

impl Dialer {
    fn next(&mut self, plane: &mut dyn Plane<()>) {
        match self.to.pop() {
            Some(to) => drop(plane.connect(to, CONNECT_TIME_MAX, Token(0))),
            None => plane.exit(),
        }
    }
}

impl ShardApp for Dialer {
    type Message = ();

    ignore! {
        on_accept(ConnId, ListenerId, SocketAddr);
        on_recv(ConnId, &[u8]);
        on_bulk(ConnId, AlignedBuf);
        on_sent(ConnId, usize);
        on_closed(ConnId, CloseReason);
        on_disk(Token, Completion);
        on_message(ShardIndex, ());
        on_migrated(ConnId, ListenerId, SocketAddr, ());
        on_shutdown();
        on_turn_end();
    }

    fn on_timer(&mut self, plane: &mut dyn Plane<()>, _: Token) {
        while let Ok(file) = File::open("/dev/null") {
            self.held.push(file);
        }
        self.next(plane);
        // The system call was made, and only its outcome comes later.
        self.held.clear();
    }

    fn on_connected(
        &mut self,
        plane: &mut dyn Plane<()>,
        _: ConnId,
        _: Token,
        outcome: Result<(), ConnectError>,
    ) {
        self.outcomes.send(outcome).expect("the test waits");
        self.next(plane);
    }
}

#[test]
fn a_connect_that_the_operating_system_refuses_reports_why_and_the_next_one_succeeds() {
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: Some(FILES_MAX), ..limit }).expect("it may be lowered");
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let open = listener.local_addr().expect("it is bound");
    // No connection can be made to a group of hosts.
    let group = SocketAddr::from(([224, 0, 0, 1], 9));
    for host in [HostKind::Glommio, HostKind::Thread] {
        let (outcomes, seen) = channel();
        let cpus = available_cpus().expect("affinity").into_iter().take(1).collect();
        let config = RuntimeConfig { host, ..RuntimeConfig::new(cpus) };
        let runtime = start(config, move |_, plane| {
            plane.set_timer(plane.now(), Token(0));
            Ok(Dialer { to: vec![open, group, open], held: Vec::new(), outcomes: outcomes.clone() })
        });
        runtime.expect("a shard").wait().expect("an orderly end");
        let outcomes: Vec<_> = seen.iter().collect();
        let [Err(no_files), Err(no_route), Ok(())] = &outcomes[..] else { panic!("{outcomes:?}") };
        assert!(matches!(no_files.why, ConnectFailure::OutOfFiles(_)), "{no_files}");
        assert!(no_files.to_string().contains("ulimit -n"), "{no_files}");
        assert!(matches!(no_route.why, ConnectFailure::Unreachable(_)), "{no_route}");
        assert!(no_route.to_string().starts_with("cannot connect to 224.0.0.1:9: "), "{no_route}");
    }
}
