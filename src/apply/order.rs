//! In which order the changes of several tables reach the target. Pure.
//!
//! Invariant: net changes are independent of each other unless something of the
//! target looks at several tables. Triggers and rules may look at anything, so
//! they want the order of the source. A foreign key looks at two tables, at the
//! end of each statement: where the tables do not refer to each other in a
//! circle it is content with inserts parents first, then updates, then deletes
//! children first.
//!
//! Source: `RI_FKey_check` and `ri_restrict` in
//! `src/backend/utils/adt/ri_triggers.c`.

/// The order that the tables of a batch want.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Order {
    /// None: one table after the other.
    Free,
    /// That of their foreign keys.
    ParentsFirst,
    /// That of the source, row by row.
    Source,
}

/// A table and those it refers to, by their oids on the target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct References<'a> {
    pub(crate) table: u32,
    pub(crate) parents: &'a [u32],
}

/// The places of these tables, each behind all those it refers to; `None` when
/// they refer to each other in a circle. A table that refers to itself does so
/// within one statement.
pub(crate) fn parents_first(tables: &[References<'_>]) -> Option<Vec<usize>> {
    let mut left: Vec<usize> = (0..tables.len()).collect();
    let mut sorted = Vec::with_capacity(tables.len());
    while !left.is_empty() {
        let awaits = |place: &usize| {
            let own = tables[*place];
            left.iter().any(|&other| {
                let parent = tables[other].table;
                parent != own.table && own.parents.contains(&parent)
            })
        };
        let (later, ready): (Vec<usize>, Vec<usize>) = left.iter().copied().partition(awaits);
        if ready.is_empty() {
            return None;
        }
        sorted.extend(ready);
        left = later;
    }
    Some(sorted)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sorted(tables: &[(u32, &[u32])]) -> Option<Vec<u32>> {
        let tables: Vec<References<'_>> =
            tables.iter().map(|&(table, parents)| References { table, parents }).collect();
        Some(parents_first(&tables)?.into_iter().map(|place| tables[place].table).collect())
    }

    #[test]
    fn each_table_comes_behind_those_it_refers_to() {
        assert_eq!(sorted(&[(3, &[2, 1]), (2, &[1]), (1, &[])]), Some(vec![1, 2, 3]));
        assert_eq!(sorted(&[(2, &[9]), (1, &[])]), Some(vec![2, 1]), "9 is not among them");
        assert_eq!(sorted(&[]), Some(vec![]));
    }

    #[test]
    fn a_table_may_refer_to_itself_but_two_not_to_each_other() {
        assert_eq!(sorted(&[(1, &[1])]), Some(vec![1]));
        assert_eq!(sorted(&[(1, &[2]), (2, &[1]), (3, &[])]), None);
    }
}
