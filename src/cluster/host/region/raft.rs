//! Raft's messages between the voters of a region, and the region's own beside them on the same channel.
//!
//! openraft calls [`Network`] for what it has to say; what arrives goes to [`answer`]. A message that says it is from
//! another node than the link knows is refused, and so is one that no honest openraft would send: its core checks such
//! things by assertion.

use std::time::Duration;

use bytes::Bytes;
use openraft::error::{InstallSnapshotError, NetworkError, RPCError, RaftError, RemoteError, Unreachable};
use openraft::network::{Backoff, RPCOption};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, InstallSnapshotRequest, InstallSnapshotResponse, VoteRequest,
    VoteResponse,
};
use openraft::{AnyError, EmptyNode, LogId, RaftNetwork, RaftNetworkFactory};
use serde::{Deserialize, Serialize};

use crate::base::id::NodeId;
use crate::cluster::host::links::{CallError, Channel, Links};
use crate::cluster::host::region::Shared;
use crate::cluster::host::region::store::TypeConfig;

/// What voters ask each other.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum RaftAsk {
    /// Raft: entries of the log.
    Append(AppendEntriesRequest<TypeConfig>),
    /// Raft: a vote.
    Vote(VoteRequest<u64>),
    /// Raft: a piece of a snapshot.
    Snapshot(InstallSnapshotRequest<TypeConfig>),
    /// The leader of this term asks for a promise to vote for nobody else for a while; see `region::lease`.
    Promise {
        /// Its term.
        term: u64,
    },
    /// Would you vote for me? Asked before standing, so that a node that was away deposes nobody.
    WouldVote {
        /// The end of the asker's log.
        last: Option<LogId<u64>>,
    },
    /// A lease for the homes the asker holds.
    Renew {
        /// Homes in which it has everything, with their tokens, where earlier sets of voters were asked.
        settled: Vec<(u8, u64)>,
        /// Homes it holds and cannot serve under these tokens any more: it was started anew since, or has let go of them.
        unable: Vec<(u8, u64)>,
    },
    /// Have you ever been part of this region?
    IsFounded,
}

/// What is answered.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum RaftSay {
    /// To entries.
    Append(Result<AppendEntriesResponse<u64>, RaftError<u64>>),
    /// To a vote.
    Vote(Result<VoteResponse<u64>, RaftError<u64>>),
    /// To a piece of a snapshot.
    Snapshot(Result<InstallSnapshotResponse<u64>, RaftError<u64, InstallSnapshotError>>),
    /// Yes: promised, would vote, is founded.
    Yes,
    /// No.
    No,
    /// A lease.
    Lease {
        /// What is left of the leader's assurance.
        left_us: u64,
        /// Homes of the asker, with their tokens.
        homes: Vec<(u8, u64)>,
    },
}

/// openraft's way to other nodes.
#[derive(Clone)]
pub(super) struct Network {
    pub(super) links: Links,
    pub(super) backoff: Duration,
}

/// openraft's way to one of them.
pub(super) struct Peer {
    node: NodeId,
    links: Links,
    backoff: Duration,
}

impl RaftNetworkFactory<TypeConfig> for Network {
    type Network = Peer;

    async fn new_client(&mut self, target: u64, _: &EmptyNode) -> Peer {
        // A number that is none of ours reaches nobody.
        let node = NodeId(u16::try_from(target).unwrap_or(u16::MAX));
        Peer { node, links: self.links.clone(), backoff: self.backoff }
    }
}

type Failed<E> = RPCError<u64, EmptyNode, E>;

impl Peer {
    async fn ask<E: std::error::Error>(&self, question: RaftAsk, option: RPCOption) -> Result<RaftSay, Failed<E>> {
        let answer = ask(&self.links, self.node, &question, option.hard_ttl()).await;
        answer.map_err(|error| match error {
            CallError::NotSent(why) => Unreachable::from(AnyError::error(why.to_string())).into(),
            CallError::Timeout | CallError::Busy => strange("no answer").into(),
        })
    }

