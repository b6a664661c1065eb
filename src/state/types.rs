//! Types that somebody has made, as they were when the first rows of them were read.
//!
//! Invariant: which part of a type is which of its counterpart's is written down with the
//! copy, and altered only with the record that rows of it are in doubt
//! ([`super::State::keep_pairs`]) where they are.

use std::collections::HashMap;

use super::{State, StateError};

/// Which part of a type is which of its counterpart's.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TypePairs {
    /// The counterpart: its oid on the target.
    pub of: u32,
    /// The numbers of the parts, the source's and the target's: the oids of an enum's labels,
    /// the numbers of a composite type's attributes.
    pub parts: Vec<(i64, i64)>,
}

impl State {
    /// The pairs of all types that were met, by their oids on the source.
    ///
    /// # Errors
    /// When they cannot be read.
    pub async fn type_pairs(&self) -> Result<HashMap<u32, TypePairs>, StateError> {
        let sql = "SELECT source_oid, target_oid, source_parts, target_parts FROM walferry.types WHERE migration = $1";
        let rows = self.query(sql, &[&self.name()], "read the pairs of types").await?;
        let mut found = HashMap::new();
        for row in rows {
            let (ours, theirs): (Vec<i64>, Vec<i64>) = (row.take(2)?, row.take(3)?);
            found.insert(row.take(0)?, TypePairs { of: row.take(1)?, parts: ours.into_iter().zip(theirs).collect() });
        }
        Ok(found)
    }

    /// Writes down the pairs of these types, in the place of what was there of each.
    ///
    /// # Errors
    /// When the target refuses it.
    pub async fn keep_type_pairs(&self, types: &[(u32, TypePairs)]) -> Result<(), StateError> {
        for (oid, pairs) in types {
            let (ours, theirs): (Vec<i64>, Vec<i64>) = pairs.parts.iter().copied().unzip();
            self.execute(
                "INSERT INTO walferry.types (migration, source_oid, target_oid, source_parts, target_parts) VALUES ($1, $2, $3, $4, $5) \
                 ON CONFLICT (migration, source_oid) DO UPDATE SET target_oid = $3, source_parts = $4, target_parts = $5",
                &[&self.name(), oid, &pairs.of, &ours, &theirs],
                "record the pairs of types",
            )
            .await?;
        }
        Ok(())
    }
}
