//! HTTP for operators: who may ask, what is answered, and how long anybody may take.
//!
//! Bounds, each against a way of keeping the listener busy: connections in all, bytes of a request's head, time to send
//! it, time to take a reply, events a reader may be behind. There are no bodies to send and only GET and HEAD to ask.
//!
//! Without a secret the listener is bound to loopback (`settle` sees to that). A page in a browser on the host could
//! still be made to ask it, by a name that its site resolves to 127.0.0.1; so without a secret `Host` must be an address or
//! `localhost`, which no foreign page can claim.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full, channel::Channel};
use hyper::body::{Body, Bytes, Incoming};
use hyper::header::{
    ACCEPT, ALLOW, AUTHORIZATION, CACHE_CONTROL, CONNECTION, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HOST, HeaderMap,
    HeaderValue, WWW_AUTHENTICATE,
};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, broadcast};
use tokio::task::{AbortHandle, yield_now};
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};
use tokio_io_timeout::TimeoutWriter;

use crate::base::limits;
use crate::observe::dashboard;
use crate::observe::exposition::Format;
use crate::serve::admin::hub::Subscription;
use crate::serve::admin::{Refusal, Served, State, all_take_turns, hlog, locked, metrics};
use crate::serve::token::Token;

/// Set when a connection is given up because its peer takes nothing.
#[derive(Clone, Default)]
struct Stalled(Arc<AtomicBool>);

/// Connections that have not asked for anything yet. When there is no room for another connection, the oldest of them
/// goes: whoever opens connections and says nothing keeps only others of its kind out. Not before there is no room: a
/// hundred readers that come in one moment are all silent until their requests have been read.
#[derive(Default)]
struct Silent {
    waiting: Mutex<VecDeque<(u64, AbortHandle)>>,
    numbers: AtomicU64,
}

impl Silent {
    fn next(&self) -> u64 {
        self.numbers.fetch_add(1, Ordering::Relaxed)
    }

    fn came(&self, number: u64, task: AbortHandle) {
        locked(&self.waiting).push_back((number, task));
    }

    /// Gives the oldest up; false if there is none.
    fn give_up_one(&self) -> bool {
        let oldest = locked(&self.waiting).pop_front();
        oldest.inspect(|(_, task)| task.abort()).is_some()
    }

    fn spoke(&self, number: u64) {
        locked(&self.waiting).retain(|(waiting, _)| *waiting != number);
    }
}

type Answer = Response<BoxBody<Bytes, Infallible>>;

/// Answers until the process ends.
pub(super) async fn serve(listener: std::net::TcpListener, state: Arc<State>) {
    let Ok(listener) = TcpListener::from_std(listener) else { return };
    tokio::spawn(keep_ticking(state.clone()));
    let connections = Arc::new(Semaphore::new(limits::ADMIN_CONNECTIONS_MAX));
    let silent = Arc::new(Silent::default());
    loop {
        let socket = match listener.accept().await {
            Ok((socket, _)) => socket,
            // Out of descriptors, say: not at once again.
            Err(_) => {
                sleep(ACCEPT_RETRY).await;
                continue;
            }
        };
        match room_for_one(&connections, &silent).await {
            Some(permit) => {
                let number = silent.next();
                let task = tokio::spawn(converse(socket, permit, (silent.clone(), number), state.clone()));
                silent.came(number, task.abort_handle());
            }
            None => {
                state.refuse(Refusal::Connections);
                // What fits a fresh socket's buffer; it is not waited for.
                let _ = socket.try_write(TOO_MANY);
            }
        }
    }
}

/// A place for another connection, at the cost of a silent one if need be.
async fn room_for_one(connections: &Arc<Semaphore>, silent: &Silent) -> Option<OwnedSemaphorePermit> {
    for attempt in 0..ROOM_ATTEMPTS {
        if let Ok(permit) = connections.clone().try_acquire_owned() {
            return Some(permit);
        }
        // First the others' turn: some may have a request to read, or have ended.
        if attempt > 0 && !silent.give_up_one() {
            return None;
        }
        yield_now().await;
    }
    None
}

/// Whatever goes wrong in one tick, the next comes.
async fn keep_ticking(state: Arc<State>) {
    loop {
        let _ = tokio::spawn(tick(state.clone())).await;
    }
}

