//! A port that belongs to a test before, while and after somebody listens there.

use std::net::SocketAddr;

use socket2::{Domain, Socket, Type};

/// A port of 127.0.0.1 that the kernel gives to nobody else, as it might a number that was only free a moment ago: who
/// asks for exactly this one may listen there, as nginx and `TcpListener` do, and until then connections are refused.
pub(crate) struct Port {
    /// The address with the port.
    pub(crate) address: SocketAddr,
    _socket: Socket,
}

impl Port {
    /// One that is free.
    pub(crate) fn reserve() -> Port {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        socket.set_reuse_address(true).unwrap();
        socket.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
        let address = socket.local_addr().unwrap().as_socket().unwrap();
        Port { address, _socket: socket }
    }
}
