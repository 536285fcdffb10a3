//! A link made slow, or cut, for rehearsals: between a port and an address, every byte takes its delay.
//!
//!   node 1 ─→ listener ─→ [ read ─→ (due, bytes) … ─→ write ] ─→ node 2          and the same back
//!
//! Each direction is read as fast as bytes come and written when each is due, so a delay costs latency and no
//! throughput, as distance does. A cut link keeps what it holds and takes no more, without closing anything: that is
//! what a partition looks like from both ends, and connections that are closed would tell them too much.
//!
//! `spinetail cluster proxy` runs it as a process; tests hold one for each pair of nodes, named under `[reach]` in
//! `node.toml`.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

/// A slow link.
pub struct Proxy {
    /// Where to connect.
    pub address: SocketAddr,
    delay_us: Arc<AtomicU64>,
    is_cut: watch::Sender<bool>,
}

/// Pieces in flight in one direction: with 64 KiB each, 64 MiB, which is a second at 500 Mbit/s.
const PIECES_MAX: usize = 1024;
const PIECE_BYTES: usize = 64 << 10;
const TIMER_BIAS: Duration = Duration::from_micros(500);

impl Proxy {
    /// Begins to take connections at `listen`, each of which is continued to `to`. Must be called within a tokio
    /// runtime, and runs until that ends.
    pub async fn start(listen: &str, to: String, delay: Duration) -> io::Result<Proxy> {
        let listener = TcpListener::bind(listen).await?;
        let address = listener.local_addr()?;
        let delay_us = Arc::new(AtomicU64::new(delay.as_micros() as u64));
        let is_cut = watch::Sender::new(false);
        let proxy = Proxy { address, delay_us: delay_us.clone(), is_cut: is_cut.clone() };
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(join(stream, to.clone(), delay_us.clone(), is_cut.subscribe()));
            }
        });
        Ok(proxy)
    }

    /// Cuts or heals it.
    pub fn set_cut(&self, is_cut: bool) {
        self.is_cut.send_replace(is_cut);
    }

    /// One way takes this long from now on.
    pub fn set_delay(&self, delay: Duration) {
        self.delay_us.store(delay.as_micros() as u64, Ordering::Relaxed);
    }
}

async fn join(from: TcpStream, to: String, delay_us: Arc<AtomicU64>, mut is_cut: watch::Receiver<bool>) {
    if is_cut.wait_for(|is_cut| !is_cut).await.is_err() {
        return;
    }
    let Ok(to) = TcpStream::connect(&to).await else { return };
    if from.set_nodelay(true).is_err() || to.set_nodelay(true).is_err() {
        return;
    }
    let (from_read, from_write) = from.into_split();
    let (to_read, to_write) = to.into_split();
    let there = carry(from_read, to_write, delay_us.clone(), is_cut.clone());
    let back = carry(to_read, from_write, delay_us, is_cut);
    tokio::join!(there, back);
}

async fn carry(
    mut reader: tokio::net::tcp::OwnedReadHalf,
    mut writer: tokio::net::tcp::OwnedWriteHalf,
    delay_us: Arc<AtomicU64>,
    mut is_cut: watch::Receiver<bool>,
) {
    let (put, mut pieces) = mpsc::channel::<(Instant, Vec<u8>)>(PIECES_MAX);
    let read = async move {
        loop {
            let mut piece = vec![0; PIECE_BYTES];
            match reader.read(&mut piece).await {
                Ok(0) | Err(_) => return,
                Ok(length) => {
                    piece.truncate(length);
                    let due = Instant::now() + Duration::from_micros(delay_us.load(Ordering::Relaxed));
                    if put.send((due, piece)).await.is_err() {
                        return;
                    }
                }
            }
        }
    };
    let write = async move {
        while let Some((due, piece)) = pieces.recv().await {
            // The timer counts in whole milliseconds and rounds up: half of one early, it is right in the mean.
            tokio::time::sleep_until(due - TIMER_BIAS).await;
            if is_cut.wait_for(|is_cut| !is_cut).await.is_err() || writer.write_all(&piece).await.is_err() {
                break;
            }
        }
        // The end arrives as late as everything else.
        let _ = writer.shutdown().await;
    };
    tokio::join!(read, write);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_take_their_delay_and_a_cut_link_keeps_them() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let echo = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let to = echo.local_addr().unwrap().to_string();
            tokio::spawn(async move {
                let (stream, _) = echo.accept().await.unwrap();
                let (mut reader, mut writer) = stream.into_split();
                let _ = tokio::io::copy(&mut reader, &mut writer).await;
            });
            let proxy = Proxy::start("127.0.0.1:0", to, Duration::from_millis(30)).await.unwrap();
            let mut stream = TcpStream::connect(proxy.address).await.unwrap();
            let mut echoed = [0; 4];
            let began = Instant::now();
            stream.write_all(b"ping").await.unwrap();
            stream.read_exact(&mut echoed).await.unwrap();
            assert!(began.elapsed() >= Duration::from_millis(59), "{:?}", began.elapsed());
            // Throughput is not the window over the delay: 8 MiB cross in much less than 128 pieces times 60 ms.
            let began = Instant::now();
            let (mut reader, mut writer) = stream.split();
            let sent = vec![7; 8 << 20];
            let mut received = vec![0; 8 << 20];
            let (wrote, read) = tokio::join!(writer.write_all(&sent), reader.read_exact(&mut received));
            assert!(wrote.is_ok() && read.is_ok() && received == sent);
            assert!(began.elapsed() < Duration::from_secs(3), "{:?}", began.elapsed());
            proxy.set_cut(true);
            writer.write_all(b"late").await.unwrap();
            let wait = tokio::time::timeout(Duration::from_millis(200), reader.read_exact(&mut echoed)).await;
            assert!(wait.is_err());
            proxy.set_cut(false);
            reader.read_exact(&mut echoed).await.unwrap();
            assert_eq!(&echoed, b"late");
        });
    }
}
