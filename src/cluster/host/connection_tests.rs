use std::sync::Arc;

use super::*;
use crate::base::prng::Prng;

fn frame(channel: Channel, kind: Kind, bytes: &[u8]) -> Frame {
    Frame { channel, kind, bytes: Bytes::copy_from_slice(bytes) }
}

fn encoded(channel: u8, kind: u8, number: u64, bytes: &[u8]) -> Vec<u8> {
    let mut buffer = Vec::new();
    put_head(&mut buffer, bytes.len() as u32, channel, kind, number);
    buffer.extend(bytes);
    buffer
}

#[test]
fn frames_split_anywhere_arrive_whole() {
    let all: Vec<u8> = [
        encoded(1, MESSAGE, 0, b"vote"),
        encoded(6, REQUEST, 77, &[9; 300]),
        encoded(0, PING, 5, b""),
        encoded(1, RESPONSE, 3, b""),
    ]
    .concat();
    for cut in 0..=all.len() {
        let mut buffer = BytesMut::new();
        let mut count = 0;
        for part in [&all[..cut], &all[cut..]] {
            buffer.extend_from_slice(part);
            while let Some(arrived) = take(&mut buffer, Group::Order).unwrap() {
                count += 1;
                if let Arrived::Frame(frame) = arrived {
                    assert!(matches!(
                        (frame.kind, frame.bytes.len()),
                        (Kind::Message, 4) | (Kind::Request(77), 300) | (Kind::Response(3), 0)
                    ));
                }
            }
        }
        assert_eq!((count, buffer.len()), (4, 0), "cut at {cut}");
    }
}

#[test]
fn hostile_frames_are_refused_before_anything_is_reserved() {
    let refused = |bytes: &[u8]| take(&mut BytesMut::from(bytes), Group::Order).err();
    let mut large = encoded(1, MESSAGE, 0, b"");
    large[..4].copy_from_slice(&(limits::CLUSTER_ORDERING_BYTES_MAX as u32 + 1).to_le_bytes());
    assert_eq!(refused(&large), Some(Refusal::Oversized));
    assert_eq!(refused(&encoded(3, MESSAGE, 0, b"x")), Some(Refusal::Malformed), "another group's channel");
    assert_eq!(refused(&encoded(99, MESSAGE, 0, b"x")), Some(Refusal::Malformed));
    assert_eq!(refused(&encoded(1, 9, 0, b"x")), Some(Refusal::Malformed));
    assert_eq!(refused(&encoded(1, PING, 0, b"x")), Some(Refusal::Malformed));
    let mut random = Prng::new(11);
    for _ in 0..100_000 {
        let mut buffer = BytesMut::new();
        let length = random.below(64);
        buffer.extend((0..length).map(|_| random.next_u64() as u8));
        // Whatever it is, it ends.
        while let Ok(Some(_)) = take(&mut buffer, Group::Order) {}
    }
}

#[test]
fn a_full_queue_refuses_and_the_other_channels_go_on() {
    let peer = Peer::new(NodeId(2));
    let vote = || frame(Channel::Ordering, Kind::Message, b"vote");
    assert_eq!(peer.send(vote()), Err(NotSent::Disconnected));
    let generation = peer.outboxes[0].open();
    for _ in 0..limits::CLUSTER_OUTBOUND_MESSAGES {
        peer.send(vote()).unwrap();
    }
    assert_eq!(peer.send(vote()), Err(NotSent::Full));
    let submit = frame(Channel::Submit, Kind::Message, &[1; 1000]);
    peer.send(submit).unwrap();
    let large = frame(Channel::Submit, Kind::Message, &vec![0; limits::CLUSTER_SUBMIT_BYTES_MAX + 1]);
    assert_eq!(peer.send(large), Err(NotSent::TooLarge));
    // Channels take turns: the second frame is the other channel's.
    let mut buffer = Vec::new();
    peer.outboxes[0].fill(generation, &mut buffer).unwrap();
    assert_eq!(buffer[HEAD_BYTES + 4 + 4], Channel::Submit as u8);
    assert!(buffer.len() < limits::CLUSTER_WRITE_BYTES + 2000);
    // A later connection begins with nothing.
    let later = peer.outboxes[0].open();
    assert_eq!(peer.outboxes[0].fill(generation, &mut buffer), None);
    buffer.clear();
    assert_eq!(peer.outboxes[0].fill(later, &mut buffer), Some(0));
    assert_eq!(peer.waiting_bytes(), 0);
}

fn run(test: impl Future<Output = ()>) {
    tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(test);
}

#[test]
fn frames_cross_and_the_round_trip_is_measured() {
    run(async {
        let (left, right) = tokio::io::duplex(1 << 16);
        let (a, b) = (Arc::new(Peer::new(NodeId(2))), Arc::new(Peer::new(NodeId(1))));
        let epoch = Instant::now();
        let (say, mut heard) = tokio::sync::mpsc::channel(64);
        let one = tokio::spawn({
            let a = a.clone();
            async move { a.carry(Group::Order, left, epoch, |_| ()).await }
        });
        let two = tokio::spawn({
            let b = b.clone();
            async move { b.carry(Group::Order, right, epoch, move |frame| drop(say.try_send(frame))).await }
        });
        while !a.is_connected(Group::Order) {
            tokio::task::yield_now().await;
        }
        a.send(frame(Channel::Ordering, Kind::Message, &[5; 200_000])).unwrap();
        a.send(frame(Channel::Submit, Kind::Request(4), b"q")).unwrap();
        let first = heard.recv().await.unwrap();
        assert_eq!((first.channel, first.bytes.len()), (Channel::Ordering, 200_000));
        assert_eq!(heard.recv().await.unwrap().kind, Kind::Request(4));
        while a.round_trip_us.load(Ordering::Relaxed) == 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        // One side ends it, the other sees the end.
        a.disconnect();
        assert!(one.await.unwrap().refusal.is_none());
        assert!(two.await.unwrap().refusal.is_none());
        assert!(!b.is_connected(Group::Order));
    });
}

#[test]
fn a_peer_that_says_nothing_is_given_up() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    runtime.block_on(async {
        let (left, _right) = tokio::io::duplex(1 << 16);
        let peer = Peer::new(NodeId(2));
        let began = Instant::now();
        let end = peer.carry(Group::Region, left, began, |_| ()).await;
        assert_eq!(end.refusal, Some(Refusal::Silent), "{end:?}");
        assert!(began.elapsed() >= Duration::from_millis(limits::CLUSTER_SILENCE_MS));
    });
}

#[test]
fn a_peer_that_takes_nothing_is_given_up() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    runtime.block_on(async {
        let (left, mut right) = tokio::io::duplex(1 << 10);
        let peer = Arc::new(Peer::new(NodeId(2)));
        // It talks, so that it is not silent, and reads nothing.
        tokio::spawn(async move {
            while right.write_all(&encoded(2, MESSAGE, 0, b"x")).await.is_ok() {
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        });
        let carried = tokio::spawn({
            let peer = peer.clone();
            async move { peer.carry(Group::Region, left, Instant::now(), |_| ()).await }
        });
        while peer.send(frame(Channel::Raft, Kind::Message, &[0; 10_000])).is_err() {
            tokio::task::yield_now().await;
        }
        assert_eq!(carried.await.unwrap().refusal, Some(Refusal::Slow));
    });
}
