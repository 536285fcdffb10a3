//! The checker against histories whose verdict is known, and against every order there is.

use super::*;
use crate::base::prng::Prng;

fn call(process: u32, action: Action, outcome: Outcome, invoked_at: u64, returned_at: u64) -> Call {
    Call { process, key: b"k".to_vec(), action, outcome, invoked_at, returned_at }
}

fn write(value: u64, invoked_at: u64, returned_at: u64) -> Call {
    call(1, Action::Write(value), Outcome::Done, invoked_at, returned_at)
}

fn read(value: Option<u64>, invoked_at: u64, returned_at: u64) -> Call {
    call(2, Action::Read, Outcome::Held(value), invoked_at, returned_at)
}

#[test]
fn concurrent_writes_may_take_either_order() {
    let history = [write(1, 0, 10), write(2, 5, 12), read(Some(1), 13, 14)];
    assert_eq!(check(&history, Model::Register), Ok(()));
    let history = [write(1, 0, 10), write(2, 5, 12), read(Some(2), 13, 14), read(Some(1), 15, 16)];
    let error = check(&history, Model::Register).expect_err("they cannot take both");
    assert_eq!(*error.call, history[3]);
}

#[test]
fn a_stale_read_is_caught_in_both_models() {
    let history = [write(1, 0, 1), write(2, 2, 3), read(Some(1), 4, 5)];
    for model in [Model::Register, Model::Cache] {
        let error = check(&history, model).expect_err("the value was overwritten");
        assert!(error.to_string().contains("Read -> Held(Some(1))"), "{error}");
    }
}

#[test]
fn a_cache_may_miss_and_a_register_may_not() {
    let history = [write(1, 0, 1), read(None, 2, 3), read(Some(1), 4, 5)];
    assert_eq!(check(&history, Model::Cache), Ok(()));
    assert!(check(&history, Model::Register).is_err());
    // Deleted is not evicted: what was deleted does not come back.
    let deleted = [write(1, 0, 1), call(1, Action::Delete, Outcome::Done, 2, 3), read(Some(1), 4, 5)];
    assert!(check(&deleted, Model::Cache).is_err());
}

#[test]
fn an_unknown_write_may_happen_late_or_never_but_not_twice() {
    let unknown = call(1, Action::Write(7), Outcome::Unknown, 2, 0);
    let late = [write(1, 0, 1), unknown.clone(), read(Some(1), 10, 11), read(Some(7), 20, 21)];
    assert_eq!(check(&late, Model::Register), Ok(()));
    let never = [write(1, 0, 1), unknown.clone(), read(Some(1), 10, 11)];
    assert_eq!(check(&never, Model::Register), Ok(()));
    let twice = [write(1, 0, 1), unknown, read(Some(7), 10, 11), write(1, 12, 13), read(Some(7), 20, 21)];
    assert!(check(&twice, Model::Register).is_err());
}

#[test]
fn compare_and_set_succeeds_once() {
    let swap = |invoked_at, swapped| {
        call(1, Action::CompareAndSet(Some(1), 2), Outcome::Swapped(swapped), invoked_at, invoked_at + 5)
    };
    let once = [write(1, 0, 1), swap(2, true), swap(3, false), read(Some(2), 20, 21)];
    assert_eq!(check(&once, Model::Register), Ok(()));
    let twice = [write(1, 0, 1), swap(2, true), swap(3, true), read(Some(2), 20, 21)];
    assert!(check(&twice, Model::Cache).is_err());
}

#[test]
fn keys_are_registers_of_their_own_and_refused_calls_say_nothing() {
    let mut other = read(None, 2, 3);
    other.key = b"other".to_vec();
    let refused = call(3, Action::Write(9), Outcome::Refused, 2, 3);
    assert_eq!(check(&[write(1, 0, 1), refused.clone(), other], Model::Register), Ok(()));
    let seen = [write(1, 0, 1), refused, read(Some(9), 4, 5)];
    assert!(check(&seen, Model::Register).is_err(), "a refused write must not be seen");
}

/// Whether some order explains a history: tries them all.
fn brute_force(calls: &[Call], model: Model) -> bool {
    fn explains(calls: &[Call], model: Model, taken: &mut Vec<bool>, held: Option<u64>) -> bool {
        let open = |index: &usize| !taken[*index] && calls[*index].outcome != Outcome::Unknown;
        let Some(first_return) = (0..calls.len()).filter(open).map(|index| calls[index].returned_at).min() else {
            return true;
        };
        for index in 0..calls.len() {
            if taken[index] || calls[index].invoked_at > first_return {
                continue;
            }
            if let Some(next) = step(model, held, calls[index].action, calls[index].outcome) {
                taken[index] = true;
                if explains(calls, model, taken, next) {
                    return true;
                }
                taken[index] = false;
            }
        }
        false
    }
    explains(calls, model, &mut vec![false; calls.len()], None)
}

