//! What publications publish: which tables, in whose name, which columns, rows and
//! kinds of changes, and by which entry.
//!
//! Invariant: tables are known by oid. Where several publications are asked for
//! together, a change comes if one of them publishes it, and a partition's in the
//! name of the topmost table that one with `publish_via_partition_root` has; only
//! publications that have that table count then, as the server asks only their row
//! filters and column lists, and only those with the option for its TRUNCATE.
//!
//! Source: `get_rel_sync_entry` in `src/backend/replication/pgoutput/pgoutput.c`,
//! `pg_get_publication_tables` in `src/backend/catalog/pg_publication.c`.

use std::collections::{BTreeSet, HashMap, HashSet};

use crate::fault::sqlstate;
use crate::session::{DbContext, DbError, Row, Session};

/// Whether a publication is FOR ALL TABLES.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AllTables {
    /// Tables to come are published, too.
    Yes,
    /// A list of tables or schemas.
    No,
}

/// A kind of change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Operation {
    /// INSERT.
    Insert,
    /// UPDATE.
    Update,
    /// DELETE.
    Delete,
    /// TRUNCATE, from 11 on.
    Truncate,
}

impl Operation {
    /// All of them.
    pub const ALL: [Operation; 4] = [Operation::Insert, Operation::Update, Operation::Delete, Operation::Truncate];

    /// Those that row filters are asked about.
    pub const OF_ROWS: [Operation; 3] = [Operation::Insert, Operation::Update, Operation::Delete];

    /// The word of the option `publish`.
    pub fn as_str(self) -> &'static str {
        match self {
            Operation::Insert => "insert",
            Operation::Update => "update",
            Operation::Delete => "delete",
            Operation::Truncate => "truncate",
        }
    }
}

/// In whose name changes of partitions come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Partitions {
    /// In their own.
    InTheirOwnName,
    /// In their root's (`publish_via_partition_root`, 13).
    InTheirRootsName,
}

/// A publication.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Publication {
    /// Its oid: another one of the same name is another publication.
    pub oid: u32,
    /// Its name.
    pub name: String,
    /// Whether it is FOR ALL TABLES.
    pub all_tables: AllTables,
    /// The kinds of changes that it publishes.
    pub operations: BTreeSet<Operation>,
    /// In whose name changes of partitions come.
    pub partitions: Partitions,
    /// Whether our role has its owner's rights.
    pub is_owned: bool,
}

impl Publication {
    /// The kinds of changes that it leaves out.
    pub fn lacks(&self) -> Vec<&'static str> {
        Operation::ALL.iter().filter(|kind| !self.operations.contains(kind)).map(|kind| kind.as_str()).collect()
    }
}

/// What one publication publishes of a table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Portion {
    /// The publication.
    pub publication: String,
    /// The columns that are published; those that the server computes only where
    /// it can publish them (18). Empty where every column is (below 15).
    pub columns: Vec<String>,
    /// The columns that are not published, less those that the server computes.
    pub left_out: Vec<String>,
    /// The condition that rows must meet; `None` for all rows.
    pub row_filter: Option<String>,
    /// The kinds of changes that it publishes.
    pub operations: BTreeSet<Operation>,
    /// In whose name it publishes rows of partitions.
    pub partitions: Partitions,
}

/// A table as it is published: the rows of its changes come in its name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Published {
    /// What each of the publications that have it publishes of it; one at least.
    pub portions: Vec<Portion>,
    /// What publishes it, as words with blanks between them ([`since`] compares
    /// them): an entry of it, of its schema or of a table above it; the versions of the
    /// publication and, where its schema is published, of the table's own row in the
    /// catalog; and the condition that rows must meet ([`other_rows`]).
    pub via: String,
}

/// Which rows' changes of a kind come: of those that meet one of these conditions,
/// or all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RowsOfKind<'p> {
    /// All.
    All,
    /// Those that meet one of these.
    Meeting(BTreeSet<&'p str>),
}

