//! What a sequence is set to: pure.
//!
//! A value is the pair (`last_value`, `is_called`): (5, false) gives 5 next,
//! (5, true) gives 5 + increment (`nextval_internal`, `sequence.c`).
//!
//! Invariant: a value with a margin gives a next value within the bounds: a
//! margin never uses a sequence up.

use crate::catalog::sequences::Definition;

/// `last_value` and `is_called` of a sequence.
pub(super) type Value = (i64, bool);

/// Whether `a` comes after `b` in the direction of the increment. A value that
/// has been called is after the same one that has not.
pub(super) fn is_ahead(a: Value, b: Value, increment: i64) -> bool {
    let order = if increment < 0 { b.0.cmp(&a.0) } else { a.0.cmp(&b.0) };
    order.then(a.1.cmp(&b.1)).is_gt()
}

/// A value that is ahead of another by this many calls of `nextval`, or by as
/// many as leave the next value within the bounds; and how many that are. A
/// cycling sequence at its end counts from its beginning and goes around once
/// at most.
pub(super) fn with_margin(value: Value, margin: u64, definition: &Definition) -> (Value, u64) {
    let Some(next) = next_value(value, definition) else { return (value, 0) };
    let (increment, bound) = (i128::from(definition.increment), i128::from(definition.last()));
    let room = ((bound - i128::from(next)) / increment).max(0);
    let calls = i128::from(margin).min(room);
    let distance = calls * increment;
    let moved = |from: i64| i64::try_from(i128::from(from) + distance).unwrap_or(from);
    let steps = u64::try_from(calls).unwrap_or(0);
    match (calls, i128::from(value.0) + distance) {
        (0, _) => (value, 0),
        // Around the end: the way from the last value is not the increment.
        _ if !follows(value, next, definition) => ((moved(next), false), steps),
        _ => ((moved(value.0), value.1), steps),
    }
}

/// What `nextval` gives; `None` at the end of a sequence that does not cycle.
fn next_value((last, is_called): Value, definition: &Definition) -> Option<i64> {
    if !is_called {
        return Some(last);
    }
    let next = i128::from(last) + i128::from(definition.increment);
    let (min, max) = (i128::from(definition.min), i128::from(definition.max));
    match i64::try_from(next) {
        Ok(next) if (min..=max).contains(&i128::from(next)) => Some(next),
        _ if definition.cycles => Some(definition.first()),
        _ => None,
    }
}

/// Whether the next value is the last one and the increment.
fn follows((last, is_called): Value, next: i64, definition: &Definition) -> bool {
    !is_called || last.checked_add(definition.increment) == Some(next)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ahead_follows_the_direction_of_the_increment() {
        assert!(is_ahead((2, false), (1, true), 1));
        assert!(is_ahead((1, true), (1, false), 1));
        assert!(!is_ahead((1, true), (1, true), 1));
        assert!(is_ahead((-5, true), (-4, true), -1));
        assert!(!is_ahead((-4, true), (-5, true), -2));
    }

    /// `nextval` as the server does it, once.
    fn called(value: Value, definition: &Definition) -> Option<Value> {
        next_value(value, definition).map(|next| (next, true))
    }

    fn sequence(increment: i64, min: i64, max: i64, cycles: bool) -> Definition {
        let start = if increment < 0 { max } else { min };
        Definition { kind: "bigint".to_owned(), start, increment, min, max, cache: 1, cycles }
    }

    proptest::proptest! {
        /// A margin is that many calls of nextval, for every kind of sequence.
        #[test]
        fn a_margin_is_calls_of_nextval_that_stay_within_the_bounds(
            increment in proptest::sample::select(vec![1i64, 2, 3, 7, -1, -2, -5]),
            bounds in (-20i64..20, 0i64..40), cycles: bool, position in 0i64..40, is_called: bool, margin in 0u64..60,
        ) {
            let (min, max) = (bounds.0, bounds.0 + bounds.1);
            let definition = sequence(increment, min, max, cycles);
            let value = ((min + position).min(max), is_called);
            let (found, steps) = with_margin(value, margin, &definition);
            proptest::prop_assert!(steps <= margin && (min..=max).contains(&found.0));
            let mut walked = value;
            for _ in 0..steps {
                walked = called(walked, &definition).unwrap();
            }
            // The same next value as after that many calls.
            proptest::prop_assert_eq!(called(found, &definition), called(walked, &definition));
            if steps < margin {
                // One more would have been beyond the end, or there is nothing left at all.
                let after = called(walked, &definition);
                let is_last = after.is_none_or(|(next, _)| {
                    !(min..=max).contains(&(next + increment))
                });
                proptest::prop_assert!(is_last, "cut too early: {:?} after {} of {}", walked, steps, margin);
            }
        }
    }

    #[test]
    fn a_margin_at_the_edge_of_all_numbers_does_not_overflow() {
        let up = sequence(i64::MAX, 1, i64::MAX, false);
        assert_eq!(with_margin((1, true), 5, &up), ((1, true), 0), "there is no next value to begin with");
        assert_eq!(with_margin((1, false), u64::MAX, &up), ((1, false), 0));
        let all = sequence(1, i64::MIN, i64::MAX, false);
        assert_eq!(with_margin((i64::MIN, false), u64::MAX, &all), ((i64::MAX, false), u64::MAX));
        let down = sequence(-1, i64::MIN, -1, true);
        assert_eq!(with_margin((i64::MIN, true), 3, &down), ((-4, false), 3), "it begins anew and counts from there");
    }
}