/// A small history of answers drawn at random, so that about as many are explained as are not.
fn random_history(prng: &mut Prng) -> Vec<Call> {
    let count = 2 + prng.below(6);
    let some = |prng: &mut Prng| (prng.below(3) > 0).then(|| prng.below(3));
    (0..count)
        .map(|process| {
            let action = match prng.below(5) {
                0 | 1 => Action::Read,
                2 => Action::Write(prng.below(3)),
                3 => Action::CompareAndSet(some(prng), prng.below(3)),
                _ => Action::Delete,
            };
            let outcome = match action {
                Action::Read => Outcome::Held(some(prng)),
                _ if prng.below(5) == 0 => Outcome::Unknown,
                Action::CompareAndSet(..) => Outcome::Swapped(prng.below(2) == 0),
                _ => Outcome::Done,
            };
            let invoked_at = prng.below(12);
            call(process as u32, action, outcome, invoked_at, invoked_at + 1 + prng.below(8))
        })
        .collect()
}

#[test]
fn the_search_agrees_with_brute_force() {
    let mut prng = Prng::new(9);
    let mut verdicts = [0u32; 2];
    for _ in 0..20_000 {
        let history = random_history(&mut prng);
        for model in [Model::Register, Model::Cache] {
            let linear = brute_force(&history, model);
            assert_eq!(check(&history, model).is_ok(), linear, "{model:?} {history:#?}");
            verdicts[usize::from(linear)] += 1;
        }
    }
    assert!(verdicts.iter().all(|&count| count > 5_000), "both verdicts are tried: {verdicts:?}");
}

/// A history recorded from a true register by many processes, each call taking effect inside its interval.
fn recorded(prng: &mut Prng, calls: usize, processes: u32) -> Vec<Call> {
    let mut busy_until = vec![0u64; processes as usize];
    let mut planned: Vec<(u64, u64, u64, u32, Action)> = Vec::new();
    for value in 0..calls as u64 {
        let process = prng.below(u64::from(processes)) as u32;
        let invoked_at = busy_until[process as usize] + 1 + prng.below(20);
        let effect_at = invoked_at + prng.below(40);
        let returned_at = effect_at + prng.below(40);
        busy_until[process as usize] = returned_at;
        let action = match prng.below(4) {
            0 => Action::Write(value),
            1 => Action::CompareAndSet(value.checked_sub(3), value),
            _ => Action::Read,
        };
        planned.push((effect_at, invoked_at, returned_at, process, action));
    }
    planned.sort_by_key(|&(effect_at, ..)| effect_at);
    let mut held = None;
    planned
        .into_iter()
        .map(|(_, invoked_at, returned_at, process, action)| {
            let outcome = match action {
                Action::Read => Outcome::Held(held),
                Action::Write(value) => {
                    held = Some(value);
                    Outcome::Done
                }
                Action::CompareAndSet(expected, value) => {
                    let swapped = expected == held;
                    held = if swapped { Some(value) } else { held };
                    Outcome::Swapped(swapped)
                }
                Action::Delete => Outcome::Done,
            };
            call(process, action, outcome, invoked_at, returned_at)
        })
        .collect()
}

#[test]
fn a_long_true_history_passes_and_one_planted_stale_read_is_caught() {
    let mut prng = Prng::new(4);
    for round in 0..5 {
        let mut history = recorded(&mut prng, 1_000, 8);
        assert_eq!(check(&history, Model::Register), Ok(()), "round {round}");
        assert_eq!(check(&history, Model::Cache), Ok(()), "round {round}");
        // The value of a write that had returned before another one began, read after that one returned.
        let last = history.iter().map(|call| call.returned_at).max().unwrap();
        let old = history.iter().find_map(|call| match call.action {
            Action::Write(value) => Some(value),
            _ => None,
        });
        history.push(write(1 << 40, last + 1, last + 2));
        history.push(call(9, Action::Read, Outcome::Held(old), last + 3, last + 4));
        for model in [Model::Register, Model::Cache] {
            let error = check(&history, model).expect_err("it was planted");
            assert_eq!(*error.call, history[history.len() - 1], "round {round}");
        }
    }
}
