//! A TCP proxy that stalls and cuts.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// What happens to bytes on their way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// They pass.
    Open,
    /// They wait until the way is another one.
    Stalled,
    /// Connections are broken, and new ones as soon as they are made.
    Cut,
}

/// A proxy in front of one server.
pub struct Proxy {
    state: Arc<State>,
}

struct State {
    way: Mutex<Way>,
    open: Mutex<Vec<TcpStream>>,
    /// Connections that were made.
    made: AtomicU64,
    /// Connections broken on purpose, and pieces held back.
    cut: AtomicU64,
    held: AtomicU64,
}

impl State {
    fn way(&self) -> Way {
        *self.way.lock().expect("a lock")
    }

    fn carry(&self, mut from: TcpStream, mut to: TcpStream) {
        let mut bytes = vec![0; 64 << 10];
        while let Ok(count @ 1..) = from.read(&mut bytes) {
            if self.way() == Way::Stalled {
                self.held.fetch_add(1, Ordering::Relaxed);
            }
            while self.way() == Way::Stalled {
                std::thread::sleep(Duration::from_millis(10));
            }
            if self.way() == Way::Cut || to.write_all(&bytes[..count]).is_err() {
                break;
            }
        }
        from.shutdown(Shutdown::Both).ok();
        to.shutdown(Shutdown::Both).ok();
    }
}

impl Proxy {
    /// Listens on `port` and carries to `upstream`.
    pub fn start(port: u16, upstream: u16) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", port)).expect("the proxy's port");
        let (way, open) = (Mutex::new(Way::Open), Mutex::default());
        let state =
            Arc::new(State { way, open, made: AtomicU64::new(0), cut: AtomicU64::new(0), held: AtomicU64::new(0) });
        let all = Arc::clone(&state);
        std::thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                all.made.fetch_add(1, Ordering::Relaxed);
                if all.way() == Way::Cut {
                    all.cut.fetch_add(1, Ordering::Relaxed);
                    continue;
                }
                let Ok(server) = TcpStream::connect(("127.0.0.1", upstream)) else { continue };
                let twin = |stream: &TcpStream| stream.try_clone().expect("a twin");
                all.open.lock().expect("a lock").extend([twin(&client), twin(&server)]);
                let (one, other) = (Arc::clone(&all), Arc::clone(&all));
                let (there, back) = ((twin(&client), twin(&server)), (server, client));
                std::thread::spawn(move || one.carry(there.0, there.1));
                std::thread::spawn(move || other.carry(back.0, back.1));
            }
        });
        Self { state }
    }

    /// Changes the way.
    pub fn set(&self, way: Way) {
        *self.state.way.lock().expect("a lock") = way;
        if way == Way::Cut {
            for stream in self.state.open.lock().expect("a lock").drain(..) {
                self.state.cut.fetch_add(1, Ordering::Relaxed);
                stream.shutdown(Shutdown::Both).ok();
            }
        }
    }

    /// How many connections were made.
    pub fn made(&self) -> u64 {
        self.state.made.load(Ordering::Relaxed)
    }

    /// How many connections were cut and how many pieces held back.
    pub fn harm(&self) -> u64 {
        self.state.cut.load(Ordering::Relaxed) + self.state.held.load(Ordering::Relaxed)
    }
}