impl Published {
    /// The columns that are not published, less those that the server computes. (Where
    /// publications differ about them, the server refuses to decode.)
    pub fn left_out(&self) -> &[String] {
        self.portions.first().map_or(&[], |portion| &portion.left_out)
    }

    /// The publications that have it.
    pub fn names(&self) -> Vec<String> {
        self.portions.iter().map(|portion| portion.publication.clone()).collect()
    }

    /// What a publication publishes of it.
    pub fn portion(&self, publication: &str) -> Option<&Portion> {
        self.portions.iter().find(|portion| portion.publication == publication)
    }

    /// The kinds of changes that come.
    pub fn operations(&self) -> BTreeSet<Operation> {
        self.portions.iter().flat_map(|portion| &portion.operations).copied().collect()
    }

    /// The kinds of changes that do not come.
    pub fn lacks(&self) -> Vec<&'static str> {
        let comes = self.operations();
        Operation::ALL.iter().filter(|kind| !comes.contains(kind)).map(|kind| kind.as_str()).collect()
    }

    /// The rows whose changes of a kind come: the server asks the conditions of those
    /// publications that publish the kind, and none if one of these has none.
    pub fn rows(&self, kind: Operation) -> RowsOfKind<'_> {
        let of_kind = self.portions.iter().filter(|portion| portion.operations.contains(&kind));
        let conditions: Option<BTreeSet<&str>> = of_kind.map(|portion| portion.row_filter.as_deref()).collect();
        conditions.filter(|conditions| !conditions.is_empty()).map_or(RowsOfKind::All, RowsOfKind::Meeting)
    }

    /// Whether changes of one kind come of other rows than those of another: then a
    /// row is followed by some of its changes only.
    pub fn parts_kinds(&self) -> bool {
        let comes = self.operations();
        let mut rows = Operation::OF_ROWS.iter().filter(|kind| comes.contains(kind)).map(|kind| self.rows(*kind));
        rows.next().is_some_and(|first| rows.any(|other| other != first))
    }

    /// The condition that a row must meet to be published; `None` for all rows.
    pub fn row_filter(&self) -> Option<String> {
        match self.rows(Operation::Insert) {
            RowsOfKind::All => None,
            RowsOfKind::Meeting(conditions) => {
                Some(conditions.into_iter().map(|condition| format!("({condition})")).collect::<Vec<_>>().join(" OR "))
            }
        }
    }

    /// Whether its publications agree about its columns: else the server refuses to
    /// decode a change of it.
    pub fn has_one_column_list(&self) -> bool {
        let mut lists = self.portions.iter().map(|portion| portion.columns.iter().collect::<BTreeSet<_>>());
        lists.next().is_none_or(|first| lists.all(|other| other == first))
    }
}

/// What has become of how a table was published.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Since {
    /// Nothing.
    Unbroken,
    /// Something was altered, perhaps there and back, or it has come to another
    /// publication: changes may have been lost or not.
    Altered,
    /// It was taken out of its publication and put back.
    Broken,
}

/// Compares how a table was published, in the words of [`Published::via`], with how
/// it is now. As long as an entry stays something of it was always published; all of
/// it only if each does, as one publication may have what another leaves out.
pub fn since(before: &str, now: &str) -> Since {
    let parts = |words: &'_ str| -> [BTreeSet<String>; 2] {
        let words = words.split(' ').filter(|word| !word.starts_with(ROWS));
        let (versions, entries) = words.map(str::to_owned).partition(|word| is_version(word));
        [entries, versions]
    };
    let publications = |versions: &BTreeSet<String>| -> BTreeSet<String> {
        let oids = versions.iter().filter_map(|word| word.strip_prefix("publication:")?.split('@').next());
        oids.map(str::to_owned).collect()
    };
    let ([before, was], [now, is]) = (parts(before), parts(now));
    let has_none = before.is_disjoint(&now);
    if has_none && !before.is_empty() && !publications(&was).is_disjoint(&publications(&is)) {
        return Since::Broken;
    }
    if before.is_subset(&now) && was == is { Since::Unbroken } else { Since::Altered }
}

