//! The script's steps on listeners and connections.

use std::io::{self, ErrorKind};
use std::net::{Ipv4Addr, SocketAddr};

use super::disk::pattern;
use super::{
    Answer, ConformanceWorld, Peer, ROUNDS_MAX, Script, on_accepted, on_received, on_sent,
};
use crate::io::{Io, ListenerId, Received, Sent, SocketId, Token};

/// Bytes of the long echo.
const ECHO_BYTES: usize = 1 << 20;

/// Bytes of its buffers: a few hundred receives.
const SMALL_BYTES: usize = 4096;

/// Connections at once; fits the listener's backlog.
const CONNECTIONS: u32 = 100;

/// Sends after which the peer's silence or absence must have been noticed: 64 MiB.
const SENDS_MAX: u32 = 1024;

impl<I: Io<ConformanceWorld>, P: Peer<I>> Script<I, P> {
    pub(super) fn listen(&mut self) -> (ListenerId, SocketAddr) {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        self.io.listen(address).expect("any port will do")
    }

    fn accepted(&mut self, token: Token) -> io::Result<(SocketId, SocketAddr)> {
        match self.answer(token) {
            Answer::Accepted(accepted) => accepted.result,
            other => panic!("another operation's answer: {other:?}"),
        }
    }

    pub(super) fn connect(
        &mut self,
        listener: ListenerId,
        address: SocketAddr,
    ) -> (SocketId, P::Connection) {
        let token = self.submit(|io, token| io.accept(token, listener, on_accepted));
        let connection = self.peer.connect(&mut self.io, address).expect("somebody listens");
        let (socket, peer) = self.accepted(token).expect("accepted");
        assert!(peer != address, "the peer's address is not our own");
        (socket, connection)
    }

    fn submit_receive(&mut self, socket: SocketId, buffer: Vec<u8>) -> Token {
        self.submit(|io, token| io.receive(token, socket, buffer, on_received))
    }

    fn submit_send(&mut self, socket: SocketId, buffer: Vec<u8>, offset: usize) -> Token {
        self.submit(|io, token| io.send(token, socket, buffer, offset, on_sent))
    }

    fn received(&mut self, token: Token) -> Received {
        match self.answer(token) {
            Answer::Received(received) => received,
            other => panic!("another operation's answer: {other:?}"),
        }
    }

    fn sent(&mut self, token: Token) -> Sent {
        match self.answer(token) {
            Answer::Sent(sent) => sent,
            other => panic!("another operation's answer: {other:?}"),
        }
    }

    /// Receive once, into a fresh buffer.
    fn receive(&mut self, socket: SocketId) -> io::Result<Vec<u8>> {
        let token = self.submit_receive(socket, Vec::with_capacity(SMALL_BYTES));
        let received = self.received(token);
        let count = received.result?;
        assert_eq!(received.buffer.len(), count);
        Ok(received.buffer)
    }

    fn send_all(&mut self, socket: SocketId, bytes: &[u8]) -> io::Result<()> {
        let mut offset = 0;
        while offset < bytes.len() {
            let token = self.submit_send(socket, bytes.to_vec(), offset);
            let sent = self.sent(token);
            assert!(sent.buffer == bytes, "a send leaves the buffer alone");
            let count = sent.result?;
            assert!((1..=bytes.len() - offset).contains(&count));
            offset += count;
        }
        Ok(())
    }

    fn peer_send_all(&mut self, connection: &mut P::Connection, bytes: &[u8]) {
        let mut offset = 0;
        for _ in 0..ROUNDS_MAX {
            if offset == bytes.len() {
                return;
            }
            match self.peer.send(&mut self.io, connection, &bytes[offset..]) {
                Ok(count) => offset += count,
                Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock),
            }
            self.round();
        }
        panic!("the peer cannot send");
    }

    /// Receive as the peer, until it has `length_bytes` or the end has come.
    fn peer_receive(&mut self, connection: &mut P::Connection, length_bytes: usize) -> Vec<u8> {
        let mut bytes = Vec::new();
        let mut buffer = [0; SMALL_BYTES];
        for _ in 0..ROUNDS_MAX {
            let room = &mut buffer[..SMALL_BYTES.min(length_bytes - bytes.len())];
            match self.peer.receive(&mut self.io, connection, room) {
                Ok(0) => return bytes,
                Ok(count) => bytes.extend_from_slice(&buffer[..count]),
                Err(error) => {
                    assert_eq!(error.kind(), ErrorKind::WouldBlock);
                    self.round();
                }
            }
            if bytes.len() == length_bytes {
                return bytes;
            }
        }
        panic!("the peer receives nothing");
    }

    fn close_both(&mut self, socket: SocketId, connection: P::Connection) {
        self.io.close_socket(socket);
        self.peer.close(&mut self.io, connection);
    }
}

