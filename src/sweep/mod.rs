//! What logical replication leaves behind: sequences, large objects, rows of
//! extensions.
//!
//! Invariant: a sweep compares and carries differences, so it can be run at
//! any time and any number of times; it is exact when the source is not being
//! written to. Neither kind is in the `pgoutput` stream:
//! `RelationIsLogicallyLogged` (`src/include/utils/rel.h`) leaves catalogs out,
//! and `sequence.c` logs pages, not changes.

pub mod extension_rows;
pub mod large_objects;
pub mod sequences;
#[cfg(test)]
pub(crate) mod testing;

use std::collections::BTreeSet;

use crate::config::Side;
use crate::fault::{Difference, Fault};
use crate::session::DbError;
use crate::state::StateError;
use crate::wire::WireError;
use crate::words::{self, listed, listed_of};

use sequences::SequenceProblem;

/// Why a sweep is not complete.
#[derive(Debug, thiserror::Error)]
pub enum SweepError {
    /// A session could not be made.
    #[error(transparent)]
    Wire(#[from] WireError),
    /// A statement failed.
    #[error(transparent)]
    Db(#[from] DbError),
    /// The state could not be read or written.
    #[error(transparent)]
    State(#[from] StateError),
    /// Sequences that are not equal to the source's; all others are.
    #[error("{} could not be made equal: {}", words::count(sequences_of(.0), "sequence"), listed(.0))]
    Sequences(Vec<SequenceProblem>),
    /// Large objects our role may not read on the source; all others were carried.
    #[error(
        "{} on the source cannot be read by role {role} ({}); as a superuser there: \
         GRANT pg_read_all_data TO {role} (14 and later), or GRANT SELECT ON pg_catalog.pg_largeobject TO {role}; \
         or as their owner: GRANT SELECT ON LARGE OBJECT {} TO {role}", words::count(*.count, "large object"), listed_of(.oids, *.count), listed_of(.oids, 0)
    )]
    UnreadableLargeObjects {
        /// The role, quoted for SQL.
        role: String,
        /// The first of them.
        oids: Vec<u32>,
        /// How many there are.
        count: u64,
    },
    /// Oids of the source's large objects that are taken on the target.
    #[error(
        "on the target {} with an oid of the source's that {} not walferry's ({}); if not needed: SELECT lo_unlink(oid) for each",
        if *.count == 1 { "there is 1 large object".to_owned() } else { format!("there are {} large objects", .count) },
        if *.count == 1 { "is" } else { "are" }, listed_of(.oids, *.count)
    )]
    LargeObjectsInUse {
        /// The first of them.
        oids: Vec<u32>,
        /// How many there are.
        count: u64,
    },
    /// Another process has taken the carrying of large objects over.
    #[error("another process carries the large objects of this migration now")]
    LargeObjectsClaimed,
    /// Two kinds of objects were left out.
    #[error("{0}; and {1}")]
    Both(Box<SweepError>, Box<SweepError>),
}

impl SweepError {
    /// What it means.
    pub fn fault(&self) -> Fault {
        match self {
            SweepError::Wire(error) => error.fault(),
            SweepError::Db(error) => error.fault(),
            SweepError::State(error) => error.fault(),
            SweepError::Sequences(_) | SweepError::Both(..) => Fault::Differs(Difference::Remainder),
            SweepError::UnreadableLargeObjects { .. } => Fault::lasting(Side::Source),
            SweepError::LargeObjectsClaimed => Fault::passing(Side::Target),
            SweepError::LargeObjectsInUse { .. } => Fault::lasting(Side::Target),
        }
    }

    /// Whether everything but what it names was carried.
    pub fn is_remainder(&self) -> bool {
        match self {
            SweepError::Wire(_) | SweepError::Db(_) | SweepError::State(_) | SweepError::LargeObjectsClaimed => false,
            SweepError::Sequences(_)
            | SweepError::UnreadableLargeObjects { .. }
            | SweepError::LargeObjectsInUse { .. }
            | SweepError::Both(..) => true,
        }
    }
}

/// The results of two sweeps. The second is made if the first left something
/// out, too, so that one run tells everything that has to be mended.
///
/// # Errors
/// What failed; what was left out, by both of them.
pub async fn both<A, B>(
    one: Result<A, SweepError>,
    other: impl Future<Output = Result<B, SweepError>>,
) -> Result<(A, B), SweepError> {
    match one {
        Ok(one) => Ok((one, other.await?)),
        Err(error) if !error.is_remainder() => Err(error),
        Err(error) => match other.await {
            Ok(_) => Err(error),
            Err(second) if second.is_remainder() => Err(SweepError::Both(Box::new(error), Box::new(second))),
            Err(second) => Err(second),
        },
    }
}

/// How many sequences these problems are about.
fn sequences_of(problems: &[SequenceProblem]) -> usize {
    problems.iter().map(|problem| &problem.sequence).collect::<BTreeSet<_>>().len()
}