/// What the word for the rows begins with.
const ROWS: &str = "where:";

/// The word for the rows that are published: without blanks.
fn rows_word(condition: Option<&str>) -> String {
    let escaped = condition.unwrap_or_default().chars().map(|letter| match letter {
        '%' | ' ' | '\n' | '\r' | '\t' => format!("%{:02x}", u32::from(letter)),
        letter => letter.to_string(),
    });
    format!("{ROWS}{}", escaped.collect::<String>())
}

/// Which rows of a table were read.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum RowsRead {
    /// All.
    All,
    /// Those that met this condition.
    Meeting(String),
    /// Older versions did not keep it.
    Unknown,
}

/// The rows that were read of a table, where others are published by now. A condition
/// with the entry that it has always had is the same, whatever its columns are called.
pub fn other_rows(before: &str, now: &Published) -> Option<RowsRead> {
    if since(before, &now.via) == Since::Unbroken {
        return None;
    }
    let condition = now.row_filter();
    let is = rows_word(condition.as_deref());
    let Some(was) = before.split(' ').find(|word| word.starts_with(ROWS)) else {
        let entries = |words: &str| -> BTreeSet<String> {
            words.split(' ').filter(|word| !is_version(word) && !word.starts_with(ROWS)).map(str::to_owned).collect()
        };
        let is_kept = entries(before).is_subset(&entries(&now.via));
        return (condition.is_some() && !is_kept).then_some(RowsRead::Unknown);
    };
    if was == is {
        return None;
    }
    Some(rows_read(was))
}

/// Which rows of a table were read that was published so.
pub fn rows_read(via: &str) -> RowsRead {
    let Some(condition) = via.split(' ').find_map(|word| word.strip_prefix(ROWS)) else { return RowsRead::Unknown };
    let escapes = [("%20", " "), ("%0a", "\n"), ("%0d", "\r"), ("%09", "\t"), ("%25", "%")];
    let condition = escapes.iter().fold(condition.to_owned(), |text, (word, letter)| text.replace(word, letter));
    if condition.is_empty() { RowsRead::All } else { RowsRead::Meeting(condition) }
}

/// The words that stand for versions of rows of the catalog.
fn is_version(word: &str) -> bool {
    ["publication:", "row:", "links:"].iter().any(|kind| word.starts_with(kind))
}

/// Whether words say that a table was published by a publication for all tables that
/// is none of `publications`: one that was made anew, say.
pub fn is_of_former_all_tables(via: &str, publications: &[Publication]) -> bool {
    let is_there =
        |oid: &str| publications.iter().any(|found| found.all_tables == AllTables::Yes && found.oid.to_string() == oid);
    via.split(' ').filter_map(|word| word.strip_prefix("all:")).any(|oid| !is_there(oid))
}

/// The word for the links between a partition and the tables above it, whose
/// versions are given; for one whose rows come in a root's name it is all there is.
pub fn links(versions: &[String]) -> String {
    format!("links:{}", versions.join("/"))
}

/// Whether one of these is for all tables, with changes of every kind: all of a table
/// to come is published, whatever the others have.
pub fn all_tables(publications: &[Publication]) -> AllTables {
    let is_whole = |p: &Publication| p.all_tables == AllTables::Yes && p.lacks().is_empty();
    if publications.iter().any(is_whole) { AllTables::Yes } else { AllTables::No }
}

/// The tables that are in the lists of these publications, by publication and oid:
/// partitioned ones as well, of which the view shows the partitions.
///
/// # Errors
/// When the catalog cannot be read.
pub async fn listed(session: &Session, names: &[String]) -> Result<HashSet<(String, u32)>, DbError> {
    let sql = "SELECT p.pubname::text, r.prrelid FROM pg_catalog.pg_publication_rel r \
         JOIN pg_catalog.pg_publication p ON p.oid = r.prpubid WHERE p.pubname = ANY ($1::text[])";
    let rows = session.query(sql, &[&names]).await.during(session.side(), "read the lists of the publications")?;
    rows.iter().map(|row| Ok((row.take(0)?, row.take(1)?))).collect()
}

