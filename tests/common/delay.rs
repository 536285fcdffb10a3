//! A wide-area network on one machine: links that delay each direction, do not limit what goes over them, and can be cut.
//!
//!   client --> | read, stamp | --> queue, in order --> | wait until due, write | --> server     (and the same way back)
//!
//! Bytes are read as they come and written when they are due, so any number of them can be under way, as on a long cable;
//! a queue of so many chunks is far more than the delay times any rate of these tests. A cut link carries nothing and says
//! nothing: what was under way stays there, new connections are accepted and lead nowhere, as with a lost route.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Handle;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;

/// The thread that carries all links of a test; ends with it.
pub struct Wan {
    handle: Handle,
    _end: oneshot::Sender<()>,
}

/// One link: whoever connects to its address reaches its target, later.
pub struct Link {
    pub address: SocketAddr,
    target: Arc<Mutex<SocketAddr>>,
    is_cut: watch::Sender<bool>,
}

impl Wan {
    pub fn new() -> Wan {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let handle = runtime.handle().clone();
        let (end, ended) = oneshot::channel::<()>();
        thread::spawn(move || {
            let _ = runtime.block_on(ended);
        });
        Wan { handle, _end: end }
    }

    /// A link to `target`, each way of which takes `one_way`.
    pub fn link(&self, target: SocketAddr, one_way: Duration) -> Link {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address");
        listener.set_nonblocking(true).expect("a socket");
        let (is_cut, cut) = watch::channel(false);
        let target = Arc::new(Mutex::new(target));
        let to = target.clone();
        self.handle.spawn(async move {
            let listener = TcpListener::from_std(listener).expect("a listener");
            while let Ok((client, _)) = listener.accept().await {
                let target = *to.lock().unwrap();
                tokio::spawn(carry(client, target, one_way, cut.clone()));
            }
        });
        Link { address, target, is_cut }
    }
}

impl Link {
    /// Cuts or heals it.
    pub fn set_cut(&self, is_cut: bool) {
        self.is_cut.send_replace(is_cut);
    }

    /// Leads elsewhere from the next connection on.
    pub fn set_target(&self, target: SocketAddr) {
        *self.target.lock().unwrap() = target;
    }
}

async fn carry(client: TcpStream, target: SocketAddr, one_way: Duration, mut cut: watch::Receiver<bool>) {
    if cut.wait_for(|is_cut| !is_cut).await.is_err() {
        return;
    }
    // Whoever listens no more refuses, and the client hears of it by the end of its connection.
    let Ok(server) = TcpStream::connect(target).await else { return };
    let _ = (client.set_nodelay(true), server.set_nodelay(true));
    let ((from_client, to_client), (from_server, to_server)) = (client.into_split(), server.into_split());
    let mut ways = JoinSet::new();
    for (source, sink) in [(from_client, to_server), (from_server, to_client)] {
        let (queue, due) = mpsc::channel(CHUNKS_MAX);
        ways.spawn(take(source, queue, one_way));
        ways.spawn(give(sink, due, cut.clone()));
    }
    // An end that breaks breaks the other; one that has said all does not.
    while let Some(Ok(Ok(()))) = ways.join_next().await {}
}

async fn take(
    source: OwnedReadHalf,
    queue: mpsc::Sender<(Instant, Vec<u8>)>,
    one_way: Duration,
) -> std::io::Result<()> {
    let mut buffer = vec![0; CHUNK_BYTES];
    loop {
        source.readable().await?;
        match source.try_read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(count) => {
                if queue.send((Instant::now() + one_way, buffer[..count].to_vec())).await.is_err() {
                    return Ok(());
                }
            }
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
}

async fn give(
    sink: OwnedWriteHalf,
    mut due: mpsc::Receiver<(Instant, Vec<u8>)>,
    mut cut: watch::Receiver<bool>,
) -> std::io::Result<()> {
    while let Some((moment, bytes)) = due.recv().await {
        tokio::time::sleep_until(moment).await;
        if cut.wait_for(|is_cut| !is_cut).await.is_err() {
            return Ok(());
        }
        let mut rest = bytes.as_slice();
        while !rest.is_empty() {
            sink.writable().await?;
            match sink.try_write(rest) {
                Ok(count) => rest = &rest[count..],
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
    }
    Ok(())
}

const CHUNK_BYTES: usize = 64 << 10;
const CHUNKS_MAX: usize = 1024;
