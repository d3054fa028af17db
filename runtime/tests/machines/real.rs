//! The conformance suite on the io_uring plane: real sockets, real files.

use std::collections::VecDeque;
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpStream};
use std::os::fd::OwnedFd;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use highwater_runtime::conformance::{ClientId, Machine, TestApp};
use highwater_runtime::sim::{SimRng, stream};
use highwater_runtime::{HostKind, RunError, Runtime, RuntimeConfig, available_cpus, bind, start};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{AddressFamily, SocketFlags, SocketType, sockopt};
use tempfile::TempDir;

/// Time limit, longer than anything takes.
const LIMIT: Duration = Duration::from_secs(30);

pub(crate) struct Real {
    host: HostKind,
    dir: TempDir,
    runtime: Option<Runtime>,
    addresses: Vec<SocketAddr>,
    clients: Vec<Client>,
    /// Sockets that stay open.
    held: Vec<OwnedFd>,
    random: SimRng,
}

/// Backlog of a listener that accepts nothing.
const UNANSWERING_BACKLOG: i32 = 1;

fn tcp_socket() -> OwnedFd {
    rustix::net::socket_with(AddressFamily::INET, SocketType::STREAM, SocketFlags::CLOEXEC, None)
        .expect("a socket")
}

fn address_of(socket: &OwnedFd) -> SocketAddr {
    rustix::net::getsockname(socket).expect("it is bound").try_into().expect("an address of the internet")
}

/// Waits until this many connections of a listener wait to be accepted, which is a moment after the client is connected.
fn wait_until_queued(listener: SocketAddr, connections: usize) {
    let started = Instant::now();
    // The addresses in the table are in the byte order of the machine.
    let SocketAddr::V4(v4) = listener else { panic!("the table is that of IPv4") };
    let entry = format!("{:08X}:{:04X}", u32::from_ne_bytes(v4.ip().octets()), v4.port());
    loop {
        let table = std::fs::read_to_string("/proc/net/tcp").expect("Linux has it");
        let queued = table.lines().find_map(|line| {
            let mut fields = line.split_whitespace().skip(1);
            let (local, _, state, queues) = (fields.next()?, fields.next()?, fields.next()?, fields.next()?);
            let (_, queued) = queues.split_once(':')?;
            (local == entry && state == "0A").then(|| usize::from_str_radix(queued, 16).expect("a number"))
        });
        if queued == Some(connections) {
            return;
        }
        assert!(started.elapsed() < LIMIT, "{queued:?} of {connections} connections are queued");
        std::thread::yield_now();
    }
}

struct Client {
    /// `None` once it is closed.
    socket: Option<TcpStream>,
    queued: VecDeque<u8>,
    finishing: bool,
}

impl Client {
    /// Sends as much as the kernel takes.
    fn flush(&mut self) {
        let Some(socket) = &mut self.socket else { return };
        while !self.queued.is_empty() {
            match socket.write(self.queued.as_slices().0) {
                Ok(sent) => drop(self.queued.drain(..sent)),
                Err(e) if e.kind() == ErrorKind::WouldBlock => return,
                // The receiver finds out how the connection ended.
                Err(_) => self.queued.clear(),
            }
        }
        if std::mem::take(&mut self.finishing) {
            let _ = socket.shutdown(Shutdown::Write);
        }
    }
}

impl Real {
    pub(crate) fn new(host: HostKind) -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let random = stream(1, "conformance", 0);
        Self {
            host,
            dir,
            runtime: None,
            addresses: Vec::new(),
            clients: Vec::new(),
            held: Vec::new(),
            random,
        }
    }

    fn flush(&mut self) {
        for client in &mut self.clients {
            client.flush();
        }
    }

    /// Sleeps until a client can make progress.
    fn poll(&self, receiver: ClientId) {
        let mut waiting: Vec<PollFd<'_>> = Vec::new();
        for (at, client) in self.clients.iter().enumerate() {
            let mut flags = PollFlags::empty();
            flags.set(PollFlags::IN, at == receiver.0);
            flags.set(PollFlags::OUT, !client.queued.is_empty());
            if let Some(socket) = client.socket.as_ref().filter(|_| !flags.is_empty()) {
                waiting.push(PollFd::new(socket, flags));
            }
        }
        let limit = Timespec { tv_sec: LIMIT.as_secs() as i64, tv_nsec: 0 };
        let ready = poll(&mut waiting, Some(&limit)).expect("poll");
        assert!(ready > 0, "nothing arrived for {LIMIT:?}");
    }

    /// Returns the result of the shards. Waits on a separate thread, so that a hang fails the test.
    fn join(&mut self) -> Result<(), RunError> {
        let Some(runtime) = self.runtime.take() else { return Ok(()) };
        let (done, result) = mpsc::channel();
        std::thread::spawn(move || done.send(runtime.wait()));
        result.recv_timeout(LIMIT).expect("the shards end")
    }
}