/// The names of all publications.
///
/// # Errors
/// When the catalog cannot be read.
pub async fn names(session: &Session) -> Result<Vec<String>, DbError> {
    let sql = "SELECT pubname::text FROM pg_catalog.pg_publication ORDER BY 1";
    let rows = session.query(sql, &[]).await.during(session.side(), "list the publications")?;
    rows.iter().map(|row| row.take(0)).collect()
}

/// The publications of these names, as far as they are there, in that order.
///
/// # Errors
/// When the catalog cannot be read.
pub async fn find(session: &Session, names: &[String]) -> Result<Vec<Publication>, DbError> {
    let truncate = if session.version() >= 110_000 { "pubtruncate" } else { "pubdelete" };
    let via_root = if session.version() >= 130_000 { "pubviaroot" } else { "false" };
    let sql = format!(
        "SELECT oid, pubname::text, puballtables, pubinsert, pubupdate, pubdelete, {truncate}, {via_root}, \
         pg_catalog.pg_has_role(pubowner, 'USAGE') FROM pg_catalog.pg_publication WHERE pubname = ANY ($1::text[]) \
         ORDER BY pg_catalog.array_position($1::text[], pubname::text)"
    );
    let rows = session.query(&sql, &[&names]).await.during(session.side(), "look for the publications")?;
    rows.iter().map(publication).collect()
}

fn publication(row: &Row) -> Result<Publication, DbError> {
    let mut operations = BTreeSet::new();
    for (place, operation) in (3usize..).zip(Operation::ALL) {
        if row.take(place)? {
            operations.insert(operation);
        }
    }
    Ok(Publication {
        oid: row.take(0)?,
        name: row.take(1)?,
        all_tables: if row.take(2)? { AllTables::Yes } else { AllTables::No },
        operations,
        partitions: if row.take(7)? { Partitions::InTheirRootsName } else { Partitions::InTheirOwnName },
        is_owned: row.take(8)?,
    })
}

/// DETAILS and SCHEMAS are filled in. A word is the entry's oid, with the version
/// of each link between a partition and the table whose entry it is. The view asks
/// a function that may see an entry that came a moment later than the rest.
/// OFFSET 0 parts what is planned: all orders of so many relations take longer than
/// the answer, on a database of a few tables.
const TABLES: &str = "\
    WITH RECURSIVE wanted AS (SELECT oid, xmin::text AS version, pubname, puballtables FROM pg_catalog.pg_publication WHERE pubname = ANY ($1::text[])), \
    up (relation, ancestor, links) AS ( \
        SELECT oid, oid, '' FROM pg_catalog.pg_class WHERE relkind IN ('r', 'p') \
        UNION ALL \
        SELECT up.relation, i.inhparent, up.links || '/' || i.xmin::text FROM up \
        JOIN pg_catalog.pg_inherits i ON i.inhrelid = up.ancestor JOIN pg_catalog.pg_class c ON c.oid = i.inhrelid WHERE c.relispartition), \
    entries (publication, oid, relation, word) AS ( \
        SELECT prpubid, oid, prrelid, 'table:' FROM pg_catalog.pg_publication_rel SCHEMAS), \
    paths AS (SELECT up.relation, e.publication, \
            pg_catalog.string_agg(e.word || e.oid::text || up.links, ' ' ORDER BY up.links, e.oid) AS words \
        FROM up JOIN entries e ON e.relation = up.ancestor GROUP BY up.relation, e.publication), \
    above AS (SELECT relation, pg_catalog.array_agg(ancestor) AS oids FROM up WHERE ancestor <> relation GROUP BY relation) \
    SELECT c.oid, p.pubname::text, DETAILS, \
        CASE WHEN w.puballtables THEN 'all:' || w.oid::text ELSE paths.words END \
            || ' publication:' || w.oid::text || '@' || w.version \
            || CASE WHEN paths.words LIKE '%schema:%' THEN ' row:' || c.xmin::text ELSE '' END, coalesce(above.oids, '{}') \
    FROM wanted w JOIN (SELECT t.*, n.oid AS namespace FROM pg_catalog.pg_publication_tables t \
        JOIN pg_catalog.pg_namespace n ON n.nspname = t.schemaname WHERE t.pubname = ANY ($1::text[]) OFFSET 0) AS p ON p.pubname = w.pubname \
    JOIN pg_catalog.pg_class c ON c.relnamespace = p.namespace AND c.relname = p.tablename \
    LEFT JOIN paths ON paths.relation = c.oid AND paths.publication = w.oid LEFT JOIN above ON above.relation = c.oid \
    WHERE w.puballtables OR paths.words IS NOT NULL";

