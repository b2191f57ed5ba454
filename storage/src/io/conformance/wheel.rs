//! The script's steps on time, entropy, and the wheel itself.

use std::path::Path;

use super::disk::{FRESH, READ_WRITE, pattern};
use super::on_transferred;
use super::{Answer, ConformanceWorld, Peer, Script, on_accepted, on_done, on_received};
use crate::io::{BLOCK_BYTES, Buffer, Done, Io, Token};

/// More operations than any ring has entries.
const MANY: u32 = 5_000;

/// How late a deadline may come on a busy machine.
const LATE_NS_MAX: u64 = 10_000_000_000;

/// Links of the chain in which each callback submits the next operation.
const CHAIN_LINKS: u32 = 10;

pub(super) fn time_and_entropy<I: Io<ConformanceWorld>, P: Peer<I>>(script: &mut Script<I, P>) {
    let mut earlier = script.now();
    for _ in 0..1_000 {
        let now = script.now();
        assert!(now >= earlier, "the clock went back");
        earlier = now;
    }
    let wall = script.io.wall();
    assert!(wall.0 > 0, "the wall clock stands at 1970");

    let (mut first, mut second) = ([0; 600], [0; 600]);
    script.io.fill(&mut first);
    script.io.fill(&mut second);
    assert!(first != second, "entropy repeats itself");
    for bytes in [first, second] {
        let zero_count = bytes.iter().filter(|&&byte| byte == 0).count();
        assert!(zero_count < 60, "entropy leaves bytes unfilled");
    }
    script.io.fill(&mut []);
}

pub(super) fn deadlines<I: Io<ConformanceWorld>, P: Peer<I>>(script: &mut Script<I, P>) {
    let start = script.now();
    let deadline = start.after(20_000_000);
    // It may return early when a signal arrives, but not for good.
    let mut returned_count = 0;
    while script.now() < deadline {
        script.io.run(&mut script.world, Some(deadline));
        returned_count += 1;
        assert!(returned_count < 1_000, "it does not wait");
    }
    assert!(script.now().since(deadline) < LATE_NS_MAX, "the deadline came late");

    let past = script.now();
    for _ in 0..100 {
        script.io.run(&mut script.world, Some(past));
        script.io.run(&mut script.world, Some(crate::io::Instant(0)));
    }
    assert!(script.now().since(past) < LATE_NS_MAX, "it waits for what is past");
    assert_eq!(script.world.called_count, 0);

    // A completion ends the wait: without a deadline, nothing else would.
    let token = script.submit(|io, token| io.sync_directory(token, Path::new(""), on_done));
    while !script.answered(token) {
        script.io.run(&mut script.world, None);
    }
    let Answer::Done(done) = script.answer(token) else {
        panic!("another operation's answer");
    };
    done.result.expect("the data folder can be synced");
}

pub(super) fn many_at_once<I: Io<ConformanceWorld>, P: Peer<I>>(script: &mut Script<I, P>) {
    let (file, _) = script.open("many", FRESH).expect("a new file");
    let mut tokens = Vec::new();
    for index in 0..MANY {
        let offset = u64::from(index) * BLOCK_BYTES as u64;
        let mut buffer = Buffer::zeroed(BLOCK_BYTES);
        buffer.copy_from_slice(&pattern(index, BLOCK_BYTES));
        let write = |io: &mut I, token| io.write(token, file, offset, buffer, on_transferred);
        tokens.push(script.submit(write));
    }
    assert_eq!(script.io.in_flight(), MANY as usize);
    for (index, token) in (0..MANY).zip(tokens) {
        let Answer::Transferred(moved) = script.answer(token) else {
            panic!("another operation's answer");
        };
        let count = moved.result.expect("written");
        assert!((1..=BLOCK_BYTES).contains(&count));
        let offset = u64::from(index) * BLOCK_BYTES as u64 + count as u64;
        script.write_all(file, offset, &pattern(index, BLOCK_BYTES)[count..]);
    }
    for index in (0..MANY).step_by(97) {
        let bytes = script.read_all(file, u64::from(index) * BLOCK_BYTES as u64, BLOCK_BYTES);
        assert!(bytes == pattern(index, BLOCK_BYTES), "block {index} reads back");
    }
    script.io.close_file(file);
}

/// Callback that submits the next link, under a token that the script has announced.
fn on_link<I: Io<ConformanceWorld>>(
    world: &mut ConformanceWorld,
    io: &mut I,
    token: Token,
    done: Done,
) {
    let index = token.index + 1;
    let generation = super::generation(index);
    super::on_done(world, io, token, done);
    if index < CHAIN_LINKS {
        let in_flight = io.in_flight();
        let next = Token { index, generation };
        io.sync_directory(next, Path::new(""), on_link);
        assert_eq!(io.in_flight(), in_flight + 1);
        assert!(!world.called[index as usize], "a callback ran inside a submit");
    }
}

pub(super) fn callbacks_submit<I: Io<ConformanceWorld>, P: Peer<I>>(script: &mut Script<I, P>) {
    script.world.called = vec![false; CHAIN_LINKS as usize];
    let token = |index| Token { index, generation: super::generation(index) };
    script.io.sync_directory(token(0), Path::new(""), on_link);
    for index in 0..CHAIN_LINKS {
        // The wheel is turned by hand: a round's count does not know about links.
        for _ in 0..super::ROUNDS_MAX {
            if script.answered(token(index)) {
                break;
            }
            let deadline = script.now().after(super::ROUND_NS);
            script.io.run(&mut script.world, Some(deadline));
        }
        let Answer::Done(done) = script.answer(token(index)) else {
            panic!("another operation's answer");
        };
        done.result.expect("the data folder can be synced");
    }
}

pub(super) fn drop_with_operations_in_flight<I, P>(mut script: Script<I, P>)
where
    I: Io<ConformanceWorld>,
    P: Peer<I>,
{
    let (listener, address) = script.listen();
    let (socket, connection) = script.connect(listener, address);
    let (file, _) = script.open("dropped", READ_WRITE).expect("a new file");
    script.submit(|io, token| io.accept(token, listener, on_accepted));
    script.submit(|io, token| {
        io.receive(token, socket, Vec::with_capacity(64), on_received);
    });
    for index in 0..64 {
        let buffer = Buffer::zeroed(16 * BLOCK_BYTES);
        let offset = index * buffer.len() as u64;
        script.submit(|io, token| io.write(token, file, offset, buffer, on_transferred));
    }
    script.stay_quiet();
    let buffer = Buffer::zeroed(16 * BLOCK_BYTES);
    script.submit(|io, token| io.read(token, file, 0, buffer, on_transferred));
    let Script { io, world, .. } = script;
    let called_count = world.called_count;
    drop(io);
    assert_eq!(world.called_count, called_count, "a dropped Io calls nobody");
    drop(connection);
}
