//! A dump of the source's schema, ready for this target: what `run` restores,
//! what `add` restores of single tables, and what `check` tries.
//!
//! Invariant: there is one way from pg_dump's output to what is executed.

use std::collections::{BTreeMap, HashSet};

use super::archive::{self, Entry};
use super::kind::Kind;
use super::ownership::Given;
use super::{PgDump, SchemaError, attver, classify, left_out, older, source};
use crate::catalog::objects::TakenAlong;
use crate::config::{Keep, Settings};
use crate::membership::SourceTable;
use crate::session::Session;
use crate::sql::{TableName, plain_ident};
use crate::state::deferred::Deferred;

/// How long pg_dump waits for a table that someone holds exclusively before it
/// gives up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Patience {
    /// Longer than a usual ALTER TABLE, shorter than a forgotten session.
    Run,
    /// As long as a person waits for an answer.
    Check,
}

/// What is dumped.
#[derive(Clone, Copy, Debug)]
pub(super) enum Scope<'a> {
    /// Everything that takes part, in this snapshot.
    All { snapshot: Option<&'a str> },
    /// These tables alone, and sequences that their defaults use.
    Tables(&'a [SourceTable], &'a [TableName]),
}

/// A dump of both sections.
#[derive(Debug)]
pub(super) struct Dump {
    /// What is executed at once.
    pub(super) pre_data: Vec<Entry>,
    /// What waits.
    pub(super) post_data: Vec<Entry>,
    /// Comments on what an administrator makes, or has made.
    administrators: Vec<Entry>,
    /// Owners and privileges.
    pub(super) given: Given,
    /// What the filter leaves out.
    pub(super) taken: TakenAlong,
}

