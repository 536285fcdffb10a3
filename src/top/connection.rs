//! The connection to the admin listener: HTTP by hyper, in a thread of its own, connected anew for as long as
//! somebody listens.
//!
//! What goes wrong is named for the person at the terminal: which of both sides is to blame and what to do. The pause
//! before the next attempt is what the server asked for (`retry:`), doubled with every attempt in vain.

use std::error::Error;
use std::fmt;
use std::path::PathBuf;
use std::thread;
use std::time::Duration;

use crossbeam::channel::{Receiver, Sender, bounded};
use http_body_util::{BodyExt, Empty};
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HOST, HeaderValue, USER_AGENT};
use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::base::limits;
use crate::top::address::{Address, Admin};
use crate::top::events::{Event, Parser, TooLong};
use crate::top::message::{Hello, Tick};
use crate::top::text;

/// What a connection tells.
#[derive(Debug)]
pub enum Heard {
    /// It begins.
    Hello(Box<Hello>),
    /// A tick, and its text.
    Tick(Box<Tick>, String),
    /// It ended, or did not come about. It will be tried again.
    Lost(Failure),
}

/// Why nothing is heard, and from whom.
#[derive(Debug)]
pub struct Failure {
    address: Address,
    token_file: Option<PathBuf>,
    cause: Cause,
}

#[derive(Debug)]
enum Cause {
    Token(std::io::Error),
    Unreachable(std::io::Error),
    NoAnswer,
    Http(hyper::Error),
    Status(StatusCode),
    NotEvents(String),
    TooLong,
    NotUnderstood {
        what: &'static str,
        error: serde_json::Error,
    },
    Ended,
    Silent,
    /// Nobody listens any more: this is not shown.
    Unheard,
}

/// Connects to `admin` and tells what it says until the receiver is dropped.
pub fn start(admin: Admin) -> Result<Receiver<Heard>, String> {
    let (sender, receiver) = bounded(limits::TOP_EVENTS_AHEAD);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .enable_time()
        .build()
        .map_err(|error| format!("no event loop for the connection: {error}"))?;
    let thread = thread::Builder::new().name("admin".to_string()).spawn(move || {
        let mut resume = Resume::default();
        loop {
            let cause = runtime.block_on(listen(&admin, &mut resume, &sender));
            let failure = Failure { address: admin.address.clone(), token_file: admin.token_file.clone(), cause };
            if matches!(failure.cause, Cause::Unheard) || sender.send(Heard::Lost(failure)).is_err() {
                return;
            }
            thread::sleep(resume.pause());
        }
    });
    thread.map(|_| receiver).map_err(|error| format!("no thread for the connection: {error}"))
}

/// What is remembered from one connection to the next.
#[derive(Debug, Default)]
struct Resume {
    last_id: Option<String>,
    retry_ms: Option<u64>,
    /// Attempts since something was heard.
    in_vain: u32,
}

impl Resume {
    /// How long to wait, once more in vain.
    fn pause(&mut self) -> Duration {
        let first = self.retry_ms.unwrap_or(limits::TOP_BACKOFF_MS);
        let first = first.clamp(limits::TOP_BACKOFF_MS_MIN, limits::TOP_BACKOFF_MS_MAX);
        let pause = first.saturating_mul(1 << self.in_vain.min(16)).min(limits::TOP_BACKOFF_MS_MAX);
        self.in_vain = self.in_vain.saturating_add(1);
        Duration::from_millis(pause)
    }
}

/// One connection, from its beginning to its end.
async fn listen(admin: &Admin, resume: &mut Resume, sender: &Sender<Heard>) -> Cause {
    match try_listen(admin, resume, sender).await {
        Err(cause) => cause,
        Ok(never) => match never {},
    }
}

