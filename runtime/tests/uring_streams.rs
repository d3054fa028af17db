//! Sending and receiving: messages of every size, slow readers, ends of connections, many connections.

mod uring_support;

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::mpsc::channel;
use std::thread;

use highwater_runtime::plane::CloseReason;
use uring_support::{
    BULK_MIN, BYE, ECHO, Event, GIVE, HEADER, HOSTS, SUM, TIMEOUT, connect, frame, hash, pattern, serve,
    stop, sum,
};

#[test]
fn frames_of_every_size_are_answered() {
    for host in HOSTS {
        let (runtime, address) = serve(host, 1, None);
        let mut client = connect(address);
        for bytes in [0, 1, 100, 4095, 16 << 10, 65_535, 65_536, 100_001, 1 << 20, 5 << 20, 7] {
            sum(&mut client, &pattern(bytes as u64, bytes));
        }
        stop(runtime);
    }
}

/// Returns sizes of small frames, of bulk frames, and around the boundary between them.
fn size(random: u64) -> usize {
    let n = (random >> 8) as usize;
    match random % 10 {
        0..=4 => n % 300,
        5 => n % BULK_MIN,
        6 => BULK_MIN - 2 + n % 4,
        7 | 8 => BULK_MIN + n % (256 << 10),
        _ => n % (2 << 20),
    }
}

#[test]
fn bulk_and_small_frames_without_waiting_arrive_complete_and_in_order() {
    for host in HOSTS {
        let (runtime, address) = serve(host, 1, None);
        let clients: Vec<_> = (1..=6_u64)
            .map(|seed| {
                thread::spawn(move || {
                    let mut writer = connect(address);
                    let mut reader = writer.try_clone().expect("a descriptor");
                    let sizes: Vec<usize> = pattern(seed, 8 * 120)
                        .chunks(8)
                        .map(|c| size(u64::from_le_bytes(c.try_into().expect("eight bytes"))))
                        .collect();
                    let expected = sizes.clone();
                    let reading = thread::spawn(move || {
                        for (n, bytes) in expected.into_iter().enumerate() {
                            let mut answer = [0; 8];
                            reader.read_exact(&mut answer).expect("an answer to every frame");
                            let want = hash(&pattern(seed * 1000 + n as u64, bytes));
                            assert_eq!(u64::from_le_bytes(answer), want, "frame {n} of {bytes} bytes");
                        }
                    });
                    for (n, bytes) in sizes.into_iter().enumerate() {
                        let frame = frame(SUM, &pattern(seed * 1000 + n as u64, bytes));
                        // Split inside a frame, so that headers and bodies arrive in parts.
                        let cut = frame.len() * 3 / 7;
                        writer.write_all(&frame[..cut]).expect("the shard reads");
                        writer.write_all(&frame[cut..]).expect("the shard reads");
                    }
                    reading.join().expect("the answers are right");
                })
            })
            .collect();
        for client in clients {
            client.join().expect("the client succeeds");
        }
        stop(runtime);
    }
}

#[test]
fn a_slow_reader_gets_every_byte_in_order_through_partial_sends() {
    const BYTES: usize = 24 << 20;
    for host in HOSTS {
        let (events, seen) = channel();
        let (runtime, address) = serve(host, 1, Some(events));
        let mut client = connect(address);
        client.write_all(&frame(GIVE, &(BYTES as u32).to_le_bytes())).expect("the shard reads");
        // Nothing is read before another connection was served: by then the shard has filled the socket.
        sum(&mut connect(address), &pattern(1, 100_000));
        let mut at = 0;
        let mut chunk = vec![0; 100_000];
        while at < BYTES {
            let bytes = (BYTES - at).min(100_000);
            client.read_exact(&mut chunk[..bytes]).expect("the shard keeps sending");
            assert!(chunk[..bytes] == pattern(at as u64, bytes), "bytes starting at {at}");
            at += bytes;
        }
        stop(runtime);
        let mut first = None;
        let (mut sent, mut sends) = (0, 0);
        for event in &seen {
            match event {
                Event::Accepted(conn) if first.is_none() => first = Some(conn),
                Event::Sent(conn, bytes) if Some(conn) == first => {
                    sent += bytes;
                    sends += 1;
                }
                _ => {}
            }
        }
        assert_eq!(sent, BYTES, "the sum of on_sent");
        assert!(sends > 4, "{sends} sends: the kernel cannot have taken all bytes at once");
    }
}

#[test]
fn replies_queued_before_a_fin_still_reach_a_client_that_only_reads() {
    for host in HOSTS {
        let (events, seen) = channel();
        let (runtime, address) = serve(host, 1, Some(events));
        let mut client = connect(address);
        let payload = pattern(3, 300_000);
        let mut expected = Vec::new();
        for _ in 0..40 {
            client.write_all(&frame(ECHO, &payload)).expect("the shard reads");
            expected.extend_from_slice(&frame(ECHO, &payload));
            if expected.len() > 2_000_000 {
                break;
            }
        }
        client.shutdown(Shutdown::Write).expect("half a close");
        let mut got = Vec::new();
        client.read_to_end(&mut got).expect("answers, then the end");
        assert!(got == expected, "{} bytes of {}", got.len(), expected.len());
        let closed = seen.iter().find_map(|event| match event {
            Event::Closed(_, reason) => Some(reason),
            _ => None,
        });
        assert_eq!(closed, Some(CloseReason::Peer));
        stop(runtime);
    }
}

