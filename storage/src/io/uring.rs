//! io_uring: every operation is one entry of the submission queue.
//!
//! Owns the ring and the entries that do not fit into it yet (in order). Leaves ids, buffers and
//! callbacks to `HostIo`. Direct calls remain where a call is as cheap as an entry or no opcode
//! exists: the socket options of a new connection, `flock` and `fstat` after an open, and
//! `ftruncate` before Linux 6.9.
//!
//! Invariants:
//! - `user_data` is the operation's key, or [`NOBODY`] for closes and cancels.
//! - An operation is counted in `in_kernel` from `start` until its completion was collected; its
//!   request does not change meanwhile, for the kernel holds addresses in it.
//! - Entries enter the ring in the order of `start`, so a cancel or close never overtakes.
//! - The ring stays on the thread that made it (`SINGLE_ISSUER`): the type is not `Send`.

#![allow(unsafe_code)]

use std::collections::VecDeque;
use std::io::{self, ErrorKind};
use std::marker::PhantomData;
use std::os::fd::{FromRawFd, IntoRawFd, OwnedFd};
use std::path::Path;
use std::ptr::null_mut;

use io_uring::types::{Fd, FsyncFlags, SubmitArgs, Timespec};
use io_uring::{IoUring, Probe, opcode, squeue};
use rustix::io::Errno;
use slab::Slab;

use super::host::{Backend, HostIo, Woken};
use super::kernel;
use super::operation::{Ended, Operation, OperationKey, Outcome, Request};

/// Entries of the submission queue, 64 bytes each: 128 KiB. What one turn submits, usually.
const SUBMISSIONS_MAX: u32 = 2048;

/// Entries of the completion queue, 16 bytes each: 256 KiB. Bursts beyond it wait in the kernel.
const COMPLETIONS_MAX: u32 = 16_384;
const _: () = assert!(COMPLETIONS_MAX >= 2 * SUBMISSIONS_MAX);

/// Bytes of one transfer: more is cut to a short count, as the kernel does (`MAX_RW_COUNT`).
const TRANSFER_BYTES_MAX: usize = 0x7fff_f000;

/// `user_data` of entries that nobody waits for. No key equals it: its slab index is too large.
const NOBODY: u64 = u64::MAX;

/// What `HostIo` cannot do without. `mkdirat` is the youngest: Linux 5.15.
const OPCODES: [(u8, &str); 13] = [
    (opcode::Accept::CODE, "accept"),
    (opcode::Recv::CODE, "recv"),
    (opcode::Send::CODE, "send"),
    (opcode::OpenAt::CODE, "openat"),
    (opcode::Read::CODE, "read"),
    (opcode::Write::CODE, "write"),
    (opcode::Fsync::CODE, "fsync"),
    (opcode::Fallocate::CODE, "fallocate"),
    (opcode::MkDirAt::CODE, "mkdirat"),
    (opcode::RenameAt::CODE, "renameat"),
    (opcode::UnlinkAt::CODE, "unlinkat"),
    (opcode::Close::CODE, "close"),
    (opcode::AsyncCancel::CODE, "async cancel"),
];

/// The Io over io_uring, for the world `W`.
pub type UringIo<W> = HostIo<W, Uring>;

impl<W> HostIo<W, Uring> {
    /// Open the Io on an existing data folder; creates nothing. Stays on the calling thread.
    ///
    /// # Errors
    /// What opening the folder answers; `PermissionDenied` where io_uring is refused,
    /// `Unsupported` where it is missing or too old: then `PollIo` serves.
    pub fn open(data_folder: &Path) -> io::Result<Self> {
        HostIo::new(Uring::new()?, data_folder)
    }
}

/// Whether [`UringIo`] can work here.
///
/// # Errors
/// The reason why not, in words for the operator.
pub fn uring_available() -> Result<(), String> {
    let error = match Uring::new() {
        Ok(_ring) => return Ok(()),
        Err(error) => error,
    };
    let number = error.raw_os_error().map(Errno::from_raw_os_error);
    Err(match number {
        Some(Errno::PERM | Errno::ACCESS) => format!(
            "io_uring is refused here, by a seccomp profile (as Docker's default) \
             or by the sysctl kernel.io_uring_disabled: {error}"
        ),
        Some(Errno::NOSYS) => format!("this kernel has no io_uring: {error}"),
        Some(Errno::NOMEM) => {
            format!("io_uring may not lock enough memory, see `ulimit -l`: {error}")
        }
        _ => format!("io_uring does not work here: {error}"),
    })
}