pub(super) fn listen_binds<I: Io<ConformanceWorld>, P: Peer<I>>(script: &mut Script<I, P>) {
    let (first, address) = script.listen();
    assert!(address.port() != 0, "port 0 picks one");
    let (second, other) = script.listen();
    assert!(address != other);
    assert!(first != second);
    let taken = script.io.listen(address).expect_err("somebody listens there");
    assert_eq!(taken.kind(), ErrorKind::AddrInUse);
    script.io.close_listener(first);
    script.io.close_listener(second);
}

pub(super) fn echo_through_small_buffers<I: Io<ConformanceWorld>, P: Peer<I>>(
    script: &mut Script<I, P>,
) {
    let (listener, address) = script.listen();
    let (socket, mut connection) = script.connect(listener, address);
    let bytes = pattern(4, ECHO_BYTES);
    let (mut gone, mut back) = (0, Vec::new());
    let mut room = [0; SMALL_BYTES];
    let mut receive = Some(script.submit_receive(socket, Vec::with_capacity(SMALL_BYTES)));
    let mut send = None;
    for _ in 0..ROUNDS_MAX {
        if gone < bytes.len() {
            match script.peer.send(&mut script.io, &mut connection, &bytes[gone..]) {
                Ok(count) => gone += count,
                Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock),
            }
        }
        match script.peer.receive(&mut script.io, &mut connection, &mut room) {
            Ok(count) => back.extend_from_slice(&room[..count]),
            Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock),
        }
        if back.len() == bytes.len() {
            break;
        }
        script.round();
        if let Some(token) = receive.take_if(|token| script.answered(*token)) {
            let received = script.received(token);
            let count = received.result.expect("received");
            assert!((1..=SMALL_BYTES).contains(&count));
            send = Some((script.submit_send(socket, received.buffer, 0), 0));
        }
        if let Some((token, offset)) = send.take_if(|(token, _)| script.answered(*token)) {
            let sent = script.sent(token);
            let offset = offset + sent.result.expect("sent");
            if offset < sent.buffer.len() {
                send = Some((script.submit_send(socket, sent.buffer, offset), offset));
            } else {
                let mut buffer = sent.buffer;
                buffer.clear();
                receive = Some(script.submit_receive(socket, buffer));
            }
        }
    }
    assert!(back == bytes, "the echo is what was said");
    script.peer.shutdown(&mut script.io, &mut connection);
    let last = match (receive, send) {
        (Some(token), _) => token,
        (None, Some((token, _))) => {
            script.sent(token).result.expect("sent");
            script.submit_receive(socket, Vec::with_capacity(1))
        }
        (None, None) => unreachable!("one of them is always in flight"),
    };
    assert_eq!(script.received(last).result.expect("the end"), 0);
    script.close_both(socket, connection);
    script.io.close_listener(listener);
}

pub(super) fn receive_appends<I: Io<ConformanceWorld>, P: Peer<I>>(script: &mut Script<I, P>) {
    let (listener, address) = script.listen();
    let (socket, mut connection) = script.connect(listener, address);
    script.peer_send_all(&mut connection, b"hello, world");
    let mut buffer = Vec::with_capacity(SMALL_BYTES);
    buffer.extend_from_slice(b"before:");
    while buffer.len() < b"before:hello, world".len() {
        let before = buffer.clone();
        let token = script.submit_receive(socket, buffer);
        let received = script.received(token);
        let count = received.result.expect("received");
        assert!(count >= 1);
        assert_eq!(received.buffer.len(), before.len() + count);
        assert!(received.buffer.starts_with(&before));
        buffer = received.buffer;
    }
    assert_eq!(buffer, b"before:hello, world");

    // A send starts at its offset.
    let token = script.submit_send(socket, b"skipped,said".to_vec(), 8);
    let sent = script.sent(token);
    assert_eq!(sent.buffer, b"skipped,said");
    let count = sent.result.expect("sent");
    assert!((1..=4).contains(&count));
    script.send_all(socket, &b"said"[count..]).expect("sent");
    assert_eq!(script.peer_receive(&mut connection, 4), b"said");
    script.close_both(socket, connection);
    script.io.close_listener(listener);
}