/// Ten times a second: what has happened.
async fn tick(state: Arc<State>) {
    let mut beats = interval(Duration::from_millis(limits::ADMIN_TICK_MS));
    beats.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut shown = state.live.show_keys();
    loop {
        beats.tick().await;
        let Some(served) = state.served.get() else { continue };
        let show_keys = state.live.show_keys();
        if std::mem::replace(&mut shown, show_keys) != show_keys {
            state.hub.forget();
        }
        let sample = served.sample();
        state.hub.tick(&sample, &served.facts, served.started_unix_ms, show_keys);
    }
}

async fn converse(
    socket: TcpStream,
    _permit: OwnedSemaphorePermit,
    (silent, number): (Arc<Silent>, u64),
    state: Arc<State>,
) {
    // Events are small and should not wait for more.
    let _ = socket.set_nodelay(true);
    let mut writer = TimeoutWriter::new(socket);
    writer.set_timeout(Some(Duration::from_millis(limits::ADMIN_SEND_MS)));
    // Whether it ended because its peer took nothing: what a stream of events that ends with it is told.
    let stalled = Stalled::default();
    let answer = |mut request: Request<Incoming>| {
        let state = state.clone();
        silent.spoke(number);
        request.extensions_mut().insert(stalled.clone());
        async move { Ok::<_, Infallible>(answer(&request, &state).await) }
    };
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(Duration::from_millis(limits::ADMIN_HEAD_MS))
        .max_buf_size(limits::ADMIN_HEAD_BYTES)
        .serve_connection(TokioIo::new(Box::pin(writer)), service_fn(answer));
    // An error is the peer's: it is gone, or was too slow.
    let ended = connection.await;
    silent.spoke(number);
    if let Err(error) = ended {
        let source = std::error::Error::source(&error).and_then(|source| source.downcast_ref::<std::io::Error>());
        let is_timeout = source.is_some_and(|error| error.kind() == std::io::ErrorKind::TimedOut);
        stalled.0.store(is_timeout, Ordering::Relaxed);
    }
}

async fn answer(request: &Request<Incoming>, state: &Arc<State>) -> Answer {
    let mut answer = match refusal(request, state).await {
        Some(refused) => refused,
        None => route(request, state),
    };
    let headers = answer.headers_mut();
    headers.insert("x-content-type-options", HeaderValue::from_static("nosniff"));
    headers.entry(CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    answer
}

/// Why a request is not answered, if it is not.
async fn refusal(request: &Request<Incoming>, state: &State) -> Option<Answer> {
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        state.refuse(Refusal::Request);
        let mut answer = text(StatusCode::METHOD_NOT_ALLOWED, "GET and HEAD are answered here, nothing else\n");
        answer.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
        return Some(closing(answer));
    }
    if !request.body().is_end_stream() {
        state.refuse(Refusal::Request);
        return Some(closing(text(StatusCode::PAYLOAD_TOO_LARGE, "no request here has a body\n")));
    }
    // Probes of orchestrators cannot always send a secret, and learn nothing else here.
    if matches!(request.uri().path(), "/livez" | "/readyz") {
        return None;
    }
    match state.live.token() {
        Some(token) if !is_authorized(request.headers(), &token) => {
            let is_wrong = request.headers().contains_key(AUTHORIZATION);
            state.refuse(if is_wrong { Refusal::Token } else { Refusal::NoToken });
            if is_wrong {
                // A wrong one costs time: guessing is hopeless anyway, and should not be cheap either.
                sleep(WRONG_TOKEN_DELAY).await;
            }
            let mut answer = text(
                StatusCode::UNAUTHORIZED,
                "this listener demands the secret of its --admin-token-file: Authorization: Bearer, or as the password of Basic\n",
            );
            let challenge = HeaderValue::from_static("Basic realm=\"spinetail\", charset=\"UTF-8\"");
            answer.headers_mut().insert(WWW_AUTHENTICATE, challenge);
            Some(answer)
        }
        None if !is_local_name(request.headers()) => {
            state.refuse(Refusal::Origin);
            let reason = "without a secret this listener answers to 'localhost' or an address in Host, to nothing else; \
                          give --admin-token-file FILE to use another name\n";
            Some(text(StatusCode::FORBIDDEN, reason))
        }
        _ => None,
    }
}