/// How the kernel tells us of completions, best first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Setup {
    /// Only when we ask, in batches (Linux 6.1).
    Deferred,
    /// At our next system call, without interrupting us (5.19).
    Cooperative,
    /// Whenever it likes.
    Plain,
}

const SETUPS: [Setup; 3] = [Setup::Deferred, Setup::Cooperative, Setup::Plain];

impl Setup {
    fn build(self) -> io::Result<IoUring> {
        let mut builder = IoUring::builder();
        builder.setup_clamp().setup_cqsize(COMPLETIONS_MAX);
        // The task-run flag tells us when an enter has to ask for completions.
        if self != Setup::Plain {
            builder.setup_submit_all().setup_coop_taskrun().setup_taskrun_flag();
        }
        if self == Setup::Deferred {
            builder.setup_single_issuer().setup_defer_taskrun();
        }
        builder.build(SUBMISSIONS_MAX)
    }
}

/// The ring, and what waits to enter it.
pub struct Uring {
    ring: IoUring,
    /// Entries that found the submission queue full, oldest first.
    overflow: VecDeque<squeue::Entry>,
    in_kernel: usize,
    has_truncate: bool,
    /// `SINGLE_ISSUER` refuses every other thread.
    not_send: PhantomData<*mut ()>,
}

impl Uring {
    fn new() -> io::Result<Uring> {
        let (ring, setup) = Uring::build()?;
        tracing::debug!(?setup, "io_uring is set up");
        Uring::with_ring(ring)
    }

    fn with_ring(mut ring: IoUring) -> io::Result<Uring> {
        if !ring.params().is_feature_ext_arg() || !ring.params().is_feature_nodrop() {
            let reason = "io_uring before Linux 5.11 cannot wait with a deadline";
            return Err(io::Error::new(ErrorKind::Unsupported, reason));
        }
        let mut probe = Probe::new();
        ring.submitter().register_probe(&mut probe)?;
        for (code, name) in OPCODES {
            if !probe.is_supported(code) {
                let reason = format!("io_uring of this kernel lacks {name}");
                return Err(io::Error::new(ErrorKind::Unsupported, reason));
            }
        }
        Uring::try_out(&mut ring)?;
        Ok(Uring {
            ring,
            overflow: VecDeque::new(),
            in_kernel: 0,
            has_truncate: probe.is_supported(opcode::Ftruncate::CODE),
            not_send: PhantomData,
        })
    }

    /// A ring with the best flags that this kernel takes.
    fn build() -> io::Result<(IoUring, Setup)> {
        let mut refused = Errno::INVAL.into();
        for setup in SETUPS {
            match setup.build() {
                Ok(ring) => return Ok((ring, setup)),
                Err(error) if error.kind() == ErrorKind::InvalidInput => refused = error,
                Err(error) => return Err(error),
            }
        }
        Err(refused)
    }

    /// One empty operation: a profile may allow the set-up and refuse the rest.
    fn try_out(ring: &mut IoUring) -> io::Result<()> {
        let nothing = opcode::Nop::new().build().user_data(NOBODY);
        // SAFETY: an empty operation names no memory.
        unsafe { ring.submission().push(&nothing) }.map_err(|_| ErrorKind::Unsupported)?;
        ring.submit_and_wait(1)?;
        match ring.completion().next() {
            Some(completion) if completion.result() >= 0 => Ok(()),
            _ => Err(ErrorKind::Unsupported.into()),
        }
    }

    fn push(&mut self, entry: squeue::Entry) {
        if !self.overflow.is_empty() || !push_entry(&mut self.ring.submission(), &entry) {
            self.overflow.push_back(entry);
        }
    }

    /// Hand over what is queued; wait for `want` completions at most `timeout_ns`.
    fn submit(&mut self, want: usize, timeout_ns: Option<u64>) -> io::Result<()> {
        let mut want = want;
        loop {
            let mut submission = self.ring.submission();
            while let Some(entry) = self.overflow.front() {
                if !push_entry(&mut submission, entry) {
                    break;
                }
                self.overflow.pop_front();
            }
            drop(submission);
            let rest = !self.overflow.is_empty();
            if rest {
                // More follows, so this round does not wait.
                self.ring.submit()?;
                if !self.ring.completion().is_empty() {
                    want = 0;
                }
                continue;
            }
            let timespec = timeout_ns.map(|nanoseconds| {
                let seconds = nanoseconds / 1_000_000_000;
                let rest = u32::try_from(nanoseconds % 1_000_000_000).expect("below 2^32");
                Timespec::new().sec(seconds).nsec(rest)
            });
            let arguments = SubmitArgs::new();
            return match &timespec {
                Some(timespec) if want > 0 => {
                    let arguments = arguments.timespec(timespec);
                    self.ring.submitter().submit_with_args(want, &arguments)
                }
                _ => self.ring.submitter().submit_with_args(want, &arguments),
            }
            .map(drop);
        }
    }