impl Machine for Real {
    fn start(&mut self, shards: u16, listeners: u16) {
        let cpus = available_cpus().expect("there are CPUs");
        let cpus = (0..usize::from(shards)).map(|shard| cpus[shard % cpus.len()]).collect();
        let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let listeners: Vec<_> = (0..listeners).map(|_| bind(any).expect("a free port")).collect();
        self.addresses = listeners.iter().map(|l| l.local_addr().expect("it is bound")).collect();
        let config = RuntimeConfig { host: self.host, listeners, ..RuntimeConfig::new(cpus) };
        let dir = self.dir.path().join("data");
        let runtime = start(config, move |_, _| Ok(TestApp::new(dir.clone()))).expect("the shards start");
        self.runtime = Some(runtime);
    }

    fn connect(&mut self, listener: u16) -> ClientId {
        let socket = TcpStream::connect(self.addresses[usize::from(listener)]).expect("it listens");
        socket.set_nonblocking(true).expect("the socket accepts the option");
        socket.set_nodelay(true).expect("the socket accepts the option");
        self.clients.push(Client { socket: Some(socket), queued: VecDeque::new(), finishing: false });
        ClientId(self.clients.len() - 1)
    }

    fn address(&self, client: ClientId) -> SocketAddr {
        let socket = self.clients[client.0].socket.as_ref().expect("it is open");
        socket.peer_addr().expect("it is connected")
    }

    fn refusing(&mut self) -> SocketAddr {
        // Bound, so that nobody else takes the port, but not listening.
        let socket = tcp_socket();
        rustix::net::bind(&socket, &SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).expect("a free port");
        let address = address_of(&socket);
        self.held.push(socket);
        address
    }

    fn unanswering(&mut self) -> SocketAddr {
        let listener = tcp_socket();
        rustix::net::bind(&listener, &SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).expect("a free port");
        rustix::net::listen(&listener, UNANSWERING_BACKLOG).expect("it is bound");
        let address = address_of(&listener);
        self.held.push(listener);
        // The kernel drops connection requests while more connections than this wait to be accepted.
        for n in 1..=UNANSWERING_BACKLOG as usize + 1 {
            self.held.push(TcpStream::connect(address).expect("there is space for it").into());
            wait_until_queued(address, n);
        }
        address
    }

    fn send(&mut self, client: ClientId, data: &[u8]) {
        self.clients[client.0].queued.extend(data);
        self.flush();
    }

    fn receive(&mut self, client: ClientId, bytes_max: usize) -> Vec<u8> {
        let mut buf = vec![0; bytes_max.min(1 << 20)];
        loop {
            self.flush();
            let socket = self.clients[client.0].socket.as_mut().expect("a closed client receives nothing");
            match socket.read(&mut buf) {
                Ok(bytes) => {
                    buf.truncate(bytes);
                    return buf;
                }
                Err(e) if e.kind() == ErrorKind::WouldBlock => self.poll(client),
                Err(e) if e.kind() == ErrorKind::ConnectionReset => return Vec::new(),
                Err(e) => panic!("receiving failed: {e}"),
            }
        }
    }

    fn finish(&mut self, client: ClientId) {
        self.clients[client.0].finishing = true;
        self.flush();
    }

    fn close(&mut self, client: ClientId) {
        self.clients[client.0].socket = None;
    }

    fn reset(&mut self, client: ClientId) {
        let socket = self.clients[client.0].socket.take().expect("it is open");
        sockopt::set_socket_linger(&socket, Some(Duration::ZERO)).expect("the socket accepts the option");
    }

    fn shutdown(&mut self) {
        self.runtime.as_ref().expect("it runs").shutdown_handle().shutdown();
    }

    fn wait(&mut self) {
        self.join().expect("the shards end well");
    }

    fn random(&mut self) -> &mut SimRng {
        &mut self.random
    }
}

impl Drop for Real {
    fn drop(&mut self) {
        if std::thread::panicking() {
            return;
        }
        self.clients.clear();
        if let Some(runtime) = &self.runtime {
            runtime.shutdown_handle().shutdown();
        }
        // This reports assertions of the application that no client has waited for.
        self.join().expect("the shards end well");
    }
}
