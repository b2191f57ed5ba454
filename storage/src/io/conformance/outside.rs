//! The outside of the kernel Ios: a peer over `std::net` that never waits.

use std::any::Any;
use std::fmt;
use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};

use super::Peer;

/// Connects through the kernel's loopback.
#[derive(Default)]
pub struct Outside {
    /// What has to live as long as the script's step, such as the data folder.
    _kept: Option<Box<dyn Any>>,
}

impl Outside {
    /// A peer that keeps `kept`, and drops it after the Io that it came with.
    pub fn keeping(kept: impl Any) -> Outside {
        let kept: Box<dyn Any> = Box::new(kept);
        Outside { _kept: Some(kept) }
    }
}

impl fmt::Debug for Outside {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Outside")
    }
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
        // The other end may be gone already: then nothing more is sent anyway.
        let _gone = stream.shutdown(Shutdown::Write);
    }

    fn close(&mut self, _: &mut I, stream: TcpStream) {
        drop(stream);
    }
}
