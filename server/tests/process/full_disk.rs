//! A disk that is full, and then is not: clear errors, reads that go on, writes that come back, and
//! nothing lost of what was acknowledged.
//!
//! The data folder is a small tmpfs of its own. Where the tests have no right to mount one, they
//! say so and test nothing: a limit on file sizes (`RLIMIT_FSIZE`) is another error than a full disk.

use std::fs;
use std::io::Write;
use std::path::Path;

use crate::process::{IOS, Launch, Server, Trouble, eventually, folder, mount};

/// Room for the ring and a few segments of 16 MiB.
const DISK: &str = "size=96m";
/// The smallest log: 4 segments.
const LOG: [&str; 2] = ["--log", "64MiB"];

#[test]
fn a_full_disk_with_uring() {
    full_disk(IOS[0]);
}

#[test]
fn a_full_disk_with_poll() {
    full_disk(IOS[1]);
}

/// A file that takes all the room that is left.
struct Filler<'a>(&'a Path);

impl Filler<'_> {
    fn fill(&self) {
        let mut file = fs::File::options().create(true).append(true).open(self.0).unwrap();
        for bytes in [1 << 20, 4096] {
            while file.write_all(&vec![0; bytes]).is_ok() {}
        }
    }

    fn free(&self) {
        fs::remove_file(self.0).unwrap();
    }
}

/// The error of a write that finds no room: which one depends on where it was missed first.
fn assert_clear(trouble: &Trouble) {
    let text = trouble.to_string();
    let words = ["full", "no room", "no space", "disk"];
    assert!(words.iter().any(|word| text.contains(word)), "not clear: {text}");
    assert!(!trouble.is_lost(), "{text}");
}

fn full_disk(io: &str) {
    let data = folder();
    let Some(_mounted) = mount(data.path(), DISK) else {
        println!("not tested: no right to mount a small file system");
        return;
    };
    let launch = Launch::on(&data.path().join("d")).io(io).with(&LOG);
    let filler = data.path().join("filler");
    let filler = Filler(&filler);
    let mut server = launch.start();
    let mut names = Vec::new();
    for number in 0..4 {
        let name = format!("d-{number}");
        server.create(&name).rows(&["CREATE TABLE t(a INTEGER PRIMARY KEY, b)"]);
        names.push(name);
    }

    let mut written = write_until_full(&server, &names, &filler);
    assert!(server.lives(), "{}", server.said());
    assert_reads(&server, &names, &written);
    filler.free();
    assert_writes(&server, &names, &mut written);

    // Full again, and killed while it is: a full disk must not stop the next start for good.
    written = add(&written, &write_until_full(&server, &names, &filler));
    drop(server.kill());
    filler.free();
    server = launch.start();
    assert_reads(&server, &names, &written);
    assert_writes(&server, &names, &mut written);

    // Full, and stopped: what cannot be brought into the files stays in the log.
    written = add(&written, &write_until_full(&server, &names, &filler));
    filler.free();
    server.stop();
    server = launch.start();
    assert_reads(&server, &names, &written);
    server.stop();
}

fn add(one: &[u64], other: &[u64]) -> Vec<u64> {
    one.iter().zip(other).map(|(one, other)| one + other).collect()
}

/// Write rows of 256 KiB in turn, on a disk that has no room but what the server holds already,
/// until each database was refused: rows acknowledged of each.
fn write_until_full(server: &Server, names: &[String], filler: &Filler<'_>) -> Vec<u64> {
    filler.fill();
    let mut written = vec![0; names.len()];
    let mut refused = vec![false; names.len()];
    let mut databases: Vec<_> = names.iter().map(|name| server.database(name)).collect();
    for turn in 0..2000 {
        let index = turn % names.len();
        match databases[index].run(&["INSERT INTO t(b) VALUES (zeroblob(262144))"]) {
            Ok(_) => written[index] += 1,
            Err(trouble) => {
                assert_clear(&trouble);
                refused[index] = true;
            }
        }
        if refused.iter().all(|&refused| refused) {
            return written;
        }
    }
    panic!("the disk is full and 500 MiB were written: {written:?}");
}

fn assert_reads(server: &Server, names: &[String], written: &[u64]) {
    for (name, rows) in names.iter().zip(written) {
        let mut database = server.database(name);
        assert_eq!(database.value("SELECT count(*) FROM t"), rows.to_string(), "{name}");
        assert_eq!(database.value("PRAGMA integrity_check"), "ok", "{name}");
    }
}

/// There is room again: soon every database takes writes.
fn assert_writes(server: &Server, names: &[String], written: &mut [u64]) {
    for (name, written) in names.iter().zip(written) {
        let mut database = server.database(name);
        eventually(10, "writes work again", || {
            match database.run(&["INSERT INTO t(b) VALUES ('room')"]) {
                Ok(_) => true,
                Err(trouble) => {
                    assert_clear(&trouble);
                    false
                }
            }
        });
        *written += 1;
    }
}
