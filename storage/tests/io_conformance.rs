//! Both kernel Ios against the one conformance script, with `std::net` as the outside.

use std::io;

use storage::io::PollIo;
use storage::io::conformance::{Outside, check};
#[cfg(target_os = "linux")]
use storage::io::{UringIo, uring_available};

fn folder() -> tempfile::TempDir {
    tempfile::tempdir().expect("a temporary folder")
}

#[test]
fn poll_keeps_every_promise() {
    check(&mut || {
        let folder = folder();
        let io = PollIo::open(folder.path()).expect("the Io opens");
        (io, Outside::keeping(folder))
    });
}

#[test]
#[cfg(target_os = "linux")]
fn uring_keeps_every_promise() {
    if let Err(reason) = uring_available() {
        println!("skipped: {reason}");
        return;
    }
    check(&mut || {
        let folder = folder();
        let io = UringIo::open(folder.path()).expect("the Io opens");
        (io, Outside::keeping(folder))
    });
}

#[test]
fn a_missing_data_folder_is_an_error() {
    let folder = folder();
    let missing = folder.path().join("missing");
    let error = PollIo::<()>::open(&missing).err().expect("no such folder");
    assert_eq!(error.kind(), io::ErrorKind::NotFound);
    #[cfg(target_os = "linux")]
    if uring_available().is_ok() {
        let error = UringIo::<()>::open(&missing).err().expect("no such folder");
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
    }
    assert!(!missing.exists(), "opening creates nothing");
}