pub(super) fn half_close<I: Io<ConformanceWorld>, P: Peer<I>>(script: &mut Script<I, P>) {
    let (listener, address) = script.listen();
    let (socket, mut connection) = script.connect(listener, address);
    script.peer_send_all(&mut connection, b"question");
    script.peer.shutdown(&mut script.io, &mut connection);
    let mut question = Vec::new();
    loop {
        let bytes = script.receive(socket).expect("received");
        if bytes.is_empty() {
            break;
        }
        question.extend_from_slice(&bytes);
    }
    assert_eq!(question, b"question");
    assert!(script.receive(socket).expect("the end stays").is_empty());
    script.send_all(socket, b"answer").expect("the other half is open");
    script.io.shutdown(socket);
    assert_eq!(script.peer_receive(&mut connection, 100), b"answer");
    script.send_all(socket, b"more").expect_err("this half is closed");
    script.close_both(socket, connection);
    script.io.close_listener(listener);
}

pub(super) fn close_ends_a_receive<I: Io<ConformanceWorld>, P: Peer<I>>(script: &mut Script<I, P>) {
    let (listener, address) = script.listen();
    for quiet in [true, false] {
        let (socket, connection) = script.connect(listener, address);
        let mut buffer = Vec::with_capacity(SMALL_BYTES);
        buffer.extend_from_slice(b"kept");
        let token = script.submit_receive(socket, buffer);
        if quiet {
            // Now the kernel has it; without this it may not have been submitted yet.
            script.stay_quiet();
            assert!(!script.answered(token), "nothing was sent");
        }
        script.io.close_socket(socket);
        let received = script.received(token);
        received.result.expect_err("its socket was closed");
        assert_eq!(received.buffer, b"kept");
        assert!(received.buffer.capacity() >= SMALL_BYTES, "it is the buffer that was lent");
        script.peer.close(&mut script.io, connection);
    }
    script.io.close_listener(listener);
}

pub(super) fn close_ends_a_send<I: Io<ConformanceWorld>, P: Peer<I>>(script: &mut Script<I, P>) {
    let (listener, address) = script.listen();
    let (socket, connection) = script.connect(listener, address);
    let receive = script.submit_receive(socket, Vec::with_capacity(SMALL_BYTES));
    let mut buffer = vec![7; 16 * SMALL_BYTES];
    // The peer reads nothing, so some send has to wait, where buffers have an end.
    for _ in 0..SENDS_MAX {
        let token = script.submit_send(socket, buffer, 0);
        for _ in 0..super::QUIET_ROUNDS {
            if !script.answered(token) {
                script.round();
            }
        }
        if !script.answered(token) {
            script.io.close_socket(socket);
            let sent = script.sent(token);
            assert_eq!(sent.buffer.len(), 16 * SMALL_BYTES);
            if let Ok(count) = sent.result {
                assert!(count > 0, "it had succeeded before");
            }
            break;
        }
        let sent = script.sent(token);
        sent.result.expect("sent");
        buffer = sent.buffer;
    }
    script.io.close_socket(socket);
    script.received(receive).result.expect_err("its socket was closed");
    script.peer.close(&mut script.io, connection);
    script.io.close_listener(listener);
}

pub(super) fn vanished_peer<I: Io<ConformanceWorld>, P: Peer<I>>(script: &mut Script<I, P>) {
    let (listener, address) = script.listen();
    let (socket, connection) = script.connect(listener, address);
    script.peer.close(&mut script.io, connection);
    // The first sends may still find room; then an error comes, and no signal.
    let failed = (0..SENDS_MAX).any(|_| {
        let failed = script.send_all(socket, &[7; SMALL_BYTES]).is_err();
        script.round();
        failed
    });
    assert!(failed, "sending to nobody fails in the end");
    script.io.close_socket(socket);
    script.io.close_listener(listener);
}