/// The columns that are published and those that are not, and the row filter.
const DETAILS: &str = "\
    ARRAY(SELECT a.attname::text FROM pg_catalog.pg_attribute a WHERE a.attrelid = c.oid AND a.attnum > 0 \
        AND NOT a.attisdropped AND COMPUTED AND a.attname = ANY (p.attnames) ORDER BY a.attnum), \
    ARRAY(SELECT a.attname::text FROM pg_catalog.pg_attribute a WHERE a.attrelid = c.oid AND a.attnum > 0 \
        AND NOT a.attisdropped AND a.attgenerated = '' AND a.attname <> ALL (p.attnames) ORDER BY a.attnum), p.rowfilter";

/// The same where there are neither column lists nor row filters.
const NO_DETAILS: &str = "'{}'::text[], '{}'::text[], NULL::text";

/// The entries that are schemas.
const SCHEMAS: &str = "UNION ALL SELECT s.pnpubid, s.oid, c.oid, 'schema:' FROM pg_catalog.pg_publication_namespace s \
    JOIN pg_catalog.pg_class c ON c.relnamespace = s.pnnspid AND c.relkind IN ('r', 'p')";

/// How often what is published is looked at before it is said that it cannot be read.
const LOOKS: u32 = 10;

/// The view's function looks by itself: it fails if a publication is dropped meanwhile.
fn is_dropped_meanwhile(error: &DbError) -> bool {
    matches!(error.sqlstate(), Some(sqlstate::UNDEFINED_OBJECT | sqlstate::INTERNAL_ERROR))
}

