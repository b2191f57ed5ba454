//! Both kernel Ios against the one conformance script, with `std::net` as the outside.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};

use storage::io::conformance::{Peer, check};
use storage::io::{PollIo, UringIo, uring_available};

struct Outside {
    /// The data folder lives as long as the peer that came with the Io.
    _folder: tempfile::TempDir,
}

impl<I> Peer<I> for Outside {
    type Connection = TcpStream;

    fn connect(&mut self, _: &mut I, address: SocketAddr) -> io::Result<TcpStream> {
        let stream = TcpStream::connect(address)?;
        stream.set_nonblocking(true)?;
        Ok(stream)
    }

    fn send(&mut self, _: &mut I, stream: &mut TcpStream, bytes: &[u8]) -> io::Result<usize> {
        stream.write(bytes)
    }

    fn receive(
        &mut self,
        _: &mut I,
        stream: &mut TcpStream,
        bytes: &mut [u8],
    ) -> io::Result<usize> {
        stream.read(bytes)
    }

    fn shutdown(&mut self, _: &mut I, stream: &mut TcpStream) {
        stream
            .shutdown(Shutdown::Write)
            .expect("the connection is open");
    }

    fn close(&mut self, _: &mut I, stream: TcpStream) {
        drop(stream);
    }
}

fn folder() -> tempfile::TempDir {
    tempfile::tempdir().expect("a temporary folder")
}

#[test]
fn poll_keeps_every_promise() {
    check(&mut || {
        let folder = folder();
        let io = PollIo::open(folder.path()).expect("the Io opens");
        (io, Outside { _folder: folder })
    });
}

#[test]
fn uring_keeps_every_promise() {
    if let Err(reason) = uring_available() {
        println!("skipped: {reason}");
        return;
    }
    check(&mut || {
        let folder = folder();
        let io = UringIo::open(folder.path()).expect("the Io opens");
        (io, Outside { _folder: folder })
    });
}

#[test]
fn a_missing_data_folder_is_an_error() {
    let folder = folder();
    let missing = folder.path().join("missing");
    let error = PollIo::<()>::open(&missing).err().expect("no such folder");
    assert_eq!(error.kind(), io::ErrorKind::NotFound);
    if uring_available().is_ok() {
        let error = UringIo::<()>::open(&missing).err().expect("no such folder");
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
    }
    assert!(!missing.exists(), "opening creates nothing");
}
