//! The end of a server's process on a simulated machine, the same for worlds and for scripts.

use server::Server;
use storage::io::{Clock, Io};

use crate::io::{Doom, SimulatedIo};
use crate::world::Violation;

/// Longest simulated time of a clean stop: 10 s of grace, checkpoints, and disk spikes of 5 s.
pub(crate) const STOP_NS_MAX: u64 = 300_000_000_000;

/// Simulated time in which the operations of a stopped server end.
const LEFTOVER_NS_MAX: u64 = 1_000_000_000;

/// Who runs a server on a simulated machine, and listens at the other ends of its connections.
pub(crate) trait Host {
    /// The machine, and the server while one runs.
    fn parts(&mut self) -> (&mut SimulatedIo<Server>, &mut Option<Server>);

    /// Let the clients look at what has reached them.
    fn attend(&mut self) -> Result<(), Violation>;

    /// MEM-6: a stopped server leaves nothing open, and nothing in flight but what ends soon: an
    /// accept on a listener that it has closed.
    fn settle_leftovers(&mut self) -> Result<(), Violation> {
        let patience = self.parts().0.now().after(LEFTOVER_NS_MAX);
        loop {
            let (io, server) = self.parts();
            if io.in_flight() == 0 || io.now() >= patience || io.doom() != Doom::Alive {
                break;
            }
            io.run(server.as_mut().expect("it has just stopped"), Some(patience));
            self.attend()?;
        }
        let (io, _) = self.parts();
        if io.doom() != Doom::Alive {
            return Ok(());
        }
        let left = [
            ("operations in flight", io.in_flight()),
            ("sockets", io.server_socket_count()),
            ("open files", io.disk().open_count()),
        ];
        match left.iter().find(|(_, count)| *count > 0) {
            Some((what, count)) => {
                Err(Violation::new("MEM-6", format!("a stopped server leaves {count} {what}")))
            }
            None => Ok(()),
        }
    }

    /// Let the doomed server run to its end, and take the machine back. Gives the server's last
    /// counters.
    fn end_server(&mut self) -> Result<tenant::Counters, Violation> {
        let mut server = self.parts().1.take().expect("a server runs");
        while self.parts().0.doom() == Doom::Ending {
            if server.exit().is_none() {
                server.turn(self.parts().0);
            }
            let deadline = server.deadline();
            self.parts().0.run(&mut server, deadline);
            self.attend()?;
        }
        let (io, _) = self.parts();
        if io.doom() == Doom::Overrun {
            return Err(Violation::new("MEM-5", "a doomed server does not end"));
        }
        let counters = server.engine().counters();
        server.doom(io);
        io.restart();
        Ok(counters)
    }
}
