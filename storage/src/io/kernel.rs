//! What both kernel Ios ask of the kernel directly: time, entropy, path checks, listening
//! sockets, and what follows an open. Every call here returns at once or touches only a loaded
//! inode. Leaves waiting to the backends.

use std::ffi::CString;
use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path};

use rustix::fs::{CWD, FlockOperation, Mode, OFlags};
use rustix::net::{AddressFamily, Shutdown, SocketType, sockopt};
use rustix::time::ClockId;

use super::{Create, OpenOptions};

/// Connections that may wait for an accept. The kernel caps it at `net.core.somaxconn`.
const BACKLOG_CONNECTIONS: i32 = 1024;

/// Longest name of a path, as `PATH_MAX` has it on Linux; macOS allows 1,024.
const PATH_BYTES_MAX: usize = 4095;

/// Names tried for an unnamed file where the file system lacks `O_TMPFILE`. 64 random bits
/// collide never, so a second try only meets leftovers of a crash.
const UNNAMED_ATTEMPTS_MAX: u32 = 4;

/// Files belong to the one user that Myriad runs as: they hold strangers' data.
pub const FILE_MODE: u32 = 0o600;

/// As [`FILE_MODE`], and searchable.
pub const DIRECTORY_MODE: u32 = 0o700;

/// How to open a file without a name, where the kernel can.
#[cfg(target_os = "linux")]
pub const UNNAMED: Option<OFlags> = Some(OFlags::TMPFILE);
/// How to open a file without a name, where the kernel can.
#[cfg(not(target_os = "linux"))]
pub const UNNAMED: Option<OFlags> = None;

/// `O_DIRECT`, where it exists.
#[cfg(target_os = "linux")]
const DIRECT: Option<OFlags> = Some(OFlags::DIRECT);
/// `O_DIRECT`, where it exists.
#[cfg(not(target_os = "linux"))]
const DIRECT: Option<OFlags> = None;

/// Nanoseconds of `CLOCK_MONOTONIC`. Read each time, about 25 ns through the vDSO: the scheduler
/// measures slices inside one turn, so a reading cached per round would show it no time at all.
pub fn monotonic_ns() -> u64 {
    nanoseconds(ClockId::Monotonic)
}

/// Nanoseconds since 1970; 0 if the clock stands before it.
pub fn wall_ns() -> u64 {
    nanoseconds(ClockId::Realtime)
}

fn nanoseconds(clock: ClockId) -> u64 {
    let time = rustix::time::clock_gettime(clock);
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    let nanoseconds = u64::try_from(time.tv_nsec).unwrap_or(0);
    seconds.saturating_mul(1_000_000_000).saturating_add(nanoseconds)
}

/// Fill `bytes` from the kernel's generator.
///
/// # Panics
/// If the kernel has no randomness to give: no key made without it would be secret.
#[cfg(target_os = "linux")]
pub fn fill_entropy(bytes: &mut [u8]) {
    use rustix::rand::{GetRandomFlags, getrandom};
    let mut filled_bytes = 0;
    while filled_bytes < bytes.len() {
        match getrandom(&mut bytes[filled_bytes..], GetRandomFlags::empty()) {
            Ok(count) => filled_bytes += count,
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => panic!("the kernel gives no randomness: {error}"),
        }
    }
}

/// Fill `bytes` from the kernel's generator.
///
/// # Panics
/// If the kernel has no randomness to give: no key made without it would be secret.
#[cfg(not(target_os = "linux"))]
pub fn fill_entropy(bytes: &mut [u8]) {
    use std::io::Read;
    let mut source = std::fs::File::open("/dev/urandom").expect("the kernel gives randomness");
    source.read_exact(bytes).expect("the kernel gives randomness");
}

/// How to open a directory, to name files in it or to sync its names.
pub const DIRECTORY_FLAGS: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);

/// The data folder, opened; it must exist.
pub fn open_folder(path: &Path) -> io::Result<OwnedFd> {
    Ok(rustix::fs::openat(CWD, path, DIRECTORY_FLAGS, Mode::empty())?)
}