    fn collect<C>(
        &mut self,
        operations: &mut Slab<Operation<C>>,
        ended: &mut VecDeque<Ended>,
    ) -> usize {
        let mut collected_count = 0;
        for completion in self.ring.completion() {
            if completion.user_data() == NOBODY {
                continue;
            }
            let key = OperationKey(completion.user_data());
            let operation = &mut operations[key.index()];
            assert!(operation.key == key, "a completion names a live operation");
            let result = outcome(&mut operation.request, completion.result());
            ended.push_back(Ended { key, result });
            collected_count += 1;
        }
        assert!(self.in_kernel >= collected_count);
        self.in_kernel -= collected_count;
        collected_count
    }
}

/// Append to the submission queue, if it has room.
fn push_entry(submission: &mut squeue::SubmissionQueue<'_>, entry: &squeue::Entry) -> bool {
    // SAFETY: the entry's addresses lead into a request that stays in the operations slab, on
    // the heap, until this operation's completion has been collected.
    unsafe { submission.push(entry) }.is_ok()
}

/// What a completion means. Its result is a count, a descriptor, or an error number below zero.
fn outcome(request: &mut Request, result: i32) -> io::Result<Outcome> {
    let Ok(number) = usize::try_from(result) else {
        return Err(io::Error::from_raw_os_error(result.saturating_neg()));
    };
    match request {
        Request::Accept { .. } | Request::Open { .. } => {
            // SAFETY: the kernel has just made this descriptor, for this completion only.
            let descriptor = unsafe { OwnedFd::from_raw_fd(result) };
            Ok(Outcome::Descriptor(descriptor))
        }
        Request::Receive { buffer, .. } => {
            let length_bytes = buffer.len() + number;
            if length_bytes > buffer.capacity() {
                return Err(ErrorKind::InvalidData.into());
            }
            // SAFETY: the kernel has written `number` bytes after the buffer's old length, and
            // they lie within its capacity.
            unsafe { buffer.set_len(length_bytes) };
            Ok(Outcome::Count(number))
        }
        _ => Ok(Outcome::Count(number)),
    }
}

fn transfer_bytes(length_bytes: usize) -> u32 {
    u32::try_from(length_bytes.min(TRANSFER_BYTES_MAX)).expect("cut to less than 2^31")
}

/// The submission queue entry of a request.
fn entry(request: &mut Request) -> squeue::Entry {
    match request {
        Request::Accept { listener } => {
            let flags = rustix::net::SocketFlags::CLOEXEC.bits().cast_signed();
            let accept = opcode::Accept::new(Fd(listener.raw()), null_mut(), null_mut());
            accept.flags(flags).build()
        }
        Request::Receive { socket, buffer } => {
            let spare = buffer.spare_capacity_mut();
            let length_bytes = transfer_bytes(spare.len());
            opcode::Recv::new(Fd(socket.raw()), spare.as_mut_ptr().cast(), length_bytes).build()
        }
        Request::Send { socket, buffer, offset } => {
            let bytes = &buffer[*offset..];
            let flags = rustix::net::SendFlags::NOSIGNAL.bits().cast_signed();
            let length_bytes = transfer_bytes(bytes.len());
            let send = opcode::Send::new(Fd(socket.raw()), bytes.as_ptr(), length_bytes);
            send.flags(flags).build()
        }
        Request::Open { folder, path, flags } => {
            opcode::OpenAt::new(Fd(folder.raw()), path.as_ptr())
                .flags(flags.bits().cast_signed())
                .mode(kernel::FILE_MODE)
                .build()
        }
        Request::Read { file, buffer, offset } => {
            let length_bytes = transfer_bytes(buffer.len());
            let read = opcode::Read::new(Fd(file.raw()), buffer.as_mut_ptr(), length_bytes);
            read.offset(*offset).build()
        }
        Request::Write { file, buffer, offset } => {
            let length_bytes = transfer_bytes(buffer.len());
            let write = opcode::Write::new(Fd(file.raw()), buffer.as_ptr(), length_bytes);
            write.offset(*offset).build()
        }
        request => names_entry(request),
    }
}

