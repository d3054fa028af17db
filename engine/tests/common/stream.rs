//! A connection to a broker, over real sockets or over the simulated network.

use std::cell::RefCell;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::rc::Rc;
use std::time::Duration;

use highwater_engine::shard::Shard;
use highwater_runtime::sim::{ClientEnd, SimClient, SimWorld};

/// Timeout of a read. It only ends a test that would otherwise hang for ever, or for as long as a broker lets a fetch wait.
const READ_TIME_MAX: Duration = Duration::from_secs(50);

/// The simulated world, shared by the clients of a test.
pub type World = Rc<RefCell<SimWorld<Shard>>>;

pub enum Stream {
    Tcp(TcpStream),
    /// Over the simulated network. Virtual time passes while it reads.
    Simulated {
        world: World,
        client: SimClient,
    },
}

/// Connects over a real socket.
pub fn tcp(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).expect("connected");
    stream.set_nodelay(true).expect("set");
    stream.set_read_timeout(Some(READ_TIME_MAX)).expect("set");
    stream
}

impl Stream {
    /// Connects over a real socket.
    pub fn connect(address: SocketAddr) -> Self {
        Self::Tcp(tcp(address))
    }

    /// Connects over the simulated network.
    pub fn simulated(world: &World, address: SocketAddr) -> Self {
        let client = world.borrow_mut().connect(address);
        Self::Simulated { world: Rc::clone(world), client }
    }
}

impl Read for Stream {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let (world, client) = match self {
            Self::Tcp(stream) => return stream.read(out),
            Self::Simulated { world, client } => (world, client),
        };
        if out.is_empty() {
            return Ok(0);
        }
        let mut world = world.borrow_mut();
        let limit = world.now().after(READ_TIME_MAX);
        while client.available_bytes() == 0 && client.end().is_none() && world.now() < limit {
            if !world.step() {
                break;
            }
        }
        let bytes = client.receive_up_to(out.len());
        match client.end() {
            _ if !bytes.is_empty() => {}
            Some(ClientEnd::Finished) => return Ok(0),
            Some(_) => return Err(io::ErrorKind::ConnectionReset.into()),
            None => return Err(io::ErrorKind::TimedOut.into()),
        }
        out[..bytes.len()].copy_from_slice(&bytes);
        Ok(bytes.len())
    }
}

impl Write for Stream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.write(bytes),
            Self::Simulated { client, .. } => {
                client.send(bytes.to_vec());
                Ok(bytes.len())
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
