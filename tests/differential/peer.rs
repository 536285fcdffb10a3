//! The servers compared: Debian's, started on a port of its own, and a proxy that lies once.

use std::io::{BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use crate::common::{PATIENCE, eventually};
use crate::engine::Peer;

/// A server that is not ours; killed when dropped.
pub struct Foreign {
    child: Child,
    pub peer: Peer,
}

impl Foreign {
    /// Debian's Redis, which keeps nothing. `None`, and a word on stdout, where there is none.
    pub fn redis() -> Option<Foreign> {
        let start = |port: &str| {
            let mut command = Command::new("redis-server");
            command.args(["--port", port, "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]);
            // One database, as here, so that SELECT 1 and COPY … DB 1 are the same error.
            command.args(["--databases", "1"]);
            command
        };
        Foreign::start("redis-server", "redis-server", start, b"PING\r\n", b"+PONG")
    }

    /// Debian's memcached.
    pub fn memcached() -> Option<Foreign> {
        let start = |port: &str| {
            let mut command = Command::new("memcached");
            command.args(["-u", "nobody", "-l", "127.0.0.1", "-p", port, "-m", "64"]);
            // Its threads hold on to items for moments that nobody can foresee, and an item that is held is counted
            // in a copy, without padding and marks: the same run would not come out the same twice.
            command.args(["-o", "no_lru_maintainer,no_lru_crawler"]);
            command
        };
        Foreign::start("memcached", "memcached", start, b"mn\r\n", b"MN")
    }

    fn start(
        name: &str,
        package: &str,
        command: impl Fn(&str) -> Command,
        greeting: &[u8],
        answer: &[u8],
    ) -> Option<Foreign> {
        // Somebody may take the port between our letting go of it and the server's asking for it.
        for _ in 0..5 {
            let address = TcpListener::bind("127.0.0.1:0").and_then(|socket| socket.local_addr()).expect("a port");
            let mut command = command(&address.port().to_string());
            let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
            let Ok(child) = child else {
                println!("SKIPPED: no {name} here (apt-get install {package})");
                return None;
            };
            let mut foreign = Foreign { child, peer: Peer { name: name.to_string(), address } };
            let mut ended = false;
            let answers = eventually(PATIENCE, || {
                ended = foreign.child.try_wait().expect("a status").is_some();
                ended || answers(address, greeting, answer)
            });
            if answers && !ended {
                return Some(foreign);
            }
        }
        panic!("{name} does not start");
    }
}

impl Drop for Foreign {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn answers(address: SocketAddr, greeting: &[u8], answer: &[u8]) -> bool {
    let Ok(mut stream) = TcpStream::connect(address) else { return false };
    let _ = stream.set_read_timeout(Some(Duration::from_secs(1)));
    let mut reply = vec![0; answer.len()];
    stream.write_all(greeting).is_ok() && stream.read_exact(&mut reply).is_ok() && reply == answer
}

/// Stands before a server and changes what `lie` changes of its replies, as `read` tells them apart.
pub fn liar(
    peer: &Peer,
    read: fn(&mut BufReader<TcpStream>) -> std::io::Result<Vec<u8>>,
    lie: impl FnMut(&mut Vec<u8>) + Send + 'static,
) -> Peer {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address");
    let target = peer.address;
    let lie = Arc::new(Mutex::new(lie));
    thread::spawn(move || {
        for client in listener.incoming().map_while(Result::ok) {
            let server = TcpStream::connect(target).expect("the server accepts");
            for stream in [&client, &server] {
                stream.set_nodelay(true).unwrap();
            }
            let (mut requests, mut to_server) = (client.try_clone().unwrap(), server.try_clone().unwrap());
            thread::spawn(move || {
                let _ = std::io::copy(&mut requests, &mut to_server);
                let _ = to_server.shutdown(Shutdown::Both);
            });
            let lie = lie.clone();
            thread::spawn(move || {
                let (mut replies, mut client) = (BufReader::new(server), client);
                while let Ok(mut reply) = read(&mut replies) {
                    (lie.lock().unwrap())(&mut reply);
                    if client.write_all(&reply).is_err() {
                        break;
                    }
                }
                let _ = client.shutdown(Shutdown::Both);
            });
        }
    });
    Peer { name: format!("liar before {}", peer.name), address }
}
