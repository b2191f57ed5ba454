//! Listeners and sockets of `HostIo`: their ids, and when their descriptors may be closed.

use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::os::fd::OwnedFd;

use super::{Backend, HostIo};
use crate::io::kernel;
use crate::io::operation::{Call, Descriptor, OperationKey, Outcome, Request};
use crate::io::{Accepted, Callback, ListenerId, Network, Received, Sent, SocketId, Token};

/// A listening socket, and how many accepts name it.
pub struct Listener {
    pub(super) id: ListenerId,
    pub(super) descriptor: OwnedFd,
    pub(super) accepts: u32,
    pub(super) closing: bool,
}

/// A connection, and the operations that name it. While `closing`, its id is dead already.
pub struct Socket {
    pub(super) descriptor: OwnedFd,
    pub(super) receive: Option<OperationKey>,
    pub(super) send: Option<OperationKey>,
    pub(super) closing: bool,
}

impl<W, B: Backend> Network<W> for HostIo<W, B> {
    fn listen(&mut self, address: SocketAddr) -> io::Result<(ListenerId, SocketAddr)> {
        let (descriptor, bound) = kernel::listen(address, B::NONBLOCKING)?;
        let id = ListenerId(self.next_listener);
        self.next_listener = self.next_listener.checked_add(1).expect("listeners are few");
        self.listeners.push(Listener { id, descriptor, accepts: 0, closing: false });
        Ok((id, bound))
    }

    fn accept(&mut self, token: Token, listener: ListenerId, done: Callback<W, Self, Accepted>) {
        let call = Call::Accept(listener, done);
        let position = self.listener_position(listener);
        let open = position.filter(|&position| !self.listeners[position].closing);
        let Some(position) = open else {
            // Not counted on a closing listener, so it takes the name of one that never was.
            let call = Call::Accept(ListenerId(u32::MAX), done);
            return self.refuse(token, Request::Refused, call, ErrorKind::NotConnected.into());
        };
        self.listeners[position].accepts += 1;
        let listener = Descriptor::of(&self.listeners[position].descriptor);
        self.submit(token, Request::Accept { listener }, call);
    }

    fn receive(
        &mut self,
        token: Token,
        id: SocketId,
        buffer: Vec<u8>,
        done: Callback<W, Self, Received>,
    ) {
        assert!(buffer.capacity() > buffer.len(), "a receive needs room");
        let call = Call::Receive(id, done);
        let socket = self.socket_for_operation(id);
        let request = Request::Receive { socket, buffer };
        if socket == Descriptor::DEAD {
            return self.refuse(token, request, call, ErrorKind::NotConnected.into());
        }
        let key = self.submit(token, request, call);
        let receive = &mut self.live_socket(id).expect("found above").receive;
        assert!(receive.is_none(), "one receive per socket");
        *receive = Some(key);
    }

    fn send(
        &mut self,
        token: Token,
        id: SocketId,
        buffer: Vec<u8>,
        offset: usize,
        done: Callback<W, Self, Sent>,
    ) {
        assert!(offset <= buffer.len());
        let call = Call::Send(id, done);
        let socket = self.socket_for_operation(id);
        let request = Request::Send { socket, buffer, offset };
        if socket == Descriptor::DEAD {
            return self.refuse(token, request, call, ErrorKind::NotConnected.into());
        }
        let key = self.submit(token, request, call);
        let send = &mut self.live_socket(id).expect("found above").send;
        assert!(send.is_none(), "one send per socket");
        *send = Some(key);
    }

    fn shutdown(&mut self, id: SocketId) {
        if let Some(socket) = self.live_socket(id) {
            kernel::shut_down_sending(&socket.descriptor);
        }
    }

