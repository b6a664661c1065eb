//! What has changed since a snapshot, by the transaction id that wrote a row.
//! Pure.
//!
//! Invariant: a row that is visible now and was not visible in the snapshot
//! that a [`Bound`] stands for is in its [`Changed`]; others may be, too, and
//! cost a transfer.
//!
//! Why: a snapshot sees everything that had committed, and everything below its
//! xmin had ended. A row that it does not see was written by a transaction with
//! an id at or above that xmin, or by a subtransaction, whose id is above that
//! of its transaction. A snapshot's own test (`pg_visible_in_snapshot`) would not
//! do, since snapshots hold top-level ids only. Rows keep 32 bits of the id, also
//! when they are frozen (`HeapTupleHeaderGetRawXmin` in
//! `src/include/access/htup_details.h`): an old one may look new, never the
//! other way round while fewer than 2³² ids have been given out in between.

/// Transaction ids of 32 bits there are.
const XIDS: u64 = 1 << 32;

/// The xmin of a snapshot, with its epoch: everything below had ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Bound(u64);

impl Bound {
    /// As the server and the state have it.
    pub fn new(xmin: i64) -> Self {
        Bound(u64::try_from(xmin).unwrap_or(0))
    }

    /// As the state keeps it.
    pub fn get(self) -> i64 {
        i64::try_from(self.0).unwrap_or(i64::MAX)
    }

    /// What has changed since, where no id at or above `next` has been seen.
    pub fn changed_before(self, next: u64) -> Changed {
        match next.checked_sub(self.0) {
            Some(span) if span < XIDS => Changed::Since { low: low(self.0), span: low(span) },
            // So many that the 32 bits say nothing any more, or a counter that
            // has been set back.
            Some(_) | None => Changed::Everything,
        }
    }
}

/// The lower 32 bits.
fn low(full: u64) -> u32 {
    u32::try_from(full % XIDS).unwrap_or(0)
}

/// Which rows count as changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Changed {
    /// All of them.
    Everything,
    /// Those whose id is one of the `span` ids from `low` on, modulo 2³².
    Since {
        /// The bound's lower half.
        low: u32,
        /// How many ids.
        span: u32,
    },
}

impl Changed {
    /// Whether a row with this xmin counts as changed: the rule that
    /// [`Changed::sql`] writes down, for the tests of it.
    #[cfg(test)]
    fn includes(self, xmin: u32) -> bool {
        match self {
            Changed::Everything => true,
            Changed::Since { low, span } => xmin.wrapping_sub(low) < span,
        }
    }

    /// The same as a condition on a column of type xid, which has no order and
    /// no arithmetic.
    pub fn sql(self, xmin: &str) -> String {
        match self {
            Changed::Everything => "true".to_owned(),
            Changed::Since { low, span } => {
                format!("(({xmin}::text::bigint - {low} + {XIDS}) % {XIDS} < {span})")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::sweep::testing::{Pair, SUPERUSER};

    #[test]
    fn what_was_written_since_counts_as_changed_and_what_is_older_does_not() {
        let changed = Bound::new(1000).changed_before(1010);
        let found: Vec<u32> = (990..1020).filter(|xid| changed.includes(*xid)).collect();
        assert_eq!(found, (1000..1010).collect::<Vec<_>>());
        assert!(!changed.includes(2), "frozen before 9.4");
        // Nothing was written since: the next id is still the bound.
        assert!((0..5000).all(|xid| !Bound::new(1000).changed_before(1000).includes(xid)));
    }

    #[test]
    fn the_window_goes_over_the_edge_of_32_bits() {
        let edge = XIDS * 3;
        let changed = Bound::new(i64::try_from(edge - 5).unwrap()).changed_before(edge + 10);
        for (xid, is_changed) in
            [(u32::MAX - 5, false), (u32::MAX - 4, true), (u32::MAX, true), (3, true), (9, true), (10, false)]
        {
            assert_eq!(changed.includes(xid), is_changed, "{xid}");
        }
    }

    #[test]
    fn a_whole_round_or_a_counter_that_was_set_back_makes_everything_changed() {
        assert_eq!(Bound::new(700).changed_before(700 + XIDS), Changed::Everything);
        assert_ne!(Bound::new(700).changed_before(699 + XIDS), Changed::Everything);
        assert_eq!(Bound::new(700).changed_before(699), Changed::Everything);
        assert_eq!(Bound::new(-1).get(), 0);
    }

    proptest! {
        /// Ids as the server gives them out, full, and what rows keep of them.
        #[test]
        fn no_row_since_the_bound_is_ever_missed(xmin in 3_u64..(1 << 40), span in 0_u64..(XIDS * 2), at in 0_u64..(XIDS * 2)) {
            let next = xmin + span;
            let changed = Bound::new(i64::try_from(xmin).unwrap()).changed_before(next);
            let writer = xmin + at;
            prop_assert!(writer >= next || changed.includes(low(writer)), "missed {writer}");
        }

        /// Within one round before it nothing counts that is older.
        #[test]
        fn no_row_of_the_round_before_is_taken_for_a_new_one(xmin in XIDS..(1 << 40), span in 0..XIDS, back in 1..XIDS) {
            prop_assume!(span + back <= XIDS);
            let changed = Bound::new(i64::try_from(xmin).unwrap()).changed_before(xmin + span);
            prop_assert!(!changed.includes(low(xmin - back)), "{} is older", xmin - back);
        }
    }

    #[tokio::test]
    async fn the_server_applies_the_same_rule() {
        let pair = Pair::new().await;
        let source = pair.source(SUPERUSER).await;
        let xids: Vec<u32> = vec![2, 3, 9, 10, 700, 709, 710, 1 << 31, u32::MAX - 5, u32::MAX - 4, u32::MAX];
        let texts: Vec<String> = xids.iter().map(u32::to_string).collect();
        for (xmin, next) in
            [(700, 710), (XIDS - 5, XIDS + 10), (2 * XIDS - 5, 2 * XIDS + 10), (700, 700), (3, 3 + XIDS)]
        {
            let changed = Bound::new(i64::try_from(xmin).unwrap()).changed_before(next);
            let sql = format!(
                "SELECT {} FROM unnest($1::text[]) t, LATERAL (SELECT t::xid) x (xmin_)",
                changed.sql("x.xmin_")
            );
            let rows = source.query(&sql, &[&texts]).await.unwrap();
            let said: Vec<bool> = rows.iter().map(|row| row.get(0)).collect();
            assert_eq!(said, xids.iter().map(|xid| changed.includes(*xid)).collect::<Vec<_>>(), "{xmin} {next}");
        }
    }
}
