//! Files and names of `HostIo`: their ids, path checks, and what follows an open.

use std::ffi::CString;
use std::io::{self, ErrorKind};
use std::os::fd::OwnedFd;
use std::path::Path;

use super::{Backend, HostIo, count};
use crate::io::kernel;
use crate::io::operation::{Call, Descriptor, Outcome, Request};
use crate::io::{
    Buffer, Callback, Create, Disk, Done, FileId, OpenOptions, Opened, Token, Transferred,
};

/// The kernel's offsets are signed, and io_uring takes -1 for "the file's own position".
const OFFSET_BYTES_MAX: u64 = i64::MAX as u64;

/// An open file, and how many operations name it.
pub struct File {
    pub(super) descriptor: OwnedFd,
    pub(super) operations: u32,
}

impl<W, B: Backend> Disk<W> for HostIo<W, B> {
    fn open(
        &mut self,
        token: Token,
        path: &Path,
        options: OpenOptions,
        done: Callback<W, Self, Opened>,
    ) {
        let call = Call::Open(options, done);
        let checked = checked_open(path, options);
        let (path, flags) = match checked {
            Ok(checked) => checked,
            Err(error) => return self.refuse(token, Request::Refused, call, error),
        };
        let folder = self.folder();
        let mut request = Request::Open { folder, path, flags };
        if options.create == Create::Unnamed {
            let (Some(unnamed), Request::Open { flags, .. }) = (kernel::UNNAMED, &mut request)
            else {
                let error = rustix::io::Errno::OPNOTSUPP.into();
                return self.refuse(token, request, call, error);
            };
            *flags |= unnamed;
        }
        self.submit(token, request, call);
    }

    fn read(
        &mut self,
        token: Token,
        id: FileId,
        offset: u64,
        buffer: Buffer,
        done: Callback<W, Self, Transferred>,
    ) {
        let file = self.file_for_operation(id);
        let request = Request::Read { file, buffer, offset };
        self.submit_on_file(token, file, request, Call::Transfer(id, done));
    }

    fn write(
        &mut self,
        token: Token,
        id: FileId,
        offset: u64,
        buffer: Buffer,
        done: Callback<W, Self, Transferred>,
    ) {
        let file = self.file_for_operation(id);
        let request = Request::Write { file, buffer, offset };
        self.submit_on_file(token, file, request, Call::Transfer(id, done));
    }

    fn sync(&mut self, token: Token, id: FileId, done: Callback<W, Self, Done>) {
        let file = self.file_for_operation(id);
        self.submit_on_file(token, file, Request::Sync { file }, Call::File(id, done));
    }

    fn truncate(
        &mut self,
        token: Token,
        id: FileId,
        size_bytes: u64,
        done: Callback<W, Self, Done>,
    ) {
        let file = self.file_for_operation(id);
        let request = Request::Truncate { file, size_bytes };
        self.submit_on_file(token, file, request, Call::File(id, done));
    }

    fn allocate(
        &mut self,
        token: Token,
        id: FileId,
        size_bytes: u64,
        done: Callback<W, Self, Done>,
    ) {
        let file = self.file_for_operation(id);
        let request = Request::Allocate { file, size_bytes };
        self.submit_on_file(token, file, request, Call::Allocate(id, size_bytes, done));
    }

    fn make_directory(&mut self, token: Token, path: &Path, done: Callback<W, Self, Done>) {
        let folder = self.folder();
        let path = kernel::inner_path(path);
        let request = path.map(|path| Request::MakeDirectory { folder, path });
        self.submit_names(token, request, done);
    }

    fn sync_directory(&mut self, token: Token, path: &Path, done: Callback<W, Self, Done>) {
        let folder = self.folder();
        let flags = kernel::DIRECTORY_FLAGS;
        let request =
            kernel::inner_directory(path).map(|path| Request::Open { folder, path, flags });
        self.submit_names(token, request, done);
    }

    fn rename(&mut self, token: Token, from: &Path, to: &Path, done: Callback<W, Self, Done>) {
        let folder = self.folder();
        let paths =
            kernel::inner_path(from).and_then(|from| kernel::inner_path(to).map(|to| (from, to)));
        let request = paths.map(|(from, to)| Request::Rename { folder, from, to });
        self.submit_names(token, request, done);
    }