/// The path as the kernel takes it, after checking that it stays inside the data folder.
///
/// # Errors
/// `InvalidInput` if it is empty, absolute, too long, or has `..`, `.` or a zero byte in it.
pub fn inner_path(path: &Path) -> io::Result<CString> {
    let normal = path.components().all(|component| matches!(component, Component::Normal(_)));
    let bytes = path.as_os_str().as_bytes();
    if !normal || bytes.is_empty() || bytes.len() > PATH_BYTES_MAX {
        return Err(ErrorKind::InvalidInput.into());
    }
    CString::new(bytes).map_err(|_| ErrorKind::InvalidInput.into())
}

/// As [`inner_path`], of a directory; empty names the data folder itself.
pub fn inner_directory(path: &Path) -> io::Result<CString> {
    if path.as_os_str().is_empty() {
        return Ok(c".".to_owned());
    }
    inner_path(path)
}

/// The flags of `options`, [`Create::Unnamed`] aside.
///
/// # Errors
/// `InvalidInput` for direct I/O on a platform that has none.
pub fn open_flags(options: OpenOptions) -> io::Result<OFlags> {
    let mut flags = OFlags::CLOEXEC;
    let write = options.write || options.create == Create::Unnamed;
    flags |= if write { OFlags::RDWR } else { OFlags::RDONLY };
    if options.create == Create::IfMissing {
        flags |= OFlags::CREATE;
    }
    if options.data_sync {
        flags |= OFlags::DSYNC;
    }
    if options.direct {
        flags |= DIRECT.ok_or(ErrorKind::InvalidInput)?;
    }
    Ok(flags)
}

/// Whether this answer means that the file system has no unnamed files (old overlays, network
/// file systems), as opposed to a folder that is missing or full.
pub fn lacks_unnamed(error: &io::Error) -> bool {
    use rustix::io::Errno;
    let number = error.raw_os_error();
    number == Some(Errno::OPNOTSUPP.raw_os_error()) || number == Some(Errno::ISDIR.raw_os_error())
}