fn route(request: &Request<Incoming>, state: &Arc<State>) -> Answer {
    let Some(served) = state.served.get() else {
        // Alive it is; touching memory takes a second for each 5 to 10 GiB.
        let is_probe = request.uri().path() == "/livez";
        return text(if is_probe { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE }, "starting\n");
    };
    match request.uri().path() {
        "/metrics" => {
            let accept = request.headers().get(ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or_default();
            let format = Format::accepted(accept);
            let (sample, slowest) = (served.sample(), state.hub.slowest());
            let page = metrics::page(&sample, &served.facts, &served.shared, state.figures(), slowest, format);
            typed(StatusCode::OK, format.content_type(), page)
        }
        "/events" => events(request, served, state),
        "/debug/hdr" => match hlog::log(&served.sample(), served.started_unix_ms) {
            Ok(log) => typed(StatusCode::OK, "text/plain; charset=utf-8", log),
            Err(reason) => text(StatusCode::INTERNAL_SERVER_ERROR, format!("{reason}\n")),
        },
        "/livez" => match all_take_turns(&served.shared) {
            Ok(()) => text(StatusCode::OK, "ok\n"),
            Err(reason) => text(StatusCode::SERVICE_UNAVAILABLE, format!("{reason}\n")),
        },
        "/readyz" if state.is_stopping.load(Ordering::Relaxed) => text(StatusCode::SERVICE_UNAVAILABLE, "stopping\n"),
        "/readyz" => match all_take_turns(&served.shared) {
            Ok(()) => text(StatusCode::OK, "ready\n"),
            Err(reason) => text(StatusCode::SERVICE_UNAVAILABLE, format!("{reason}\n")),
        },
        path => match dashboard::asset(path) {
            Some(asset) => {
                let mut answer = typed(StatusCode::OK, asset.content_type, asset.bytes);
                let policy = HeaderValue::from_static(dashboard::CONTENT_SECURITY_POLICY);
                answer.headers_mut().insert(CONTENT_SECURITY_POLICY, policy);
                answer.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
                answer
            }
            None => {
                state.refuse(Refusal::Request);
                text(StatusCode::NOT_FOUND, "there are /, /metrics, /events, /debug/hdr, /livez and /readyz\n")
            }
        },
    }
}

fn events(request: &Request<Incoming>, served: &Served, state: &Arc<State>) -> Answer {
    if state.hub.readers().0 >= limits::ADMIN_READERS_MAX {
        state.refuse(Refusal::Connections);
        return closing(text(StatusCode::SERVICE_UNAVAILABLE, "too many readers of events: let some share one\n"));
    }
    let last = request.headers().get("last-event-id").and_then(|value| value.to_str().ok());
    let shown = state.live.show_keys();
    let generation = state.live.generation();
    let subscription = state.hub.subscribe(last, &served.facts, served.started_unix_ms, shown);
    let (sender, body) = Channel::<Bytes, Infallible>::new(FRAMES_AHEAD);
    if request.method() == Method::GET {
        state.hub.reader_came();
        let stalled = request.extensions().get().cloned().unwrap_or_default();
        tokio::spawn(tell(subscription, sender, stalled, generation, state.clone()));
    }
    let mut answer = Response::new(body.boxed());
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    // Proxies would gather what should leave at once.
    answer.headers_mut().insert("x-accel-buffering", HeaderValue::from_static("no"));
    answer
}

/// Gives one reader its events until it goes or falls too far behind.
async fn tell(
    subscription: Subscription,
    mut sender: http_body_util::channel::Sender<Bytes, Infallible>,
    stalled: Stalled,
    generation: u64,
    state: Arc<State>,
) {
    let patience = Duration::from_millis(limits::ADMIN_SEND_MS);
    let Subscription { first, mut live } = subscription;
    let mut was_dropped = false;
    let mut missed = first.into_iter();
    // Under other settings a reader has to ask again: it may not be let in any more.
    while state.live.generation() == generation {
        let event = match missed.next() {
            Some(event) => event,
            None => match timeout(HEARTBEAT, live.recv()).await {
                Ok(Ok(event)) => event,
                Ok(Err(broadcast::error::RecvError::Lagged(_))) => {
                    was_dropped = true;
                    break;
                }
                Ok(Err(broadcast::error::RecvError::Closed)) => break,
                Err(_) => Bytes::from_static(b": nothing new\n\n"),
            },
        };
        match timeout(patience, sender.send_data(event)).await {
            Ok(Ok(())) => {}
            Ok(Err(_)) => {
                was_dropped = stalled.0.load(Ordering::Relaxed);
                break;
            }
            Err(_) => {
                was_dropped = true;
                break;
            }
        }
    }
    state.hub.reader_went(was_dropped);
}

/// Whether a request carries the secret: as a bearer's, or as the password of anybody.
fn is_authorized(headers: &HeaderMap, token: &Token) -> bool {
    let Some(given) = headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok()) else { return false };
    let Some((scheme, rest)) = given.split_once(' ') else { return false };
    if scheme.eq_ignore_ascii_case("bearer") {
        return is_same(rest.trim().as_bytes(), token.secret().as_bytes());
    }
    let decoded = STANDARD.decode(rest.trim()).unwrap_or_default();
    let password = decoded.iter().position(|&byte| byte == b':').map_or(&[][..], |at| &decoded[at + 1..]);
    scheme.eq_ignore_ascii_case("basic") && is_same(password, token.secret().as_bytes())
}