pub(super) fn close_listener_ends_accepts<I: Io<ConformanceWorld>, P: Peer<I>>(
    script: &mut Script<I, P>,
) {
    for quiet in [true, false] {
        let (listener, _) = script.listen();
        let accept = |io: &mut I, token| io.accept(token, listener, on_accepted);
        let tokens = [script.submit(accept), script.submit(accept)];
        if quiet {
            script.stay_quiet();
        }
        script.io.close_listener(listener);
        for token in tokens {
            script.accepted(token).expect_err("its listener was closed");
        }
        let token = script.submit(accept);
        script.accepted(token).expect_err("the id is dead");
        script.io.close_listener(listener);
    }
    // Connections outlive their listener.
    let (listener, address) = script.listen();
    let (socket, mut connection) = script.connect(listener, address);
    script.io.close_listener(listener);
    script.peer_send_all(&mut connection, b"still here");
    assert!(!script.receive(socket).expect("received").is_empty());
    script.close_both(socket, connection);
}

pub(super) fn many_connections<I: Io<ConformanceWorld>, P: Peer<I>>(script: &mut Script<I, P>) {
    let (listener, address) = script.listen();
    let mut pairs = Vec::new();
    for _ in 0..CONNECTIONS {
        pairs.push(script.connect(listener, address));
    }
    let tokens: Vec<Token> = pairs
        .iter()
        .map(|(socket, _)| *socket)
        .collect::<Vec<_>>()
        .into_iter()
        .map(|socket| script.submit_receive(socket, Vec::with_capacity(8)))
        .collect();
    for (number, (_, connection)) in (0..CONNECTIONS).zip(&mut pairs).rev() {
        script.peer_send_all(connection, &number.to_le_bytes());
    }
    for (number, (token, (socket, mut connection))) in (0..).zip(tokens.into_iter().zip(pairs)) {
        let received = script.received(token);
        let mut bytes = received.buffer;
        assert_eq!(received.result.expect("received"), bytes.len());
        while bytes.len() < 4 {
            bytes.extend_from_slice(&script.receive(socket).expect("the rest"));
        }
        assert_eq!(bytes, u32::to_le_bytes(number), "each hears its own peer");
        script.send_all(socket, &bytes).expect("sent");
        assert_eq!(script.peer_receive(&mut connection, 4), bytes);
        script.close_both(socket, connection);
    }
    script.io.close_listener(listener);
}

pub(super) fn dead_socket_ids<I: Io<ConformanceWorld>, P: Peer<I>>(script: &mut Script<I, P>) {
    let (listener, address) = script.listen();
    let (dead, connection) = script.connect(listener, address);
    script.close_both(dead, connection);
    // The next connection may take the dead one's place, and must not be mistaken for it.
    let (alive, mut connection) = script.connect(listener, address);
    assert!(dead != alive);
    let receive = script.submit_receive(dead, Vec::with_capacity(SMALL_BYTES));
    let send = script.submit_send(dead, b"lost".to_vec(), 0);
    script.received(receive).result.expect_err("the id is dead");
    let sent = script.sent(send);
    sent.result.expect_err("the id is dead");
    assert_eq!(sent.buffer, b"lost");
    script.io.shutdown(dead);
    script.io.close_socket(dead);
    script.send_all(alive, b"alive").expect("sent");
    assert_eq!(script.peer_receive(&mut connection, 5), b"alive");

    // Between a close and the end of what was in flight, the id is dead already.
    let pending = script.submit_receive(alive, Vec::with_capacity(SMALL_BYTES));
    script.io.close_socket(alive);
    let late = script.submit_receive(alive, Vec::with_capacity(SMALL_BYTES));
    script.received(pending).result.expect_err("its socket was closed");
    script.received(late).result.expect_err("the id is dead");
    script.peer.close(&mut script.io, connection);
    script.io.close_listener(listener);
}