/// An unnamed file the old way: create it under a random name, and remove the name.
pub fn create_then_remove(
    folder: impl AsFd,
    directory: &CString,
    flags: OFlags,
) -> io::Result<OwnedFd> {
    let flags = flags | OFlags::CREATE | OFlags::EXCL;
    for _ in 0..UNNAMED_ATTEMPTS_MAX {
        let mut random = [0; 8];
        fill_entropy(&mut random);
        let mut path = directory.as_bytes().to_vec();
        path.extend_from_slice(format!("/.unnamed-{:016x}", u64::from_ne_bytes(random)).as_bytes());
        let mode = Mode::from_raw_mode(FILE_MODE as _);
        match rustix::fs::openat(&folder, path.as_slice(), flags, mode) {
            Ok(file) => {
                rustix::fs::unlinkat(&folder, path.as_slice(), rustix::fs::AtFlags::empty())?;
                return Ok(file);
            }
            Err(rustix::io::Errno::EXIST) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Err(ErrorKind::AlreadyExists.into())
}

/// What follows an open: take the lock if asked for, and read the size in bytes. Both touch only
/// the inode that the open has just loaded, so neither waits for the disk.
///
/// # Errors
/// `WouldBlock` if the lock is held; `InvalidInput` if this is not a regular file.
pub fn lock_and_measure(file: &OwnedFd, options: OpenOptions) -> io::Result<u64> {
    if options.lock {
        rustix::fs::flock(file, FlockOperation::NonBlockingLockExclusive)?;
    }
    let status = rustix::fs::fstat(file)?;
    if !rustix::fs::FileType::from_raw_mode(status.st_mode).is_file() {
        return Err(ErrorKind::InvalidInput.into());
    }
    u64::try_from(status.st_size).map_err(|_| ErrorKind::InvalidData.into())
}

/// Cut a file that is larger than `size_bytes`: `fallocate` only ever grows one.
pub fn cut(file: impl AsFd, size_bytes: u64) -> io::Result<()> {
    let status = rustix::fs::fstat(&file)?;
    if u64::try_from(status.st_size).unwrap_or(0) > size_bytes {
        rustix::fs::ftruncate(file, size_bytes)?;
    }
    Ok(())
}

/// A listening socket and the address it got.
pub fn listen(address: SocketAddr, nonblocking: bool) -> io::Result<(OwnedFd, SocketAddr)> {
    let family = match address {
        SocketAddr::V4(_) => AddressFamily::INET,
        SocketAddr::V6(_) => AddressFamily::INET6,
    };
    let socket = stream_socket(family)?;
    rustix::io::ioctl_fionbio(&socket, nonblocking)?;
    sockopt::set_socket_reuseaddr(&socket, true)?;
    rustix::net::bind(&socket, &address)?;
    rustix::net::listen(&socket, BACKLOG_CONNECTIONS)?;
    let bound = SocketAddr::try_from(rustix::net::getsockname(&socket)?)?;
    Ok((socket, bound))
}

#[cfg(target_os = "linux")]
fn stream_socket(family: AddressFamily) -> io::Result<OwnedFd> {
    let flags = rustix::net::SocketFlags::CLOEXEC;
    Ok(rustix::net::socket_with(family, SocketType::STREAM, flags, None)?)
}

#[cfg(not(target_os = "linux"))]
fn stream_socket(family: AddressFamily) -> io::Result<OwnedFd> {
    let socket = rustix::net::socket(family, SocketType::STREAM, None)?;
    rustix::io::fcntl_setfd(&socket, rustix::io::FdFlags::CLOEXEC)?;
    Ok(socket)
}

/// Prepare an accepted connection: small replies leave at once. Returns the peer's address.
///
/// # Errors
/// `ConnectionAborted` if the peer is gone already.
pub fn prepare_connection(socket: &OwnedFd) -> io::Result<SocketAddr> {
    sockopt::set_tcp_nodelay(socket, true)?;
    #[cfg(target_vendor = "apple")]
    sockopt::set_socket_nosigpipe(socket, true)?;
    let peer = rustix::net::getpeername(socket).map_err(|_| ErrorKind::ConnectionAborted)?;
    let peer = peer.ok_or(ErrorKind::ConnectionAborted)?;
    Ok(SocketAddr::try_from(peer)?)
}

/// Send no more. The peer may be gone already, which is as good.
pub fn shut_down_sending(socket: impl AsFd) {
    let _gone = rustix::net::shutdown(socket, Shutdown::Write);
}

/// Wake whoever waits on the socket. It is about to be closed, so errors change nothing.
pub fn shut_down(socket: impl AsFd) {
    let _gone = rustix::net::shutdown(socket, Shutdown::Both);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_stay_inside_the_data_folder() {
        let refused = ["", "/etc/passwd", "../up", "a/../../b", "a/..", "./a", "a\0b", "/"];
        for path in refused {
            let error = inner_path(Path::new(path)).expect_err(path);
            assert_eq!(error.kind(), ErrorKind::InvalidInput, "{path:?}");
        }
        for path in ["a", "00/ff/12.db", "..a", "a../b"] {
            assert_eq!(inner_path(Path::new(path)).expect(path).as_bytes(), path.as_bytes());
        }
        assert!(inner_path(Path::new(&"x".repeat(PATH_BYTES_MAX + 1))).is_err());
        assert_eq!(inner_directory(Path::new("")).expect("the folder").as_c_str(), c".");
        assert!(inner_directory(Path::new("..")).is_err());
    }

    #[test]
    fn an_unnamed_file_the_old_way_leaves_no_name() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let descriptor = open_folder(folder.path()).expect("the folder opens");
        let directory = c".".to_owned();
        let flags = OFlags::RDWR | OFlags::CLOEXEC;
        let file = create_then_remove(&descriptor, &directory, flags).expect("a file");
        assert_eq!(rustix::io::pwrite(&file, b"bytes", 0).expect("written"), 5);
        assert_eq!(folder.path().read_dir().expect("readable").count(), 0);
    }
}