async fn try_listen(
    admin: &Admin,
    resume: &mut Resume,
    sender: &Sender<Heard>,
) -> Result<std::convert::Infallible, Cause> {
    let request = request(admin, resume)?;
    let patience = Duration::from_millis(limits::TOP_CONNECT_MS);
    let address = (admin.address.host.as_str(), admin.address.port);
    let stream = timeout(patience, TcpStream::connect(address)).await.map_err(|_| Cause::NoAnswer)?;
    let stream = stream.map_err(Cause::Unreachable)?;
    let handshake = http1::Builder::new().max_buf_size(limits::TOP_BUFFER_BYTES).handshake(TokioIo::new(stream));
    let (mut requests, connection) = handshake.await.map_err(Cause::Http)?;
    // It ends with its request and its body, whose errors say what it would say.
    let driver = tokio::spawn(connection);
    let _ended_with_this = AbortOnDrop(driver.abort_handle());
    let answer = timeout(patience, requests.send_request(request)).await.map_err(|_| Cause::NoAnswer)?;
    let answer = answer.map_err(Cause::Http)?;
    if answer.status() != StatusCode::OK {
        return Err(Cause::Status(answer.status()));
    }
    let kind = answer.headers().get(CONTENT_TYPE).map_or(String::new(), |kind| {
        text::name(&String::from_utf8_lossy(kind.as_bytes()), limits::TOP_NAME_CHARACTERS_MAX)
    });
    if !kind.to_ascii_lowercase().starts_with("text/event-stream") {
        return Err(Cause::NotEvents(kind));
    }
    let mut body = answer.into_body();
    let mut parser = Parser::default();
    let silence = Duration::from_millis(limits::TOP_SILENCE_MS);
    loop {
        let frame = timeout(silence, body.frame()).await.map_err(|_| Cause::Silent)?;
        let frame = frame.ok_or(Cause::Ended)?.map_err(|error| match error.is_incomplete_message() {
            true => Cause::Ended,
            false => Cause::Http(error),
        })?;
        let Ok(bytes) = frame.into_data() else { continue }; // trailers
        let mut told = Ok(());
        parser
            .push(&bytes, |event| {
                if told.is_ok() {
                    told = tell(event, sender).map(|()| resume.in_vain = 0);
                }
            })
            .map_err(|TooLong| Cause::TooLong)?;
        if let Some(id) = parser.id() {
            resume.last_id = Some(id.to_string());
        }
        resume.retry_ms = parser.retry_ms().or(resume.retry_ms);
        told?;
    }
}

/// Gives one event on. Blocks while nobody takes it, and with it this thread: see [`limits::TOP_EVENTS_AHEAD`].
fn tell(event: Event, sender: &Sender<Heard>) -> Result<(), Cause> {
    let heard = match event.kind.as_str() {
        "hello" => Heard::Hello(understood("hello", &event.data)?),
        "tick" => Heard::Tick(understood("tick", &event.data)?, event.data),
        _ => return Ok(()), // the future's
    };
    sender.send(heard).map_err(|_| Cause::Unheard)
}

fn understood<T: serde::de::DeserializeOwned>(what: &'static str, data: &str) -> Result<Box<T>, Cause> {
    serde_json::from_str(data).map(Box::new).map_err(|error| Cause::NotUnderstood { what, error })
}

fn request(admin: &Admin, resume: &Resume) -> Result<Request<Empty<Bytes>>, Cause> {
    let token = admin.token().map_err(Cause::Token)?;
    let mut request = Request::new(Empty::new());
    *request.uri_mut() = hyper::Uri::from_static("/events");
    let headers = request.headers_mut();
    headers.insert(ACCEPT, HeaderValue::from_static("text/event-stream"));
    headers.insert(USER_AGENT, HeaderValue::from_static(concat!("spinetail-top/", env!("CARGO_PKG_VERSION"))));
    let value = |text: &str| HeaderValue::from_str(text).ok();
    // Both were checked when they were read; a header they do not fit goes without.
    if let Some(host) = value(&admin.address.to_string()) {
        headers.insert(HOST, host);
    }
    if let Some(mut bearer) = token.and_then(|token| value(&format!("Bearer {token}"))) {
        bearer.set_sensitive(true);
        headers.insert(AUTHORIZATION, bearer);
    }
    if let Some(id) = resume.last_id.as_deref().and_then(value) {
        headers.insert("last-event-id", id);
    }
    Ok(request)
}

