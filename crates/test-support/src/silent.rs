use std::net::SocketAddr;

use tokio::net::TcpSocket;

/// A port of loopback on which nobody listens, and nobody can begin to while this lives: connections to it
/// are refused.
#[derive(Debug)]
pub struct SilentPort {
    socket: TcpSocket,
}

impl SilentPort {
    /// Takes a free port.
    ///
    /// # Panics
    /// If there is none.
    #[must_use]
    pub fn take() -> Self {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
        Self { socket }
    }

    /// Where nobody answers.
    ///
    /// # Panics
    /// Never: the socket is bound.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.socket.local_addr().unwrap()
    }
}
