//! The sequence locks of L0 under loom: a reader against the publisher, in every order that the memory model
//! allows with up to three preemptions. It runs the code that ships, over words of the checker's own.
//!
//!   publisher   prepares | does something … acknowledges |
//!   reader               | was it acknowledged? reads …  |   what it gets, of all orders: a set of outcomes
//!
//! Each test names the whole set. So it fails when a reader gets what it must not, and also when the model no
//! longer reaches what it should: a check that sees too little fails like a broken lock. Planted bugs, fences
//! that do nothing and acknowledgements that come too early, show up in the sets as well.

use std::cell::Cell;
use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};

use loom::sync::atomic::{AtomicBool, AtomicU64, Ordering, fence};
use spinetail::base::hash::KeyHash;
use spinetail::base::limits;
use spinetail::l0::word::Word;
use spinetail::l0::{Entry, Publisher, Region, Shape};

/// A word that the model checker watches, or one that holds zero throughout. Every watched word multiplies what
/// a reader may see, and a region has hundreds of words that these tests never give another value.
enum Watched<const ACQUIRES: bool, const RELEASES: bool> {
    Atomic(AtomicU64),
    Zero,
}

type Fenced = Watched<true, true>;

impl<const ACQUIRES: bool, const RELEASES: bool> Word for Watched<ACQUIRES, RELEASES> {
    fn load(&self) -> u64 {
        match self {
            Watched::Atomic(word) => word.load(Ordering::Relaxed),
            Watched::Zero => 0,
        }
    }

    fn store(&self, value: u64) {
        match self {
            Watched::Atomic(word) => word.store(value, Ordering::Relaxed),
            Watched::Zero => assert_eq!(value, 0, "this word should be watched"),
        }
    }

    fn acquire() {
        if ACQUIRES {
            fence(Ordering::Acquire);
        }
    }

    fn release() {
        if RELEASES {
            fence(Ordering::Release);
        }
    }

    fn pause() {
        loom::thread::yield_now();
    }
}

/// What a reader gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Got {
    Nothing,
    /// A whole value: its letter.
    Whole(char),
    /// The same, but it expires when LATER says.
    Touched(char),
    Torn,
}

/// Whether the publisher had acknowledged what it did before the reader looked, and what the reader got.
type Outcome = (When, Got);

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum When {
    Before,
    After,
}

use Got::{Nothing, Torn, Touched, Whole};
use When::{After, Before};