/// As [`entry`], for requests that move no bytes.
fn names_entry(request: &Request) -> squeue::Entry {
    use std::os::fd::AsRawFd;
    match request {
        Request::Sync { file } => {
            let sync = opcode::Fsync::new(Fd(file.raw()));
            sync.flags(FsyncFlags::DATASYNC).build()
        }
        Request::SyncDirectory { directory } => {
            opcode::Fsync::new(Fd(directory.as_raw_fd())).build()
        }
        Request::Truncate { file, size_bytes } => {
            opcode::Ftruncate::new(Fd(file.raw()), *size_bytes).build()
        }
        Request::Allocate { file, size_bytes } => {
            opcode::Fallocate::new(Fd(file.raw()), *size_bytes).build()
        }
        Request::MakeDirectory { folder, path } => {
            let make = opcode::MkDirAt::new(Fd(folder.raw()), path.as_ptr());
            make.mode(kernel::DIRECTORY_MODE).build()
        }
        Request::Rename { folder, from, to } => {
            let folder = Fd(folder.raw());
            opcode::RenameAt::new(folder, from.as_ptr(), folder, to.as_ptr()).build()
        }
        Request::Remove { folder, path } => {
            opcode::UnlinkAt::new(Fd(folder.raw()), path.as_ptr()).build()
        }
        _ => unreachable!("`entry` has the others, and a refused request is never started"),
    }
}

impl Backend for Uring {
    const NONBLOCKING: bool = false;

    fn start(&mut self, key: OperationKey, request: &mut Request, ended: &mut VecDeque<Ended>) {
        assert!(key.0 != NOBODY);
        if let Request::Truncate { file, size_bytes } = request
            && !self.has_truncate
        {
            let result = rustix::fs::ftruncate(file.borrow(), *size_bytes);
            let result = result.map(|()| Outcome::Count(0)).map_err(io::Error::from);
            return ended.push_back(Ended { key, result });
        }
        self.in_kernel += 1;
        self.push(entry(request).user_data(key.0));
    }

    fn cancel(&mut self, key: OperationKey, _request: &Request, _ended: &mut VecDeque<Ended>) {
        // Finds nothing if the operation has ended meanwhile: keys are not used twice.
        self.push(opcode::AsyncCancel::new(key.0).build().user_data(NOBODY));
    }

    fn close(&mut self, descriptor: OwnedFd) {
        let close = opcode::Close::new(Fd(descriptor.into_raw_fd()));
        self.push(close.build().user_data(NOBODY));
    }

    fn wait<C>(
        &mut self,
        operations: &mut Slab<Operation<C>>,
        ended: &mut VecDeque<Ended>,
        timeout_ns: Option<u64>,
    ) -> Woken {
        let waits = timeout_ns != Some(0) && self.ring.completion().is_empty();
        let answer = self.submit(usize::from(waits), timeout_ns);
        self.collect(operations, ended);
        match answer {
            Ok(()) => Woken::Ready,
            Err(error) => match error.raw_os_error().map(Errno::from_raw_os_error) {
                Some(Errno::TIME) => Woken::Ready,
                // Short of memory, or completions wait to be collected first: the next round
                // submits what is left.
                Some(Errno::INTR | Errno::AGAIN | Errno::BUSY | Errno::NOMEM) => Woken::Interrupted,
                _ => panic!("io_uring is broken: {error}"),
            },
        }
    }

    fn has_queued(&mut self) -> bool {
        !self.overflow.is_empty() || !self.ring.submission().is_empty()
    }

    fn drain<C>(&mut self, operations: &mut Slab<Operation<C>>) -> bool {
        let mut ended = VecDeque::new();
        loop {
            let waits = self.in_kernel > 0 && self.ring.completion().is_empty();
            let answer = self.submit(usize::from(waits), None);
            self.collect(operations, &mut ended);
            match answer {
                Ok(()) if self.in_kernel == 0 => return true,
                Ok(()) => {}
                Err(error) => match error.raw_os_error().map(Errno::from_raw_os_error) {
                    Some(Errno::INTR | Errno::AGAIN | Errno::BUSY | Errno::NOMEM) => {}
                    _ => return false,
                },
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::conformance::{ConformanceWorld, Outside, check};

    /// Older kernels take fewer flags and lack `ftruncate`: the promises stay the same.
    #[test]
    fn older_kernels_keep_every_promise() {
        if let Err(reason) = uring_available() {
            println!("skipped: {reason}");
            return;
        }
        for setup in SETUPS {
            if setup.build().is_err() {
                println!("skipped: {setup:?}");
                continue;
            }
            check(&mut || {
                let folder = tempfile::tempdir().expect("a temporary folder");
                let ring = setup.build().expect("it was built before");
                let mut uring = Uring::with_ring(ring).expect("io_uring is available");
                uring.has_truncate = false;
                let io = HostIo::<ConformanceWorld, Uring>::new(uring, folder.path());
                (io.expect("the folder is there"), Outside::keeping(folder))
            });
        }
    }
}
