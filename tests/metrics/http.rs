//! HTTP as far as these tests need it, from its own pages, so that it can also misbehave.

use std::io::{BufRead, BufReader, Read, Result, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use crate::common::PATIENCE;

/// What came back.
#[derive(Debug)]
pub struct Response {
    pub status: u16,
    /// Names in lower case.
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Response {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    pub fn text(&self) -> String {
        String::from_utf8(self.body.clone()).expect("text")
    }
}

/// Asks for a path.
pub fn get(address: SocketAddr, path: &str, headers: &[(&str, &str)]) -> Response {
    ask(address, "GET", path, headers).unwrap_or_else(|error| panic!("GET {path}: {error}"))
}

/// Asks with any method.
pub fn ask(address: SocketAddr, method: &str, path: &str, headers: &[(&str, &str)]) -> Result<Response> {
    let mut stream = connect(address)?;
    stream.write_all(&request(method, path, headers))?;
    let mut reader = BufReader::new(stream);
    let mut response = head(&mut reader)?;
    if method != "HEAD" {
        response.body = body(&mut reader, &response)?;
    }
    Ok(response)
}

/// A request that asks for the connection to be closed.
pub fn request(method: &str, path: &str, headers: &[(&str, &str)]) -> Vec<u8> {
    // A name of our own choice is refused without a token: a foreign page in a browser could claim it.
    let host = if headers.iter().any(|(name, _)| *name == "Host") { "" } else { "Host: localhost\r\n" };
    let mut text = format!("{method} {path} HTTP/1.1\r\n{host}Connection: close\r\n");
    headers.iter().for_each(|(name, value)| text += &format!("{name}: {value}\r\n"));
    (text + "\r\n").into_bytes()
}

pub fn connect(address: SocketAddr) -> Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&address, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    Ok(stream)
}

/// Reads status and headers.
pub fn head(reader: &mut impl BufRead) -> Result<Response> {
    let mut line = String::new();
    reader.read_line(&mut line)?;
    let closed = || std::io::Error::new(std::io::ErrorKind::UnexpectedEof, "closed without an answer");
    let status = line.split(' ').nth(1).and_then(|text| text.parse().ok()).ok_or_else(closed)?;
    let mut headers = Vec::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        let Some((name, value)) = line.trim_end().split_once(':') else { break };
        headers.push((name.to_lowercase(), value.trim().to_string()));
    }
    Ok(Response { status, headers, body: Vec::new() })
}

fn body(reader: &mut impl BufRead, response: &Response) -> Result<Vec<u8>> {
    let mut body = Vec::new();
    if response.header("transfer-encoding") == Some("chunked") {
        Chunked::new(reader).read_to_end(&mut body)?;
    } else if let Some(length) = response.header("content-length").and_then(|text| text.parse().ok()) {
        body.resize(length, 0);
        reader.read_exact(&mut body)?;
    } else {
        reader.read_to_end(&mut body)?;
    }
    Ok(body)
}

/// The bytes in chunks.
pub struct Chunked<R> {
    inner: R,
    left: usize,
    over: bool,
}

impl<R: BufRead> Chunked<R> {
    pub fn new(inner: R) -> Chunked<R> {
        Chunked { inner, left: 0, over: false }
    }
}

impl<R: BufRead> Read for Chunked<R> {
    fn read(&mut self, into: &mut [u8]) -> Result<usize> {
        if self.left == 0 && !self.over {
            let mut line = String::new();
            self.inner.read_line(&mut line)?;
            if line.trim().is_empty() {
                line.clear(); // the end of the chunk before
                self.inner.read_line(&mut line)?;
            }
            self.left = usize::from_str_radix(line.trim(), 16).unwrap_or(0);
            self.over = self.left == 0;
        }
        let most = into.len().min(self.left);
        let count = self.inner.read(&mut into[..most])?;
        self.left -= count;
        Ok(count)
    }
}

/// Whether the peer closes within some time, whatever it says before.
pub fn is_closed_within(mut stream: TcpStream, at_most: Duration) -> bool {
    stream.set_read_timeout(Some(at_most)).unwrap();
    let mut bytes = [0; 4096];
    let started = std::time::Instant::now();
    loop {
        match stream.read(&mut bytes) {
            Ok(0) => return true,
            Ok(_) if started.elapsed() < at_most => {}
            Ok(_) => return false,
            Err(error) => return error.kind() == std::io::ErrorKind::ConnectionReset,
        }
    }
}

/// What stands in a URL for any text.
pub fn escaped(text: &str) -> String {
    let escape = |byte: u8| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' => char::from(byte).to_string(),
        _ => format!("%{byte:02X}"),
    };
    text.bytes().map(escape).collect()
}

pub fn base64(bytes: &[u8]) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let three = |part: &[u8]| {
        let number = part.iter().fold(0u32, |number, &byte| number << 8 | u32::from(byte)) << (8 * (3 - part.len()));
        let letter = |place: usize| char::from(LETTERS[(number >> (18 - 6 * place)) as usize & 63]);
        (0..4).map(|place| if place <= part.len() { letter(place) } else { '=' }).collect::<String>()
    };
    bytes.chunks(3).map(three).collect()
}
