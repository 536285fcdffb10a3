//! How a command comes to be executed, from any node.
//!
//!   submit ── sign with the node's next number ──┐
//!   an operator's, signed already ───────────────┴─> validator of this site, here or over Channel::Submit
//!                                                     │ refused: why
//!                                                     v taken
//!                                                  wait until this node has executed it; ask again now and then
//!
//! A command that was taken is kept by the validator until it is executed; if that process dies first it is lost, so
//! it is given again every second or so. Its number makes that safe: it is executed once.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::sync::{mpsc, oneshot, watch};

use crate::base::id::NodeId;
use crate::base::limits;
use crate::cluster::command::{Author, Command, Signed};
use crate::cluster::host::disk::Store;
use crate::cluster::host::keys::Key;
use crate::cluster::host::links::{Channel, Handler, Links};
use crate::cluster::host::status::Shared;
use crate::cluster::ordering::SubmitRefused;
use crate::cluster::state::State;

/// Submits commands, and waits for them. Its copies are one.
#[derive(Clone)]
pub struct Submitter {
    inner: Arc<Inner>,
}

struct Inner {
    me: NodeId,
    key: Arc<Key>,
    links: Links,
    state: watch::Receiver<Arc<State>>,
    /// To this node's own part in ordering.
    driver: mpsc::Sender<Submission>,
    store: Store,
    /// Own numbers reserved on the disk and not used yet: the next, and the last.
    numbers: Mutex<(u64, u64)>,
    executed: Recent,
    shared: Arc<Shared>,
}

/// Which commands were executed here lately, so that one that was is told from one whose number was overtaken.
/// Its copies are one.
#[derive(Clone, Default)]
pub struct Recent(Arc<Mutex<VecDeque<(Author, u64, u64)>>>);

impl Recent {
    /// A command was executed at a height.
    pub fn put(&self, author: Author, number: u64, height: u64) {
        let mut recent = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if recent.len() >= limits::CLUSTER_EXECUTED_REMEMBERED {
            recent.pop_front();
        }
        recent.push_back((author, number, height));
    }

    fn height_of(&self, signed: &Signed) -> Option<u64> {
        let recent = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let is_it = |(author, number, _): &&(Author, u64, u64)| *author == signed.author && *number == signed.number;
        recent.iter().rev().find(is_it).map(|(_, _, height)| *height)
    }
}

/// A command on its way to the ordering thread, and where the answer goes: nothing, or why it is refused.
pub struct Submission {
    /// The command.
    pub signed: Signed,
    /// Told whether it was taken.
    pub answer: oneshot::Sender<Result<(), String>>,
}

/// Why a command was not executed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SubmitError {
    /// It never will be.
    Refused(String),
    /// It was taken and not seen executed in time; it may be yet.
    Unknown,
    /// Another command of the same author with a later number was executed, and this one was not seen.
    Overtaken,
    /// No validator of this site could be reached.
    Unreachable(String),
    /// This node is ending, or its disk fails.
    Stopped(String),
}

impl Submitter {
    /// For a node.
    pub fn new(
        key: Arc<Key>,
        links: Links,
        state: watch::Receiver<Arc<State>>,
        driver: mpsc::Sender<Submission>,
        store: Store,
        executed: Recent,
        shared: Arc<Shared>,
    ) -> Submitter {
        let me = links.me;
        // An empty range: the first use reserves.
        let inner = Inner { me, key, links, state, driver, store, numbers: Mutex::new((1, 0)), executed, shared };
        Submitter { inner: Arc::new(inner) }
    }

    /// Has a command of this node executed; at which height it was seen here.
    pub async fn submit(&self, command: Command) -> Result<u64, SubmitError> {
        let network = self.inner.state.borrow().network;
        let number = self.number()?;
        let signed = self.inner.key.command(network, Author::Node(self.inner.me), number, command);
        self.submit_signed(signed).await
    }

    /// Has a command that is signed already executed; at which height it was seen here.
    pub async fn submit_signed(&self, signed: Signed) -> Result<u64, SubmitError> {
        let began = Instant::now();
        let patience = Duration::from_millis(limits::CLUSTER_SUBMIT_MS);
        let mut state = self.inner.state.clone();
        let mut is_taken = false;
        loop {
            match self.hand_over(&signed).await {
                Ok(()) => is_taken = true,
                Err(SubmitError::Unreachable(_)) if began.elapsed() < patience => {}
                // Given again, it may be refused because it was executed meanwhile: that is looked at below.
                Err(SubmitError::Refused(_)) if is_taken => {}
                Err(error) => return Err(error),
            }
            let again = tokio::time::sleep(AGAIN);
            tokio::pin!(again);
            loop {
                match self.outcome(&signed) {
                    None => {}
                    Some(Ok(height)) => {
                        self.inner.shared.decided_after(began.elapsed());
                        return Ok(height);
                    }
                    Some(Err(error)) => return Err(error),
                }
                if began.elapsed() >= patience {
                    return Err(SubmitError::Unknown);
                }
                tokio::select! {
                    changed = state.changed() => {
                        changed.map_err(|_| SubmitError::Stopped("the ordering has ended".into()))?;
                    }
                    () = &mut again => break,
                }
            }
        }
    }

