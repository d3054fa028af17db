//! A held file stays open after the process has closed it, until the kernel has ended the shards' operations.

#[macro_use]
mod ignore;

use std::fs::{File, TryLockError};
use std::net::SocketAddr;
use std::sync::Arc;

use highwater_runtime::buf::AlignedBuf;
use highwater_runtime::plane::{
    CloseReason, Completion, ConnId, ConnectError, ListenerId, Plane, ShardApp, ShardIndex, Token,
};
use highwater_runtime::{HostKind, RuntimeConfig, available_cpus, start};

/// Does nothing until it is asked to stop.
struct Idle;

impl ShardApp for Idle {
    type Message = ();

    ignore! {
        on_accept(ConnId, ListenerId, SocketAddr);
        on_connected(ConnId, Token, Result<(), ConnectError>);
        on_recv(ConnId, &[u8]);
        on_bulk(ConnId, AlignedBuf);
        on_sent(ConnId, usize);
        on_closed(ConnId, CloseReason);
        on_disk(Token, Completion);
        on_message(ShardIndex, ());
        on_migrated(ConnId, ListenerId, SocketAddr, ());
        on_timer(Token);
        on_turn_end();
    }

    fn on_shutdown(&mut self, plane: &mut dyn Plane<()>) {
        plane.exit();
    }
}

#[test]
fn a_lock_on_a_held_file_lasts_until_the_rings_have_ended() {
    for host in [HostKind::Glommio, HostKind::Thread] {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("LOCK");
        let held = Arc::new(File::create(&path).expect("a file"));
        held.try_lock().expect("the lock is free");
        let cpus = available_cpus().expect("affinity").into_iter().take(1).collect();
        let config = RuntimeConfig { host, held: Some(Arc::clone(&held)), ..RuntimeConfig::new(cpus) };
        let runtime = start(config, |_, _| Ok(Idle)).expect("a shard");
        drop(held);

        let other = File::open(&path).expect("the file exists");
        assert!(matches!(other.try_lock(), Err(TryLockError::WouldBlock)), "the ring holds it");
        runtime.shutdown_handle().shutdown();
        runtime.wait().expect("an orderly end");
        other.lock().expect("free once the kernel has released the ring");
    }
}