#[test]
fn frames_sent_before_a_fin_are_all_received_and_an_incomplete_one_is_dropped() {
    for host in HOSTS {
        let (events, seen) = channel();
        let (runtime, address) = serve(host, 1, Some(events));
        for cut in [1, HEADER, 500, 100_000] {
            let mut client = connect(address);
            sum(&mut client, &pattern(9, 70_000));
            let whole = frame(SUM, &pattern(5, 200_000));
            client.write_all(&whole[..cut]).expect("the shard reads");
            drop(client);
            let closed = seen.iter().find_map(|event| match event {
                Event::Closed(_, reason) => Some(reason),
                _ => None,
            });
            assert_eq!(closed, Some(CloseReason::Peer), "cut at {cut}");
        }
        stop(runtime);
    }
}

#[test]
fn the_last_reply_arrives_even_if_the_client_never_stops_sending() {
    for host in HOSTS {
        let (runtime, address) = serve(host, 1, None);
        let mut client = connect(address);
        let mut sender = client.try_clone().expect("a descriptor");
        let mut start = frame(ECHO, b"last words");
        start.extend_from_slice(&frame(BYE, b""));
        client.write_all(&start).expect("the shard reads");
        let noise = thread::spawn(move || {
            // Until the shard resets the connection.
            while sender.write_all(&frame(ECHO, &[1; 1000])).is_ok() {}
        });
        let expected = frame(ECHO, b"last words");
        let mut got = vec![0; expected.len()];
        client.read_exact(&mut got).expect("the answer that was queued before the close");
        assert_eq!(got, expected);
        let mut rest = Vec::new();
        match client.read_to_end(&mut rest) {
            Ok(_) => {}
            Err(e) => assert_eq!(e.kind(), ErrorKind::ConnectionReset, "{e}"),
        }
        assert!(rest.is_empty(), "no replies after the close");
        noise.join().expect("no panic");
        stop(runtime);
    }
}

#[test]
fn a_reset_connection_is_reported_and_others_continue() {
    for host in HOSTS {
        let (events, seen) = channel();
        let (runtime, address) = serve(host, 1, Some(events));
        let mut other = connect(address);
        sum(&mut other, b"before");
        let mut client = connect(address);
        client.write_all(&frame(GIVE, &(64_u32 << 20).to_le_bytes())).expect("the shard reads");
        client.read_exact(&mut [0; 100]).expect("the reply has started");
        // Closing with unread bytes resets the connection.
        drop(client);
        let closed = seen.iter().find_map(|event| match event {
            Event::Closed(_, reason) => Some(reason),
            _ => None,
        });
        assert!(matches!(closed, Some(CloseReason::Error(_) | CloseReason::Peer)), "{closed:?}");
        sum(&mut other, b"after");
        stop(runtime);
    }
}

#[test]
fn more_bytes_at_once_than_the_receive_buffers_hold_are_not_lost() {
    // 48 connections with 256 KiB each in their sockets: six times the capacity of the shard's receive buffers.
    for host in HOSTS {
        let (runtime, address) = serve(host, 1, None);
        let payload = pattern(4, 1000);
        let many = frame(ECHO, &payload).repeat(256);
        let mut clients: Vec<TcpStream> = (0..48).map(|_| connect(address)).collect();
        let writers: Vec<_> = clients
            .iter()
            .map(|client| {
                let mut client = client.try_clone().expect("a descriptor");
                let many = many.clone();
                thread::spawn(move || client.write_all(&many).expect("the shard reads"))
            })
            .collect();
        let mut got = vec![0; many.len()];
        for client in &mut clients {
            client.read_exact(&mut got).expect("every frame is answered");
            assert!(got == many);
        }
        for writer in writers {
            writer.join().expect("no panic");
        }
        stop(runtime);
    }
}

#[test]
fn a_thousand_connections_come_and_go() {
    for host in HOSTS {
        let (events, seen) = channel();
        let (runtime, address) = serve(host, 2, Some(events));
        let mut clients: Vec<TcpStream> = (0..1000).map(|_| connect(address)).collect();
        for (n, client) in clients.iter_mut().enumerate() {
            client.write_all(&frame(SUM, &pattern(n as u64, n))).expect("the shard reads");
        }
        for (n, client) in clients.iter_mut().enumerate() {
            let mut answer = [0; 8];
            client.read_exact(&mut answer).expect("an answer");
            assert_eq!(u64::from_le_bytes(answer), hash(&pattern(n as u64, n)));
        }
        drop(clients);
        let mut gone = 0;
        while gone < 1000 {
            if let Event::Closed(..) = seen.recv_timeout(TIMEOUT).expect("every end is reported") {
                gone += 1;
            }
        }
        stop(runtime);
    }
}

#[test]
fn after_a_stop_the_port_is_closed() {
    for host in HOSTS {
        let (runtime, address) = serve(host, 2, None);
        let mut client = connect(address);
        sum(&mut client, b"up");
        stop(runtime);
        let mut end = Vec::new();
        client.read_to_end(&mut end).expect("the connection was closed cleanly");
        assert!(end.is_empty());
        let error = TcpStream::connect(address).expect_err("the port is closed");
        assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
    }
}