    fn remove(&mut self, token: Token, path: &Path, done: Callback<W, Self, Done>) {
        let folder = self.folder();
        let request = kernel::inner_path(path).map(|path| Request::Remove { folder, path });
        self.submit_names(token, request, done);
    }

    fn close_file(&mut self, id: FileId) {
        let Some(file) = self.files.remove(id.index, id.generation) else {
            return;
        };
        assert!(file.operations == 0, "a file is closed only once idle");
        self.backend.close(file.descriptor);
    }
}

impl<W, B: Backend> HostIo<W, B> {
    fn submit_names(
        &mut self,
        token: Token,
        request: io::Result<Request>,
        done: Callback<W, Self, Done>,
    ) {
        let call = Call::Names(done);
        match request {
            Ok(request) => {
                self.submit(token, request, call);
            }
            Err(error) => self.refuse(token, Request::Refused, call, error),
        }
    }

    fn folder(&self) -> Descriptor {
        Descriptor::of(&self.folder)
    }

    /// Note one more operation on a file; the dead descriptor if its id is dead.
    fn file_for_operation(&mut self, id: FileId) -> Descriptor {
        match self.files.find(id.index, id.generation) {
            Some(file) => {
                file.operations += 1;
                Descriptor::of(&file.descriptor)
            }
            None => Descriptor::DEAD,
        }
    }

    fn submit_on_file(
        &mut self,
        token: Token,
        file: Descriptor,
        request: Request,
        call: Call<W, Self>,
    ) {
        let beyond = match &request {
            Request::Read { offset, .. } | Request::Write { offset, .. } => {
                *offset > OFFSET_BYTES_MAX
            }
            _ => false,
        };
        if beyond {
            self.refuse(token, request, call, ErrorKind::InvalidInput.into());
        } else if file == Descriptor::DEAD {
            self.refuse(token, request, call, ErrorKind::NotFound.into());
        } else {
            self.submit(token, request, call);
        }
    }

    pub(super) fn end_open(
        &mut self,
        options: OpenOptions,
        request: &Request,
        result: io::Result<Outcome>,
    ) -> io::Result<(FileId, u64)> {
        let unnamed = options.create == Create::Unnamed;
        let descriptor = match (result, request) {
            (Ok(Outcome::Descriptor(descriptor)), _) => descriptor,
            (Ok(Outcome::Count(_)), _) => return Err(ErrorKind::InvalidData.into()),
            (Err(error), Request::Open { path, .. })
                if unnamed && kernel::lacks_unnamed(&error) =>
            {
                kernel::create_then_remove(&self.folder, path, kernel::open_flags(options)?)?
            }
            (Err(error), _) => return Err(error),
        };
        let size_bytes = kernel::lock_and_measure(&descriptor, options)?;
        let operations = 0;
        let (index, generation) = self.files.insert(File { descriptor, operations });
        Ok((FileId { index, generation }, size_bytes))
    }

    pub(super) fn end_on_file(&mut self, id: FileId) {
        // A refused operation names a file that is gone.
        if let Some(file) = self.files.find(id.index, id.generation) {
            assert!(file.operations > 0);
            file.operations -= 1;
        }
    }

    pub(super) fn end_allocate(
        &mut self,
        id: FileId,
        size_bytes: u64,
        result: io::Result<Outcome>,
    ) -> io::Result<()> {
        self.end_on_file(id);
        count(result)?;
        let file = self.files.find(id.index, id.generation);
        let file = file.ok_or(ErrorKind::NotFound)?;
        kernel::cut(&file.descriptor, size_bytes)
    }
}

fn checked_open(path: &Path, options: OpenOptions) -> io::Result<(CString, rustix::fs::OFlags)> {
    let path = match options.create {
        Create::Unnamed => kernel::inner_directory(path)?,
        Create::Never | Create::IfMissing => kernel::inner_path(path)?,
    };
    Ok((path, kernel::open_flags(options)?))
}