/// The publisher's part of a test.
type Part<W> = fn(&mut Publisher<'_, W>);

/// Every outcome of reading KEY while the publisher, after `prepare`, does `change` and acknowledges it.
fn outcomes<const ACQUIRES: bool, const RELEASES: bool>(
    prepare: Part<Watched<ACQUIRES, RELEASES>>,
    change: Part<Watched<ACQUIRES, RELEASES>>,
    order: Order,
) -> BTreeSet<Outcome> {
    let all = Arc::new(Mutex::new(BTreeSet::new()));
    let kept = all.clone();
    let mut model = loom::model::Builder::new();
    model.preemption_bound = Some(PREEMPTIONS_MAX);
    model.check(move || {
        let word = |at: usize| match is_watched(at) {
            true => Watched::<ACQUIRES, RELEASES>::Atomic(AtomicU64::new(0)),
            false => Watched::Zero,
        };
        let words: Arc<Vec<_>> = Arc::new((0..SHAPE.words()).map(word).collect());
        let acknowledged = Arc::new(AtomicBool::new(false));
        let mut publisher = Publisher::new(Region::new(&words, SHAPE));
        prepare(&mut publisher);
        let reader = {
            let (words, acknowledged, all) = (words.clone(), acknowledged.clone(), kept.clone());
            loom::thread::spawn(move || {
                let when = if acknowledged.load(Ordering::Acquire) { After } else { Before };
                let got = read(Region::new(&words, SHAPE));
                all.lock().unwrap().insert((when, got));
            })
        };
        if order == Order::AcknowledgesFirst {
            acknowledged.store(true, Ordering::Release);
        }
        change(&mut publisher);
        acknowledged.store(true, Ordering::Release);
        reader.join().unwrap();
        publisher.verify(|_| HASH);
    });
    Arc::into_inner(all).map_or_else(|| panic!("the model has ended"), |all| all.into_inner().unwrap())
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Order {
    AcknowledgesLast,
    /// A planted bug.
    AcknowledgesFirst,
}

fn read<W: Word>(region: Region<'_, W>) -> Got {
    let mut out = [0; limits::L0_SPILL_WORDS];
    let expires = Cell::new(0);
    let is_over = |at| {
        expires.set(at);
        false
    };
    let Some(found) = region.read(HASH, KEY, &mut out, is_over) else { return Nothing };
    let [first, .., last] = &out[..found.value_bytes / 8] else { panic!("values here are of two words at least") };
    let letter = *first as u8 as char;
    // Long values and short ones have letters of their own, so lengths of one with bytes of another show too.
    let is_whole = first == last && letter.is_ascii_lowercase() == (found.value_bytes == SHORT);
    match (is_whole, expires.get()) {
        (true, LATER) => Touched(letter),
        (true, at) if at == u64::from(letter) => Whole(letter),
        _ => Torn,
    }
}

/// A value: a letter at its front and its end, zeros between, where nothing is watched. Small letters have
/// short ones, which fit a slot. It expires when its letter says, so that a life of another value shows.
fn value(letter: char) -> Vec<u8> {
    let length = if letter.is_ascii_lowercase() { SHORT } else { LONG };
    let mut bytes = vec![0; length];
    (bytes[0], bytes[length - 8]) = (letter as u8, letter as u8);
    bytes
}

fn publish<W: Word>(publisher: &mut Publisher<'_, W>, key: &[u8], letter: char) {
    let entry = Entry { key, hash: HASH, value: &value(letter), expires_ms: letter.into() };
    assert!(publisher.publish(&entry, |_| 1.0));
}

fn rewrite<W: Word>(publisher: &mut Publisher<'_, W>, letter: char) {
    publisher.written(&Entry { key: KEY, hash: HASH, value: &value(letter), expires_ms: letter.into() });
}

fn remove<W: Word>(publisher: &mut Publisher<'_, W>) {
    publisher.removed(HASH, KEY);
}

fn set<const COUNT: usize>(outcomes: [Outcome; COUNT]) -> BTreeSet<Outcome> {
    outcomes.into()
}

#[test]
fn a_rewritten_value_is_read_whole_and_never_after_it_was_replaced() {
    let seen = outcomes::<true, true>(|p| publish(p, KEY, 'a'), |p| rewrite(p, 'b'), Order::AcknowledgesLast);
    assert_eq!(seen, set([(Before, Whole('a')), (Before, Whole('b')), (After, Whole('b'))]));
}

#[test]
fn a_slot_given_to_another_key_shows_a_reader_of_the_first_nothing_foreign() {
    let change: Part<Fenced> = |p| {
        remove(p);
        publish(p, OTHER, 'b');
    };
    let seen = outcomes(|p| publish(p, KEY, 'a'), change, Order::AcknowledgesLast);
    assert_eq!(seen, set([(Before, Nothing), (Before, Whole('a')), (After, Nothing)]));
    // And a reader of the second, who comes upon the slot while it is the first one's.
    let change: Part<Fenced> = |p| {
        p.removed(HASH, OTHER);
        publish(p, KEY, 'b');
    };
    let seen = outcomes(|p| publish(p, OTHER, 'a'), change, Order::AcknowledgesLast);
    assert_eq!(seen, set([(Before, Nothing), (Before, Whole('b')), (After, Whole('b'))]));
}

#[test]
fn a_spill_cell_given_back_shows_its_next_owners_bytes_to_nobody_else() {
    // The region has one cell. Its owner gets a value that needs none, and another slot takes the cell …
    let change: Part<Fenced> = |p| {
        rewrite(p, 'b');
        publish(p, OTHER, 'C');
    };
    let seen = outcomes(|p| publish(p, KEY, 'A'), change, Order::AcknowledgesLast);
    assert_eq!(seen, set([(Before, Whole('A')), (Before, Whole('b')), (After, Whole('b'))]));
    // … or goes altogether, and the same slot takes it.
    let change: Part<Fenced> = |p| {
        remove(p);
        publish(p, OTHER, 'C');
    };
    let seen = outcomes(|p| publish(p, KEY, 'A'), change, Order::AcknowledgesLast);
    assert_eq!(seen, set([(Before, Nothing), (Before, Whole('A')), (After, Nothing)]));
}

#[test]
fn what_was_removed_or_flushed_is_not_read_once_that_is_acknowledged() {
    let gone = set([(Before, Nothing), (Before, Whole('a')), (After, Nothing)]);
    let prepare: Part<Fenced> = |p| publish(p, KEY, 'a');
    assert_eq!(outcomes(prepare, remove, Order::AcknowledgesLast), gone);
    assert_eq!(outcomes(prepare, |p| p.flushed(), Order::AcknowledgesLast), gone);
    // Published anew after a flush, beside or over what the flush has left.
    let change: Part<Fenced> = |p| {
        p.flushed();
        publish(p, KEY, 'b');
    };
    let anew = set([(Before, Nothing), (Before, Whole('a')), (Before, Whole('b')), (After, Whole('b'))]);
    assert_eq!(outcomes(prepare, change, Order::AcknowledgesLast), anew);
}

#[test]
fn a_touched_expiry_comes_with_the_value_it_was_given_to() {
    let touch: Part<Fenced> = |p| p.touched(HASH, KEY, LATER);
    let seen = outcomes(|p| publish(p, KEY, 'a'), touch, Order::AcknowledgesLast);
    assert_eq!(seen, set([(Before, Whole('a')), (Before, Touched('a')), (After, Touched('a'))]));
    // Rewritten before it is touched: nobody sees the older value live longer.
    let change: Part<Fenced> = |p| {
        rewrite(p, 'b');
        p.touched(HASH, KEY, LATER);
    };
    let seen = outcomes(|p| publish(p, KEY, 'a'), change, Order::AcknowledgesLast);
    let both = [(Before, Whole('a')), (Before, Whole('b')), (Before, Touched('b')), (After, Touched('b'))];
    assert_eq!(seen, set(both));
}

// --- Planted bugs: what the sets above would show if the code were wrong -----------------------

#[test]
fn a_lock_whose_fences_do_nothing_is_caught() {
    let none = outcomes::<false, false>(|p| publish(p, KEY, 'a'), |p| rewrite(p, 'b'), Order::AcknowledgesLast);
    assert!(none.contains(&(Before, Torn)), "{none:?}");
    // Either side needs its own.
    let reader = outcomes::<false, true>(|p| publish(p, KEY, 'a'), |p| rewrite(p, 'b'), Order::AcknowledgesLast);
    assert!(reader.contains(&(Before, Torn)), "{reader:?}");
    let writer = outcomes::<true, false>(|p| publish(p, KEY, 'a'), |p| rewrite(p, 'b'), Order::AcknowledgesLast);
    assert!(writer.contains(&(Before, Torn)), "{writer:?}");
}

#[test]
fn a_publisher_that_acknowledges_before_it_clears_is_caught() {
    let stale = (After, Whole('a'));
    let prepare: Part<Fenced> = |p| publish(p, KEY, 'a');
    let changes: [Part<Fenced>; 3] = [remove, |p| p.flushed(), |p| rewrite(p, 'b')];
    for change in changes {
        let seen = outcomes(prepare, change, Order::AcknowledgesFirst);
        assert!(seen.contains(&stale), "{seen:?}");
    }
}

/// Every key is at home in the first slot.
const SHAPE: Shape = Shape { home_count: 1, spill_count: 1 };
const HASH: KeyHash = KeyHash(0);
const KEY: &[u8] = b"the-key.";
const OTHER: &[u8] = b"another.";
/// Bytes of a value that fits a slot, and of one that does not.
const SHORT: usize = 16;
const LONG: usize = (limits::L0_SLOT_WORDS - 2) * 8;
/// An expiry that is no letter's.
const LATER: u64 = 1000;
/// Preemptions in one order. Bugs of locks like this one show with two.
const PREEMPTIONS_MAX: usize = 3;

/// The epoch; head, life, key and two words of value in the first two slots; both ends of a long value in the
/// one spill cell.
fn is_watched(at: usize) -> bool {
    let slots = spinetail::l0::table::STATE_WORDS;
    let slot_words = limits::L0_SLOT_WORDS;
    let spill = slots + SHAPE.slot_count() * slot_words;
    at == 0
        || (slots..slots + 2 * slot_words).contains(&at) && (at - slots) % slot_words < 5
        || at == spill
        || at == spill + LONG / 8 - 1
}