/// Compares in a time that depends on the lengths only.
fn is_same(given: &[u8], secret: &[u8]) -> bool {
    let differing = given.iter().zip(secret).fold(0, |sum, (a, b)| std::hint::black_box(sum | (a ^ b)));
    given.len() == secret.len() && differing == 0
}

/// Whether the name by which the listener was asked can only be its own.
fn is_local_name(headers: &HeaderMap) -> bool {
    // HTTP/1.0 needs none, and no browser speaks it.
    let Some(host) = headers.get(HOST) else { return true };
    let host = host.to_str().unwrap_or_default();
    let name = match host.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => host.split(':').next().unwrap_or_default(),
    };
    name.eq_ignore_ascii_case("localhost") || name.parse::<IpAddr>().is_ok()
}

fn text(status: StatusCode, text: impl Into<Bytes>) -> Answer {
    typed(status, "text/plain; charset=utf-8", text)
}

fn typed(status: StatusCode, content_type: &'static str, bytes: impl Into<Bytes>) -> Answer {
    let mut answer = Response::new(Full::new(bytes.into()).boxed());
    *answer.status_mut() = status;
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    answer
}

fn closing(mut answer: Answer) -> Answer {
    answer.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    answer
}

const TOO_MANY: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\nconnection: close\r\ncontent-type: text/plain\r\n\r\n\
    too many connections to this listener: close some, or share one reader of /events\n";
/// Looks for room before a connection is refused. One silent connection given up is room for one, as soon as its task
/// has had its turn.
const ROOM_ATTEMPTS: usize = 4;

/// Pause before accepting again after a failure.
const ACCEPT_RETRY: Duration = Duration::from_millis(100);
/// What a wrong secret costs whoever sent it.
const WRONG_TOKEN_DELAY: Duration = Duration::from_millis(200);
/// A reader that is told nothing for so long is told that.
const HEARTBEAT: Duration = Duration::from_secs(10);
/// Events that are handed to a connection ahead of its socket.
const FRAMES_AHEAD: usize = 4;

#[cfg(test)]
mod tests {
    use super::*;

    fn with(name: hyper::header::HeaderName, value: &str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(name, HeaderValue::from_str(value).unwrap());
        headers
    }

    #[test]
    fn a_name_that_a_foreign_page_could_have_is_not_answered() {
        let is_local = |host: &str| is_local_name(&with(HOST, host));
        for own in ["localhost", "LOCALHOST:7790", "127.0.0.1:7790", "[::1]:7790", "10.0.0.7"] {
            assert!(is_local(own), "{own}");
        }
        for foreign in ["evil.example:7790", "localhost.evil.example", "127.0.0.1.evil.example", "", "[x]:1"] {
            assert!(!is_local(foreign), "{foreign}");
        }
        assert!(is_local_name(&HeaderMap::new()));
    }

    #[test]
    fn secrets_are_the_same_only_whole() {
        assert!(is_same(b"0123456789abcdef", b"0123456789abcdef"));
        for other in [&b"0123456789abcdeg"[..], b"0123456789abcde", b"0123456789abcdef0", b""] {
            assert!(!is_same(other, b"0123456789abcdef"));
        }
    }
}