    fn close_socket(&mut self, id: SocketId) {
        let Some(socket) = self.live_socket(id) else {
            return;
        };
        let (receive, send) = (socket.receive, socket.send);
        if receive.is_none() && send.is_none() {
            let socket = self.sockets.remove(id.index, id.generation);
            let socket = socket.expect("found above");
            return self.backend.close(socket.descriptor);
        }
        socket.closing = true;
        kernel::shut_down(&socket.descriptor);
        for key in [receive, send].into_iter().flatten() {
            self.cancel(key);
        }
    }

    fn close_listener(&mut self, id: ListenerId) {
        let Some(position) = self.listener_position(id) else {
            return;
        };
        let listener = &mut self.listeners[position];
        if listener.closing {
            return;
        }
        if listener.accepts == 0 {
            let listener = self.listeners.swap_remove(position);
            return self.backend.close(listener.descriptor);
        }
        listener.closing = true;
        kernel::shut_down(&listener.descriptor);
        for (_, operation) in &self.operations {
            if matches!(operation.call, Call::Accept(of, _) if of == id) {
                let (key, request) = (operation.key, &operation.request);
                self.backend.cancel(key, request, &mut self.ended);
            }
        }
    }
}

impl<W, B: Backend> HostIo<W, B> {
    fn live_socket(&mut self, id: SocketId) -> Option<&mut Socket> {
        let socket = self.sockets.find(id.index, id.generation)?;
        (!socket.closing).then_some(socket)
    }

    /// The socket's descriptor; the dead one if its id is dead.
    fn socket_for_operation(&mut self, id: SocketId) -> Descriptor {
        let socket = self.live_socket(id);
        socket.map_or(Descriptor::DEAD, |socket| Descriptor::of(&socket.descriptor))
    }

    fn listener_position(&self, id: ListenerId) -> Option<usize> {
        self.listeners.iter().position(|listener| listener.id == id)
    }

    pub(super) fn end_accept(
        &mut self,
        id: ListenerId,
        result: io::Result<Outcome>,
    ) -> io::Result<(SocketId, SocketAddr)> {
        // A refused accept names a listener that is gone.
        if let Some(position) = self.listener_position(id) {
            let listener = &mut self.listeners[position];
            let closing = listener.closing;
            assert!(listener.accepts > 0);
            listener.accepts -= 1;
            if closing {
                if listener.accepts == 0 {
                    let listener = self.listeners.swap_remove(position);
                    self.backend.close(listener.descriptor);
                }
                // A connection that came in meanwhile is closed here, with its outcome.
                return Err(ErrorKind::ConnectionAborted.into());
            }
        }
        let Outcome::Descriptor(descriptor) = result? else {
            return Err(ErrorKind::InvalidData.into());
        };
        let peer = kernel::prepare_connection(&descriptor)?;
        let (index, generation) =
            self.sockets.insert(Socket { descriptor, receive: None, send: None, closing: false });
        Ok((SocketId { index, generation }, peer))
    }

    /// Note the end of a receive or a send, and close the socket if that was its last.
    pub(super) fn end_on_socket(
        &mut self,
        id: SocketId,
        key: OperationKey,
        result: io::Result<usize>,
    ) -> io::Result<usize> {
        // A refused operation names a socket that is gone, or one that is closing without it.
        let Some(socket) = self.sockets.find(id.index, id.generation) else {
            return result;
        };
        if socket.receive == Some(key) {
            socket.receive = None;
        } else if socket.send == Some(key) {
            socket.send = None;
        }
        if !socket.closing {
            return result;
        }
        if socket.receive.is_none() && socket.send.is_none() {
            let socket = self.sockets.remove(id.index, id.generation);
            let socket = socket.expect("found a moment ago");
            self.backend.close(socket.descriptor);
        }
        match result {
            Ok(0) => Err(ErrorKind::ConnectionAborted.into()),
            Err(error) if error.kind() == ErrorKind::NotConnected => Err(error),
            Err(_) => Err(ErrorKind::ConnectionAborted.into()),
            Ok(count) => Ok(count),
        }
    }
}