/// What these publications publish together, by the oid of the table in whose
/// name it comes.
///
/// # Errors
/// When the catalog cannot be read.
pub async fn tables(session: &Session, names: &[String]) -> Result<HashMap<u32, Published>, DbError> {
    let (details, schemas) = if session.version() >= 150_000 { (DETAILS, SCHEMAS) } else { (NO_DETAILS, "") };
    // Of columns that the server computes only 18 and later publish any.
    let computed = if session.version() >= 180_000 { "true" } else { "a.attgenerated = ''" };
    let sql = TABLES.replace("DETAILS", details).replace("SCHEMAS", schemas).replace("COMPUTED", computed);
    let mut looks = 1;
    let (publications, rows) = loop {
        let publications = find(session, names).await?;
        match session.query(&sql, &[&names]).await.during(session.side(), "read what is published") {
            Ok(rows) => break (publications, rows),
            Err(error) if is_dropped_meanwhile(&error) && looks < LOOKS => looks += 1,
            Err(error) => return Err(error),
        }
    };
    let mut tables: HashMap<u32, Published> = HashMap::new();
    let mut above: HashMap<u32, Vec<u32>> = HashMap::new();
    let mut roots = BTreeSet::new();
    for row in &rows {
        let (oid, name): (u32, String) = (row.take(0)?, row.take(1)?);
        let Some(publication) = publications.iter().find(|publication| publication.name == name) else { continue };
        if publication.partitions == Partitions::InTheirRootsName {
            roots.insert(oid);
        }
        above.insert(oid, row.take(6)?);
        let portion = Portion {
            publication: name,
            columns: row.take(2)?,
            left_out: row.take(3)?,
            row_filter: row.take(4)?,
            operations: publication.operations.clone(),
            partitions: publication.partitions,
        };
        let via: String = row.take(5)?;
        let known = tables.entry(oid).or_insert_with(|| Published { portions: Vec::new(), via: String::new() });
        known.portions.push(portion);
        known.via = format!("{} {via}", known.via).trim().to_owned();
    }
    tables.retain(|oid, _| !above.get(oid).is_some_and(|above| above.iter().any(|root| roots.contains(root))));
    let place = |portion: &Portion| names.iter().position(|name| *name == portion.publication);
    for published in tables.values_mut() {
        published.portions.sort_by_key(place);
        published.via = format!("{} {}", published.via, rows_word(published.row_filter().as_deref()));
    }
    Ok(tables)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sweep::testing::{Pair, SOURCE_OWNER};

    /// The story: a publication that was dropped while a look read what is published
    /// ended the daemon with "cache lookup failed".
    #[tokio::test(flavor = "multi_thread")]
    async fn what_is_published_can_be_read_while_publications_come_and_go() {
        let pair = Pair::new().await;
        let (reader, owner) = (pair.source(SOURCE_OWNER).await, pair.source(SOURCE_OWNER).await);
        owner.batch_execute("CREATE TABLE public.t (i int)").await.unwrap();
        let coming_and_going = tokio::spawn(async move {
            for _ in 0..300 {
                owner.batch_execute("CREATE PUBLICATION p FOR TABLE public.t").await.unwrap();
                owner.batch_execute("DROP PUBLICATION p").await.unwrap();
            }
        });
        let mut looks = 0;
        while !coming_and_going.is_finished() {
            tables(&reader, &["p".to_owned()]).await.unwrap();
            looks += 1;
        }
        coming_and_going.await.unwrap();
        assert!(looks > 0);
    }

    fn published(portions: &[(&str, Option<&str>, &[Operation])]) -> Published {
        let portion = |(publication, row_filter, operations): &(&str, Option<&str>, &[Operation])| Portion {
            publication: (*publication).to_owned(),
            columns: Vec::new(),
            left_out: Vec::new(),
            row_filter: row_filter.map(str::to_owned),
            operations: operations.iter().copied().collect(),
            partitions: Partitions::InTheirOwnName,
        };
        Published { portions: portions.iter().map(portion).collect(), via: String::new() }
    }

    #[test]
    fn rows_come_that_one_of_the_publications_of_a_kind_lets_through() {
        use Operation::{Delete, Insert, Truncate, Update};
        let both = published(&[("a", Some("x"), &Operation::ALL), ("b", Some("y"), &Operation::ALL)]);
        assert_eq!(both.row_filter().unwrap(), "(x) OR (y)");
        assert!(!both.parts_kinds() && both.lacks().is_empty());
        let open = published(&[("a", Some("x"), &Operation::ALL), ("b", None, &Operation::ALL)]);
        assert!(open.row_filter().is_none() && !open.parts_kinds());
        // TRUNCATE is of no row.
        let truncate = published(&[("a", Some("x"), &Operation::OF_ROWS), ("b", None, &[Truncate])]);
        assert!(truncate.row_filter().is_some() && !truncate.parts_kinds() && truncate.lacks().is_empty());
        let parted = published(&[("a", Some("x"), &[Insert]), ("b", Some("x"), &[Update, Delete, Truncate])]);
        assert!(!parted.parts_kinds() && parted.lacks().is_empty());
        for other in [None, Some("y")] {
            assert!(
                published(&[("a", Some("x"), &Operation::ALL), ("b", other, &[Insert])]).parts_kinds(),
                "{other:?}"
            );
            assert!(published(&[("a", Some("x"), &[Insert]), ("b", other, &[Update, Delete])]).parts_kinds());
        }
        assert_eq!(published(&[("a", Some("x"), &[Insert])]).lacks(), ["update", "delete", "truncate"]);
        assert!(!published(&[("a", Some("x"), &[Insert])]).parts_kinds(), "what does not come is another matter");
    }

    #[test]
    fn a_table_is_published_without_a_break_as_long_as_its_entries_stay() {
        let of =
            |before: &str, now: &str| since(&format!("{before} publication:1@5"), &format!("{now} publication:1@5"));
        assert_eq!(of("table:7", "table:7"), Since::Unbroken);
        assert_eq!(of("table:9/800", "table:7 table:9/800"), Since::Unbroken, "its own entry came later");
        assert_eq!(of("table:7 table:9/800", "table:9/800"), Since::Altered, "one of two is gone");
        assert_eq!(of("table:7", "table:8"), Since::Broken, "taken out and put back");
        assert_eq!(of("table:9/800", "table:9/801"), Since::Broken, "detached and attached again");
    }

    #[test]
    fn another_condition_of_another_entry_is_known_from_one_that_was_always_there() {
        let with = |condition: Option<&str>, words: &str| {
            let mut published = published(&[("p", condition, &Operation::ALL)]);
            published.via = format!("{words} publication:1@5 {}", rows_word(published.row_filter().as_deref()));
            published
        };
        let (all, some) = (with(None, "table:7").via, with(Some("a = 'x %20\t'"), "table:7").via);
        let other = with(Some("b"), "table:8");
        assert_eq!(other_rows(&all, &other), Some(RowsRead::All));
        assert_eq!(other_rows(&some, &other), Some(RowsRead::Meeting("(a = 'x %20\t')".to_owned())));
        assert!(other_rows(&some, &with(None, "table:8")).is_some());
        assert_eq!(other_rows(&some, &with(Some("a = 'x %20\t'"), "table:8")), None, "put back as it was");
        assert_eq!(other_rows(&some, &with(Some("renamed = 'x %20\t'"), "table:7")), None, "a column's new name");
        // Of older versions.
        assert_eq!(other_rows("table:7 publication:1@5", &other), Some(RowsRead::Unknown));
        assert_eq!(other_rows("table:7 publication:1@4", &with(Some("b"), "table:7")), None);
        assert_eq!(since(&all, &some), Since::Unbroken, "the entries tell that");
    }

    #[test]
    fn a_publication_for_all_tables_that_was_made_anew_is_another_one() {
        let all = |oid| Publication {
            oid,
            name: "p".to_owned(),
            all_tables: AllTables::Yes,
            operations: BTreeSet::new(),
            partitions: Partitions::InTheirOwnName,
            is_owned: true,
        };
        assert!(!is_of_former_all_tables("all:7 publication:7@5", &[all(7)]));
        assert!(is_of_former_all_tables("all:7 publication:7@5", &[all(8)]));
        assert!(is_of_former_all_tables("all:7 publication:7@5", &[]), "dropped");
        assert!(!is_of_former_all_tables("table:7 publication:1@5", &[]), "a list");
    }

    #[test]
    fn what_was_altered_and_put_back_is_another_version() {
        assert_eq!(since("table:7 publication:1@5", "table:7 publication:1@6"), Since::Altered);
        assert_eq!(since("schema:7 publication:1@5 row:3", "schema:7 publication:1@5 row:4"), Since::Altered);
        let links = |version: &str| links(&[version.to_owned()]);
        assert_eq!(since(&links("800"), &links("801")), Since::Altered);
        assert_eq!(since(&links("800"), &links("800")), Since::Unbroken);
    }

    #[test]
    fn a_table_that_moves_to_another_publication_or_into_a_second_one_is_in_doubt() {
        assert_eq!(since("table:7 publication:1@5", "table:8 publication:2@5"), Since::Altered);
        assert_eq!(since("table:7 publication:1@5", "table:7 publication:1@5 table:8 publication:2@5"), Since::Altered);
        let (two, again) =
            ("table:7 publication:1@5 table:8 publication:2@5", "table:7 publication:1@5 table:9 publication:2@5");
        assert_eq!(since(two, again), Since::Altered, "one of them left it out for a while");
        assert_eq!(since(two, "table:9 publication:1@5"), Since::Broken);
    }
}