    /// Answers other nodes of this site that submit here.
    pub fn handler(&self) -> Handler {
        let inner = self.inner.clone();
        Arc::new(move |_from, bytes: Bytes| {
            let inner = inner.clone();
            Box::pin(async move {
                let taken = match postcard::take_from_bytes::<Signed>(&bytes) {
                    Ok((signed, [])) => inner.to_driver(signed).await.map_err(|error| error.to_string()),
                    _ => Err("no command".to_string()),
                };
                postcard::to_allocvec(&taken).expect("plain data always encodes").into()
            })
        })
    }

    /// What has become of a command that was taken, as far as is known here.
    fn outcome(&self, signed: &Signed) -> Option<Result<u64, SubmitError>> {
        // The state first: what was executed is written down before the state that says so is shown.
        let last = self.inner.state.borrow().numbers.get(&signed.author).copied();
        if let Some(height) = self.inner.executed.height_of(signed) {
            return Some(Ok(height));
        }
        last.is_some_and(|last| last >= signed.number).then_some(Err(SubmitError::Overtaken))
    }

    /// Gives it to this node's validator, or to that of its site, or to any.
    async fn hand_over(&self, signed: &Signed) -> Result<(), SubmitError> {
        let to = {
            let state = self.inner.state.borrow();
            let site = state.site_of(self.inner.me);
            let is_mine = state.sites.values().any(|site| site.validator == self.inner.me);
            let own = site.and_then(|site| state.sites.get(&site)).map(|site| site.validator);
            let others = state.sites.values().map(|site| site.validator).filter(|node| Some(*node) != own);
            (!is_mine).then(|| own.into_iter().chain(others).collect::<Vec<_>>())
        };
        let Some(validators) = to else { return self.inner.to_driver(signed.clone()).await };
        let bytes: Bytes = postcard::to_allocvec(signed).expect("plain data always encodes").into();
        let mut last = "there is no validator".to_string();
        for node in validators {
            match self.inner.links.call(node, Channel::Submit, bytes.clone(), AGAIN).await {
                Ok(answer) => match postcard::from_bytes::<Result<(), String>>(&answer) {
                    Ok(taken) => return taken.map_err(SubmitError::Refused),
                    Err(_) => last = format!("node {node} answers rubbish"),
                },
                Err(error) => last = format!("node {node}: {error:?}"),
            }
        }
        Err(SubmitError::Unreachable(last))
    }

    /// This node's next number.
    fn number(&self) -> Result<u64, SubmitError> {
        let used = self.inner.state.borrow().numbers.get(&Author::Node(self.inner.me)).copied().unwrap_or(0);
        let mut numbers = self.inner.numbers.lock().unwrap_or_else(PoisonError::into_inner);
        let (next, last) = *numbers;
        // A folder that was lost counts from what the cluster has seen of it.
        if next > last || next <= used {
            let first =
                self.inner.store.reserve_numbers(used).map_err(|error| SubmitError::Stopped(error.to_string()))?;
            *numbers = (first, first + limits::CLUSTER_NUMBERS_RESERVED - 1);
        }
        numbers.0 += 1;
        Ok(numbers.0 - 1)
    }
}

impl Inner {
    async fn to_driver(&self, signed: Signed) -> Result<(), SubmitError> {
        let (answer, answered) = oneshot::channel();
        let stopped = || SubmitError::Stopped("the ordering has ended".into());
        match self.driver.try_send(Submission { signed, answer }) {
            Ok(()) => answered.await.map_err(|_| stopped())?.map_err(SubmitError::Refused),
            Err(mpsc::error::TrySendError::Full(_)) => Err(SubmitError::Unreachable("too many commands wait".into())),
            Err(mpsc::error::TrySendError::Closed(_)) => Err(stopped()),
        }
    }
}

/// Why a command is not taken, and who acts next.
pub fn reason(refused: &SubmitRefused) -> String {
    match refused {
        SubmitRefused::Signature => "its signature is not its author's: sign it with this cluster's key".into(),
        SubmitRefused::Right => "its author has no right to it: the operator asks for membership and policy".into(),
        SubmitRefused::Replayed => {
            "a command of that author with this or a later number was executed: ask again".into()
        }
        SubmitRefused::TooLarge => format!("it is larger than {} bytes", limits::COMMAND_BYTES_MAX),
        SubmitRefused::Full => "too many commands wait: ask again in a while".into(),
        SubmitRefused::Senseless(reason) => reason.clone(),
    }
}

/// How long before a command that was taken is given again.
const AGAIN: Duration = Duration::from_millis(1_500);

impl fmt::Display for SubmitError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SubmitError::Refused(reason) => write!(f, "refused: {reason}"),
            SubmitError::Unknown => write!(
                f,
                "not seen executed within {} s; it may be yet: look at 'cluster status' before asking again",
                limits::CLUSTER_SUBMIT_MS / 1000
            ),
            SubmitError::Overtaken => f.write_str(
                "overtaken by a later command of the same author, or executed in what this node got as a snapshot: look \
                 at 'cluster regions' before asking again",
            ),
            SubmitError::Unreachable(reason) => write!(f, "no validator can be reached: {reason}"),
            SubmitError::Stopped(reason) => f.write_str(reason),
        }
    }
}

impl std::error::Error for SubmitError {}