struct AbortOnDrop(tokio::task::AbortHandle);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Failure {
    /// The cause alone, for where there is little room and the rest is known.
    pub fn cause(&self) -> String {
        match &self.cause {
            Cause::Token(error) => format!("the token file: {error}"),
            Cause::Unreachable(error) => error.to_string(),
            Cause::NoAnswer => format!("no answer within {} s", limits::TOP_CONNECT_MS / 1000),
            Cause::Http(error) if is_not_http(error) => "that is no HTTP".to_string(),
            Cause::Http(error) => match error.source() {
                Some(source) => source.to_string(),
                None => error.to_string(),
            },
            Cause::Status(StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) => match self.token_file {
                None => "a token is demanded".to_string(),
                Some(_) => "the token is refused".to_string(),
            },
            Cause::Status(status) => format!("{} for /events", status.as_u16()),
            Cause::NotEvents(kind) if kind.is_empty() => "/events does not say what it is".to_string(),
            Cause::NotEvents(kind) => format!("/events is {kind}"),
            Cause::TooLong => format!("an event of more than {} KiB", limits::TOP_EVENT_BYTES_MAX / 1024),
            Cause::NotUnderstood { what, error } => {
                format!("a {what} that is not understood: {}", text::name(&error.to_string(), 200))
            }
            Cause::Ended | Cause::Unheard => "the connection was closed".to_string(),
            Cause::Silent => format!("nothing came for {} s", limits::TOP_SILENCE_MS / 1000),
        }
    }

    fn remedy(&self) -> String {
        match &self.cause {
            Cause::Token(_) => "name a file that holds what the server's --admin-token-file holds".to_string(),
            Cause::Unreachable(_) => "start the server with --admin, or name it with --admin".to_string(),
            Cause::Status(StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) => match &self.token_file {
                None => "give --token-file FILE, with what the server's --admin-token-file holds".to_string(),
                Some(path) => format!("{} must hold what the server's --admin-token-file holds", path.display()),
            },
            Cause::Status(StatusCode::SERVICE_UNAVAILABLE) => "try again when it has started".to_string(),
            Cause::NotUnderstood { .. } => "is it another version? use the spinetail that serves".to_string(),
            Cause::Ended | Cause::Unheard | Cause::Silent => "see what the server logs".to_string(),
            Cause::NoAnswer | Cause::Http(_) | Cause::Status(_) | Cause::NotEvents(_) | Cause::TooLong => {
                "is this another program's port? name the server's admin listener with --admin".to_string()
            }
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}; {}", self.address, self.cause(), self.remedy())
    }
}

/// Whether what came was no HTTP, or nothing came and the connection was closed: what listeners of other protocols do.
fn is_not_http(error: &hyper::Error) -> bool {
    error.is_parse() || error.is_incomplete_message()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_from_what_the_server_asked_for() {
        let pauses = |resume: &mut Resume| (0..6).map(|_| resume.pause().as_millis()).collect::<Vec<_>>();
        assert_eq!(pauses(&mut Resume::default()), [1000, 2000, 4000, 8000, 10_000, 10_000]);
        let mut resume = Resume { retry_ms: Some(0), ..Resume::default() };
        assert_eq!(pauses(&mut resume)[..3], [100, 200, 400]);
        let mut resume = Resume { retry_ms: Some(u64::MAX), in_vain: u32::MAX, ..Resume::default() };
        assert_eq!(pauses(&mut resume)[0], 10_000);
    }

    #[test]
    fn an_id_that_is_no_header_is_left_out() {
        let admin = Admin { address: Address::parse("[::1]:1").unwrap(), token_file: None };
        let resume = |id: &str| Resume { last_id: Some(id.to_string()), ..Resume::default() };
        let with = request(&admin, &resume("7-12")).unwrap();
        assert_eq!(with.headers()["last-event-id"], "7-12");
        assert_eq!(with.headers()[HOST], "[::1]:1");
        assert!(!request(&admin, &resume("7\x1b")).unwrap().headers().contains_key("last-event-id"));
    }
}
