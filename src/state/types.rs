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
    /// The parts.
    pub parts: Vec<PartPair>,
}

/// A part of a type, and its counterpart: by the oids of an enum's labels, or the numbers of
/// a composite type's attributes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartPair {
    /// The source's number.
    pub ours: i64,
    /// The target's.
    pub theirs: i64,
    /// The versions of both in their catalogs when they were last looked at: a rename is
    /// another one, too. None where an older walferry has looked.
    pub versions: Option<(String, String)>,
}

impl State {
    /// The pairs of all types that were met, by their oids on the source.
    ///
    /// # Errors
    /// When they cannot be read.
    pub async fn type_pairs(&self) -> Result<HashMap<u32, TypePairs>, StateError> {
        let sql = "SELECT source_oid, target_oid, source_parts, target_parts, source_versions, target_versions \
             FROM walferry.types WHERE migration = $1";
        let rows = self.query(sql, &[&self.name()], "read the pairs of types").await?;
        let mut found = HashMap::new();
        for row in rows {
            let (ours, theirs): (Vec<i64>, Vec<i64>) = (row.take(2)?, row.take(3)?);
            let versions = row.take::<Option<Vec<String>>>(4)?.zip(row.take::<Option<Vec<String>>>(5)?);
            let mut versions = versions.into_iter().flat_map(|(ours, theirs)| ours.into_iter().zip(theirs));
            let parts = ours.into_iter().zip(theirs);
            let parts = parts.map(|(ours, theirs)| PartPair { ours, theirs, versions: versions.next() }).collect();
            found.insert(row.take(0)?, TypePairs { of: row.take(1)?, parts });
        }
        Ok(found)
    }

    /// Writes down the pairs of these types, in the place of what was there of each.
    ///
    /// # Errors
    /// When the target refuses it.
    pub async fn keep_type_pairs(&self, types: &[(u32, TypePairs)]) -> Result<(), StateError> {
        for (oid, pairs) in types {
            let (ours, theirs): (Vec<i64>, Vec<i64>) = pairs.parts.iter().map(|pair| (pair.ours, pair.theirs)).unzip();
            let versions = pairs.parts.iter().filter_map(|pair| pair.versions.clone());
            let (of_ours, of_theirs): (Vec<String>, Vec<String>) = versions.unzip();
            self.execute(
                "INSERT INTO walferry.types (migration, source_oid, target_oid, source_parts, target_parts, \
                     source_versions, target_versions) \
                 VALUES ($1, $2, $3, $4, $5, $6, $7) ON CONFLICT (migration, source_oid) DO UPDATE SET target_oid = $3, \
                     source_parts = $4, target_parts = $5, source_versions = $6, target_versions = $7",
                &[&self.name(), oid, &pairs.of, &ours, &theirs, &of_ours, &of_theirs],
                "record the pairs of types",
            )
            .await?;
        }
        Ok(())
    }
}
