//! Which sockets have something to do: epoll on Linux, poll(2) elsewhere.
//!
//! Both are level-triggered: a socket that was not read empty is reported again. The crate
//! `polling` was tried on paper and left: its registration is `unsafe`, and its one-shot events
//! cost a system call more for every reply, which would be booked on the server.

use std::io;
use std::net::TcpStream;
use std::time::Duration;

use rustix::event::Timespec;

#[cfg(target_os = "linux")]
pub use epoll_set::ReadySet;
#[cfg(not(target_os = "linux"))]
pub use poll_set::ReadySet;

/// A timeout in the kernel's form.
fn timespec(timeout: Duration) -> io::Result<Timespec> {
    Timespec::try_from(timeout).map_err(|_| io::ErrorKind::InvalidInput.into())
}

/// What the kernel said; a signal in between is an empty answer.
fn ready_count(result: rustix::io::Result<usize>) -> io::Result<usize> {
    match result {
        Ok(count) => Ok(count),
        Err(rustix::io::Errno::INTR) => Ok(0),
        Err(error) => Err(error.into()),
    }
}

#[cfg(target_os = "linux")]
mod epoll_set {
    use super::*;
    use rustix::event::epoll;
    use std::os::fd::OwnedFd;

    /// Events taken from the kernel at once.
    const EVENTS_MAX: usize = 256;

    /// The sockets that are waited for; each has a key, given by the caller.
    pub struct ReadySet {
        epoll: OwnedFd,
        events: Vec<epoll::Event>,
    }

    impl ReadySet {
        /// An empty set.
        ///
        /// # Errors
        /// The kernel's, such as too many open files.
        pub fn new() -> io::Result<Self> {
            let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
            Ok(Self { epoll, events: Vec::with_capacity(EVENTS_MAX) })
        }

        /// Waits for bytes on `stream` from now on. Closing the stream takes it out again.
        ///
        /// # Errors
        /// The kernel's.
        pub fn add(&mut self, stream: &TcpStream, key: usize) -> io::Result<()> {
            let data = epoll::EventData::new_u64(key as u64);
            Ok(epoll::add(&self.epoll, stream, data, epoll::EventFlags::IN)?)
        }

        /// Waits for room to write as well, or no longer.
        ///
        /// # Errors
        /// The kernel's.
        pub fn set_writes(
            &mut self,
            stream: &TcpStream,
            key: usize,
            writes: bool,
        ) -> io::Result<()> {
            let data = epoll::EventData::new_u64(key as u64);
            let write = if writes { epoll::EventFlags::OUT } else { epoll::EventFlags::empty() };
            Ok(epoll::modify(&self.epoll, stream, data, epoll::EventFlags::IN | write)?)
        }

        /// Puts the keys of sockets with something to do into `ready`; none after `timeout`.
        ///
        /// # Errors
        /// The kernel's.
        pub fn wait<'a>(
            &mut self,
            _streams: impl Iterator<Item = (usize, &'a TcpStream, bool)>,
            timeout: Duration,
            ready: &mut Vec<usize>,
        ) -> io::Result<()> {
            ready.clear();
            self.events.clear();
            let buffer = rustix::buffer::spare_capacity(&mut self.events);
            ready_count(epoll::wait(&self.epoll, buffer, Some(&timespec(timeout)?)))?;
            ready.extend(self.events.iter().map(|event| event.data.u64() as usize));
            Ok(())
        }
    }
}

#[cfg(any(test, not(target_os = "linux")))]
mod poll_set {
    use super::*;
    use rustix::event::{PollFd, PollFlags, poll};

    /// The form without state in the kernel: every wait names all sockets.
    pub struct ReadySet;

    impl ReadySet {
        /// An empty set.
        ///
        /// # Errors
        /// Never; the epoll form may fail.
        pub fn new() -> io::Result<Self> {
            Ok(Self)
        }

        /// Nothing to do: `wait` is given all sockets.
        ///
        /// # Errors
        /// Never.
        pub fn add(&mut self, _stream: &TcpStream, _key: usize) -> io::Result<()> {
            Ok(())
        }

        /// Nothing to do: `wait` is told who writes.
        ///
        /// # Errors
        /// Never.
        pub fn set_writes(
            &mut self,
            _stream: &TcpStream,
            _key: usize,
            _writes: bool,
        ) -> io::Result<()> {
            Ok(())
        }

        /// Puts the keys of sockets with something to do into `ready`; none after `timeout`.
        ///
        /// # Errors
        /// The kernel's.
        pub fn wait<'a>(
            &mut self,
            streams: impl Iterator<Item = (usize, &'a TcpStream, bool)>,
            timeout: Duration,
            ready: &mut Vec<usize>,
        ) -> io::Result<()> {
            ready.clear();
            let mut keys = Vec::new();
            let mut waits = Vec::new();
            for (key, stream, writes) in streams {
                let write = if writes { PollFlags::OUT } else { PollFlags::empty() };
                keys.push(key);
                waits.push(PollFd::new(stream, PollFlags::IN | write));
            }
            ready_count(poll(&mut waits, Some(&timespec(timeout)?)))?;
            let fired = keys.into_iter().zip(&waits).filter(|(_, wait)| !wait.revents().is_empty());
            ready.extend(fired.map(|(key, _)| key));
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::net::TcpListener;

    /// One script for both forms.
    macro_rules! script {
        ($set:ty) => {{
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let mut ours = Vec::new();
            let mut theirs = Vec::new();
            let mut set = <$set>::new().unwrap();
            for key in 0..3 {
                ours.push(TcpStream::connect(listener.local_addr().unwrap()).unwrap());
                theirs.push(listener.accept().unwrap().0);
                set.add(&ours[key], key).unwrap();
            }
            let mut ready = vec![9];
            let mut wait = |set: &mut $set, ours: &[TcpStream], writer: usize, timeout_ms| {
                let streams =
                    ours.iter().enumerate().map(|(key, stream)| (key, stream, key == writer));
                set.wait(streams, Duration::from_millis(timeout_ms), &mut ready).unwrap();
                ready.clone()
            };
            assert!(wait(&mut set, &ours, 9, 1).is_empty());
            theirs[1].write_all(b"x").unwrap();
            assert_eq!(wait(&mut set, &ours, 9, 5_000), [1]);
            assert_eq!(wait(&mut set, &ours, 9, 5_000), [1], "level-triggered");
            ours[1].read_exact(&mut [0]).unwrap();
            set.set_writes(&ours[2], 2, true).unwrap();
            assert_eq!(wait(&mut set, &ours, 2, 5_000), [2]);
            set.set_writes(&ours[2], 2, false).unwrap();
            drop(theirs.swap_remove(0));
            assert_eq!(wait(&mut set, &ours, 9, 5_000), [0], "the end of the stream");
        }};
    }

    #[test]
    fn both_forms_say_the_same() {
        script!(ReadySet);
        script!(poll_set::ReadySet);
    }
}