    fn remote<E: std::error::Error>(&self, error: E) -> Failed<E> {
        RemoteError::new(u64::from(self.node.0), error).into()
    }
}

impl RaftNetwork<TypeConfig> for Peer {
    async fn append_entries(
        &mut self,
        rpc: AppendEntriesRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<AppendEntriesResponse<u64>, Failed<RaftError<u64>>> {
        match self.ask(RaftAsk::Append(rpc), option).await? {
            RaftSay::Append(answer) => answer.map_err(|error| self.remote(error)),
            _ => Err(strange("another answer than was asked for").into()),
        }
    }

    async fn install_snapshot(
        &mut self,
        rpc: InstallSnapshotRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<InstallSnapshotResponse<u64>, Failed<RaftError<u64, InstallSnapshotError>>> {
        match self.ask(RaftAsk::Snapshot(rpc), option).await? {
            RaftSay::Snapshot(answer) => answer.map_err(|error| self.remote(error)),
            _ => Err(strange("another answer than was asked for").into()),
        }
    }

    async fn vote(
        &mut self,
        rpc: VoteRequest<u64>,
        option: RPCOption,
    ) -> Result<VoteResponse<u64>, Failed<RaftError<u64>>> {
        match self.ask(RaftAsk::Vote(rpc), option).await? {
            RaftSay::Vote(answer) => answer.map_err(|error| self.remote(error)),
            _ => Err(strange("another answer than was asked for").into()),
        }
    }

    fn backoff(&self) -> Backoff {
        // openraft's own is half a second, in which a node that is back would hear no leader.
        Backoff::new(std::iter::repeat(self.backoff))
    }
}

/// Asks a voter something.
pub(super) async fn ask(
    links: &Links,
    node: NodeId,
    question: &RaftAsk,
    deadline: Duration,
) -> Result<RaftSay, CallError> {
    let bytes = postcard::to_allocvec(question).expect("plain data always encodes");
    let answer = links.call(node, Channel::Raft, bytes.into(), deadline).await?;
    // An answer that is none, as from a node that refuses us, is as good as no answer.
    postcard::from_bytes(&answer).map_err(|_| CallError::Timeout)
}

/// Answers a question; with nothing, if it is none that this node may be asked.
pub(super) async fn answer(shared: &Shared, from: NodeId, bytes: &[u8]) -> Bytes {
    let Ok(question) = postcard::from_bytes::<RaftAsk>(bytes) else {
        shared.counters.bad_messages();
        return Bytes::new();
    };
    if !shared.is_of_region(from) {
        shared.counters.strangers();
        return Bytes::new();
    }
    let answer = match question {
        RaftAsk::Append(rpc) if rpc.vote.leader_id.node_id == u64::from(from.0) && is_consecutive(&rpc) => {
            RaftSay::Append(shared.raft.append_entries(rpc).await)
        }
        RaftAsk::Snapshot(rpc) if rpc.vote.leader_id.node_id == u64::from(from.0) => {
            RaftSay::Snapshot(shared.raft.install_snapshot(rpc).await)
        }
        RaftAsk::Vote(rpc) if rpc.vote.leader_id.node_id == u64::from(from.0) => RaftSay::Vote(shared.vote(rpc).await),
        RaftAsk::Append(_) | RaftAsk::Snapshot(_) | RaftAsk::Vote(_) => {
            shared.counters.bad_messages();
            return Bytes::new();
        }
        RaftAsk::Promise { term } => yes(shared.promise(from, term).await),
        RaftAsk::WouldVote { last } => yes(shared.would_vote(last).await),
        RaftAsk::Renew { settled, unable } => shared.lease_for(from, &settled, &unable),
        RaftAsk::IsFounded => yes(shared.raft.is_initialized().await.unwrap_or(true)),
    };
    postcard::to_allocvec(&answer).expect("plain data always encodes").into()
}

fn yes(is_so: bool) -> RaftSay {
    if is_so { RaftSay::Yes } else { RaftSay::No }
}

fn is_consecutive(rpc: &AppendEntriesRequest<TypeConfig>) -> bool {
    let first = rpc.prev_log_id.map_or(0, |id| id.index.saturating_add(1));
    rpc.entries.iter().zip(first..).all(|(entry, index)| entry.log_id.index == index)
}

fn strange(what: &str) -> NetworkError {
    NetworkError::from(AnyError::error(what))
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use openraft::error::{Fatal, SnapshotMismatch};
    use openraft::{
        CommittedLeaderId, Entry, EntryPayload, Membership, SnapshotMeta, SnapshotSegmentId, StoredMembership, Vote,
    };

    use super::*;
    use crate::cluster::region::RegionCommand;

    fn id(index: u64) -> LogId<u64> {
        LogId::new(CommittedLeaderId::new(3, 2), index)
    }

    fn survives<T: Serialize + for<'a> Deserialize<'a> + std::fmt::Debug>(message: &T) {
        let bytes = postcard::to_allocvec(message).unwrap();
        let read: T = postcard::from_bytes(&bytes).unwrap();
        assert_eq!(format!("{read:?}"), format!("{message:?}"));
        for length in 0..bytes.len() {
            let _ = postcard::from_bytes::<T>(&bytes[..length]);
        }
    }

    fn append(indices: &[u64]) -> AppendEntriesRequest<TypeConfig> {
        let voters = BTreeSet::from([1, 2, 3]);
        let nodes: BTreeMap<u64, EmptyNode> = voters.iter().map(|node| (*node, EmptyNode {})).collect();
        let payloads = [
            EntryPayload::Blank,
            EntryPayload::Normal(RegionCommand::Settled { homes: vec![(1, 2)] }),
            EntryPayload::Membership(Membership::new(vec![voters], nodes)),
        ];
        let entries = indices.iter().zip(payloads).map(|(index, payload)| Entry { log_id: id(*index), payload });
        AppendEntriesRequest {
            vote: Vote::new_committed(3, 2),
            prev_log_id: Some(id(6)),
            entries: entries.collect(),
            leader_commit: Some(id(5)),
        }
    }

    #[test]
    fn every_message_of_raft_survives_its_encoding_and_a_part_of_one_is_an_error() {
        survives(&RaftAsk::Append(append(&[7, 8, 9])));
        survives(&RaftAsk::Vote(VoteRequest::new(Vote::new(4, 1), Some(id(9)))));
        let meta = SnapshotMeta {
            last_log_id: Some(id(9)),
            last_membership: StoredMembership::default(),
            snapshot_id: "9-1".into(),
        };
        let (vote, data) = (Vote::new_committed(3, 2), vec![1, 2, 3]);
        survives(&RaftAsk::Snapshot(InstallSnapshotRequest { vote, meta, offset: 4, data, done: true }));
        survives(&RaftSay::Append(Ok(AppendEntriesResponse::PartialSuccess(Some(id(8))))));
        survives(&RaftSay::Append(Ok(AppendEntriesResponse::HigherVote(Vote::new(9, 1)))));
        survives(&RaftSay::Append(Err(RaftError::Fatal(Fatal::Stopped))));
        survives(&RaftSay::Vote(Ok(VoteResponse { vote, vote_granted: true, last_log_id: Some(id(9)) })));
        let segment = |offset| SnapshotSegmentId { id: "9-1".into(), offset };
        let mismatch = SnapshotMismatch { expect: segment(0), got: segment(4) };
        survives(&RaftSay::Snapshot(Err(RaftError::APIError(InstallSnapshotError::SnapshotMismatch(mismatch)))));
    }

    #[test]
    fn entries_with_a_hole_are_not_handed_to_openraft() {
        assert!(is_consecutive(&append(&[7, 8, 9])) && is_consecutive(&append(&[])));
        assert!(!is_consecutive(&append(&[8])) && !is_consecutive(&append(&[7, 9])));
    }
}