impl Dump {
    /// Has pg_dump write the schema, and makes it ready for a target of this version.
    pub(super) async fn read(
        pg_dump: &PgDump,
        settings: &Settings,
        (source, target_version): (&Session, i32),
        (scope, patience): (Scope<'_>, Patience),
        tables: &[SourceTable],
    ) -> Result<Self, SchemaError> {
        let taken = left_out::of_filter(source, &settings.filter, tables).await?;
        let args = arguments(settings, scope, patience, &taken.relations);
        let mut pre_data = archive::split(&pg_dump.run(&settings.source, source.version(), &args).await?)?;
        left_out::remove(&taken, &mut pre_data);
        for entry in &mut pre_data {
            attver::strip(entry);
            older::rewrite(entry, target_version);
        }
        let mut given = Given::default();
        given.take(&mut pre_data);
        let post_data = behind_pre_data(&mut pre_data);
        let superusers = classify::superusers(&pre_data);
        let (administrators, pre_data) =
            pre_data.into_iter().partition(|entry| classify::is_administrators(entry, &superusers));
        Ok(Dump { pre_data, post_data, administrators, given, taken })
    }

    /// Leaves what is said of these schemas to the end, and to those who made them on
    /// the target.
    pub(super) fn leave_notes_on(&mut self, schemas: &HashSet<String>) {
        let entries = std::mem::take(&mut self.pre_data).into_iter();
        let (theirs, ours): (Vec<Entry>, _) = entries.partition(|entry| classify::is_note_on(entry, schemas));
        self.administrators.extend(theirs);
        self.pre_data = ours;
    }

    /// What is executed at once, in order.
    pub(super) fn wanted(&self) -> Vec<&Entry> {
        self.pre_data.iter().filter(|entry| classify::is_wanted(entry)).collect()
    }

    /// What waits, numbered in order.
    pub(super) fn deferred(self, tables: &[SourceTable], target_version: i32) -> Vec<Deferred> {
        let mut objects = classify::deferred(&self.post_data, &source::partitioned(tables), target_version);
        objects.extend(self.given.into_objects());
        objects.extend(self.administrators.iter().map(classify::of_administrator));
        classify::number(&mut objects);
        objects
    }

    /// Takes the entries of post-data out that build these indexes, which come
    /// with something else.
    pub(super) fn drop_indexes(&mut self, inherited: &HashSet<(String, String)>) {
        self.post_data.retain(|entry| {
            let is_of_index = matches!(entry.kind, Kind::Constraint | Kind::Index | Kind::IndexAttach);
            !(is_of_index && inherited.contains(&(entry.schema.clone(), entry.name.clone())))
        });
    }
}

/// Takes post-data out of a dump: it begins with the first entry that is never anything
/// else. A function or a view that has to wait for a key comes behind that key
/// (`addBoundaryDependencies` and `repairFunctionBoundaryMultiLoop` in `pg_dump_sort.c`).
fn behind_pre_data(entries: &mut Vec<Entry>) -> Vec<Entry> {
    let first = entries.iter().position(|entry| entry.kind.is_post_data()).unwrap_or(entries.len());
    // A table that needs such a function comes behind it, and that key before its rows.
    let table = entries.iter().rposition(|entry| entry.kind == Kind::Table).filter(|table| *table > first);
    let needed = |table: &usize| entries.iter().take(*table).skip(first).all(|entry| !entry.kind.acts_on_rows());
    let first = table.filter(needed).map_or(first, |table| table + 1);
    let mut post_data = entries.split_off(first);
    // Written where it changes only; what waits is executed by itself.
    let mut set = entries.iter().rev().find_map(|entry| access_method(&entry.sql)).map(str::to_owned);
    for view in post_data.iter_mut().filter(|entry| entry.kind == Kind::MaterializedView) {
        match (access_method(&view.sql), &set) {
            (Some(own), _) => set = Some(own.to_owned()),
            (None, Some(set)) => view.sql.insert_str(0, &format!("{set}\n")),
            (None, None) => {}
        }
    }
    post_data
}

/// The statement before an entry that names the access method of its table
/// (`_selectTableAccessMethod` in `pg_backup_archiver.c`).
fn access_method(sql: &str) -> Option<&str> {
    let settings = sql.lines().take_while(|line| line.starts_with("SET default_"));
    settings.filter(|line| line.starts_with("SET default_table_access_method")).last()
}

fn arguments(settings: &Settings, scope: Scope<'_>, patience: Patience, left_out: &[TableName]) -> Vec<String> {
    // Tablespaces are folders of the other server's machine. Verbose, for what
    // each entry is.
    let always = ["--no-publications", "--no-subscriptions", "--no-tablespaces", "--encoding=UTF8", "--verbose"];
    let unwanted = [(settings.owners, "--no-owner"), (settings.acl, "--no-acl")];
    let unwanted = unwanted.iter().filter(|(keep, _)| *keep == Keep::No).map(|(_, flag)| *flag);
    let mut args: Vec<String> = always.into_iter().chain(unwanted).map(str::to_owned).collect();
    args.push(match patience {
        Patience::Run => "--lock-wait-timeout=300s".to_owned(),
        Patience::Check => "--lock-wait-timeout=10s".to_owned(),
    });
    match scope {
        Scope::All { snapshot } => {
            args.push("--exclude-schema=walferry".to_owned());
            args.extend(snapshot.map(|snapshot| format!("--snapshot={snapshot}")));
            args.extend(patterns(left_out.iter()).map(|pattern| format!("--exclude-table={pattern}")));
        }
        Scope::Tables(tables, sequences) => {
            let names = tables.iter().map(|table| &table.name).chain(sequences);
            args.extend(patterns(names).map(|pattern| format!("--table={pattern}")));
        }
    }
    args
}

/// Names in one pattern.
const IN_A_PATTERN: usize = 100;

/// The patterns of these tables; pg_dump looks through all relations for each of them
/// (`expand_table_name_patterns` in `pg_dump.c`). What is quoted is taken literally,
/// what is not is a regular expression (`processSQLNamePattern` in `string_utils.c`).
fn patterns<'a>(names: impl Iterator<Item = &'a TableName>) -> impl Iterator<Item = String> {
    let mut by_schema: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for name in names {
        by_schema.entry(&name.schema).or_default().push(plain_ident(&name.name));
    }
    by_schema.into_iter().flat_map(|(schema, names)| {
        let schema = plain_ident(schema);
        let pattern = |names: &[String]| format!("{schema}.({})", names.join("|"));
        names.chunks(IN_A_PATTERN).map(pattern).collect::<Vec<_>>()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Side;
    use crate::demo::cluster::SUPERUSER;
    use crate::demo::server::Server;
    use crate::schema::find_pg_dump;
    use crate::testing::{cluster, over_socket};

    /// Over sections that pg_dump itself tells apart, of a database in which post-data holds
    /// functions and views as well, by every pg_dump that there is.
    #[tokio::test]
    async fn a_dump_is_parted_where_pg_dump_parts_it() {
        let cluster = cluster().start().unwrap();
        let source = over_socket(&cluster, Side::Source, SUPERUSER, "postgres");
        let session = Session::connect(&source, "test").await.unwrap();
        let setup = include_str!("../../tests/it/schema/hard_cases.sql");
        let more = "SET search_path = public; CREATE SEQUENCE e; COMMENT ON SEQUENCE e IS 'x'; GRANT SELECT ON e TO pg_monitor; \
            CREATE TABLE r (id int CHECK (id > 0)); ALTER TABLE r ADD CONSTRAINT v CHECK (id > 1) NOT VALID; \
            ALTER DEFAULT PRIVILEGES GRANT SELECT ON TABLES TO pg_monitor; \
            CREATE FUNCTION fired() RETURNS event_trigger LANGUAGE plpgsql AS 'BEGIN END'; \
            CREATE EVENT TRIGGER fires ON ddl_command_start EXECUTE FUNCTION fired(); COMMENT ON EVENT TRIGGER fires IS 'x'";
        // Sessions of the source read no views of others'; this one makes some that are filled.
        let any = "SET restrict_nonsystem_relation_kind = ''";
        for sql in [any, setup, more] {
            session.batch_execute(sql).await.unwrap();
        }
        let told = |entries: &[Entry]| -> Vec<String> {
            let shown = |entry: &Entry| format!("{} {} {}: {}", entry.kind, entry.schema, entry.name, entry.sql);
            entries.iter().map(shown).collect()
        };
        for server in Server::find_all().unwrap() {
            let pg_dump = find_pg_dump(Some(&server.bin_dir), session.version()).unwrap();
            let run = async |args: &[String]| {
                let mut entries =
                    archive::split(&pg_dump.run(&source, session.version(), args).await.unwrap()).unwrap();
                // These come last, and are taken out first.
                entries.retain(|entry| !matches!(entry.kind, Kind::Acl | Kind::DefaultAcl));
                entries
            };
            let args = ["--verbose".to_owned(), "--no-publications".to_owned()];
            let mut whole = run(&args).await;
            let post_data = behind_pre_data(&mut whole);
            for (name, found) in [("pre-data", &whole), ("post-data", &post_data)] {
                let section = run(&[&args[..], &[format!("--section={name}")]].concat()).await;
                for (ours, theirs) in told(found).into_iter().zip(told(&section)) {
                    assert_eq!(ours, theirs, "{name} of {}", server.major);
                }
                assert_eq!(found.len(), section.len());
            }
            for kind in [Kind::MaterializedView, Kind::Function, Kind::Rule] {
                assert!(post_data.iter().any(|entry| entry.kind == kind), "no {kind} is put off");
            }
        }
    }

    /// Where no table has a key of its own, post-data begins with what is otherwise far behind.
    #[tokio::test]
    async fn a_dump_without_keys_is_parted_as_well() {
        let cluster = cluster().start().unwrap();
        let source = over_socket(&cluster, Side::Source, SUPERUSER, "postgres");
        let session = Session::connect(&source, "test").await.unwrap();
        let setup = "SET search_path = public; CREATE TABLE referred (id int PRIMARY KEY); CREATE TABLE refers (id int REFERENCES referred); \
            CREATE TABLE fires (id int); CREATE FUNCTION fired() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN END'; \
            CREATE TRIGGER t BEFORE INSERT ON fires FOR EACH ROW EXECUTE FUNCTION fired()";
        session.batch_execute(setup).await.unwrap();
        let pg_dump = find_pg_dump(Some(&cluster.server().bin_dir), session.version()).unwrap();
        for (table, kind) in [("refers", Kind::FkConstraint), ("fires", Kind::Trigger)] {
            let args = ["--verbose".to_owned(), format!("--table=public.{table}")];
            let mut entries = archive::split(&pg_dump.run(&source, session.version(), &args).await.unwrap()).unwrap();
            let post_data: Vec<Kind> = behind_pre_data(&mut entries).into_iter().map(|entry| entry.kind).collect();
            assert_eq!(post_data, [kind]);
        }
    }

    #[test]
    fn tables_of_a_schema_are_named_in_few_patterns() {
        let table = |schema: &str, number: usize| TableName::new(schema, format!("t{number}"));
        let names: Vec<TableName> =
            (0..=IN_A_PATTERN).map(|number| table("s", number)).chain([table("a.b", 1)]).collect();
        let found: Vec<String> = patterns(names.iter()).collect();
        assert_eq!(found.len(), 3);
        assert_eq!(found[0], r#""a.b".("t1")"#);
        assert!(found[1].starts_with(r#""s".("t0"|"t1"|"#));
        assert_eq!(found[2], format!(r#""s".("t{IN_A_PATTERN}")"#));
    }
}
