//! The restore, tried: what `run` will execute is executed in a transaction
//! that is rolled back, and everything that the target refuses is told.
//!
//! Invariants: it is the same dump and the same statements as `run`'s
//! ([`super::dump`], [`super::create`]), so there is no second rule; nothing
//! stays, whatever happens, as nothing is committed; every wait has a limit.
//!
//! ```text
//! dump ─ pre-data in runs, one savepoint a run ─ what waits for the rows and the end ─ ROLLBACK
//!            │ one of the run fails: back to the savepoint, then one by one
//!            ▼
//!        refused: with the server's words, or because an earlier one was
//! ```
//!
//! Tables are empty, so indexes and keys cost next to nothing. They take locks,
//! though, which `run` does not hold all at once: of a large schema only what
//! `run` restores in one transaction is tried, and of tables that are alike but for
//! their names one ([`super::alike`]).

use std::collections::{HashMap, HashSet};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use futures_util::future::join_all;

use super::archive::{Entry, Identity, Told};
use super::create::{self, Age, PIPELINED, SETTINGS};
use super::dump::{Dump, Patience, Scope};
use super::kind::Kind;
use super::same::{self, There};
use super::taken::{self, Taken};
use super::{SchemaError, alike, batch, classify, find_pg_dump, order, ownership, source as source_facts};
use crate::catalog::holders::{self, Wanted};
use crate::catalog::objects::{self, ObjectId, TakenAlong};
use crate::catalog::roles;
use crate::config::Settings;
use crate::fault::sqlstate;
use crate::membership::SourceTable;
use crate::session::{DbContext, DbError, Session};
use crate::sql::{TableName, ident};
use crate::state::deferred::{Deferred, DeferredKind};

/// Objects up to which what waits is tried as well.
const TRIED_WHOLE: usize = 5_000;

/// A lock on the target is somebody else's work there; a statement that takes
/// longer does something else than create an empty object.
const LIMITS: &str = "SET LOCAL lock_timeout = '5s'; SET LOCAL statement_timeout = '60s'";

/// Objects behind one savepoint: at the end of each the server looks through all
/// locks and relations that the transaction has so far.
const RUN: usize = 1_500;

/// How long the whole of it may take.
const DEADLINE: Duration = Duration::from_secs(120);

/// What came of it.
#[derive(Debug)]
pub(crate) struct Trial {
    /// The program that wrote the dump.
    pub(crate) pg_dump: PathBuf,
    /// Objects that were tried, and of how many.
    pub(crate) tried: (usize, usize),
    /// Those of the others that are as some that were tried, but for names.
    pub(crate) alike: usize,
    /// What goes with the tables that the filter leaves out.
    pub(crate) taken: TakenAlong,
    /// What the target refuses, in order.
    pub(crate) refused: Vec<Refused>,
    /// The SQL for roles that are missing.
    pub(crate) missing_roles: Vec<String>,
    /// Extensions that the server does not offer.
    pub(crate) missing_extensions: Vec<String>,
    /// The role that the session on the target has.
    pub(crate) role: String,
    /// Schemas that are there and that the role may not create in or use.
    pub(crate) closed_schemas: Vec<String>,
    /// What waits for the rows and was not tried, and whose name something else has.
    pub(crate) taken_names: Vec<Taken>,
    /// How long it took.
    pub(crate) took: Duration,
}

/// An object that the target refuses.
#[derive(Debug)]
pub(crate) struct Refused {
    /// What it is; nothing of what waits for the rows or the end.
    pub(crate) kind: Option<Kind>,
    /// Its name with the schema.
    pub(crate) name: String,
    /// Its schema; empty where it has none of its own.
    pub(crate) schema: String,
    /// What creates it.
    pub(crate) sql: String,
    /// Whether it is of a kind that only a superuser may create.
    is_superusers: bool,
    /// What renames the one that has its name.
    pub(crate) frees: Option<String>,
    /// The server's words, with advice.
    pub(crate) error: SchemaError,
    /// When `run` meets it.
    pub(crate) when: When,
    /// Why, as far as it can be told.
    pub(crate) reason: Reason,
}

impl Refused {
    /// pg_dump's word for what it is, for people; empty where there is none.
    pub(crate) fn word(&self) -> String {
        self.kind.as_ref().map(Kind::shown).unwrap_or_default()
    }

    /// Word and name.
    pub(crate) fn what(&self) -> String {
        format!("{} {}", self.word(), self.name).trim().to_owned()
    }

    /// The foreign data wrapper that it is one of, or needs, quoted.
    pub(crate) fn wrapper(&self) -> Option<String> {
        let words = " FOREIGN DATA WRAPPER ";
        let (start, rest) = self.sql.split_once(words)?;
        let is_about = start == "CREATE" || start.starts_with("CREATE SERVER ");
        classify::identifier(rest).filter(|_| is_about).map(|(name, _)| ident(&name))
    }
}

/// When `run` executes an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum When {
    /// Before the rows are copied.
    First,
    /// After the rows.
    AfterRows,
    /// At the end.
    End,
    /// Last of all, or by an administrator.
    Administrator,
}

/// Why an object is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Reason {
    /// Something of its name is there.
    Exists,
    /// The role may not.
    Right,
    /// The role may create nothing in its schema.
    Schema,
    /// A role that it names is missing, an extension is, or transactions are
    /// read-only, which is said by itself.
    Missing,
    /// The server has no room for more locks.
    Locks,
    /// It needs something that was refused.
    Follows(String),
    /// The server says why.
    Other,
}

/// One statement to try.
struct Piece<'a> {
    kind: Option<Kind>,
    name: String,
    schema: &'a str,
    sql: &'a str,
    entry: Option<&'a Entry>,
    id: Option<ObjectId>,
    when: When,
}

/// Whether the next pieces are worth trying.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Further {
    Yes,
    No,
}

/// Tries the restore on a session of its own.
///
/// # Errors
/// When there is no dump, or a connection is lost.
pub(crate) async fn run(settings: &Settings, source: &Session, tables: &[SourceTable]) -> Result<Trial, SchemaError> {
    let begun = Instant::now();
    let pg_dump = find_pg_dump(settings.pg_bin.as_deref(), source.version())?;
    let target = Session::connect(&settings.target, &settings.name).await?;
    let what = (Scope::All { snapshot: None }, Patience::Check);
    let mut dump = Dump::read(&pg_dump, settings, (source, target.version()), what, tables).await?;
    dump.leave_notes_on(&roles::schemas_of_others(&target).await?);
    let missing_extensions = source_facts::missing_extensions(source, &target).await?;
    let missing_roles =
        match ownership::require_roles(source, &target, settings.acl, tables, &dump.given.new_owners).await {
            Err(SchemaError::Roles(missing)) => missing,
            result => result.map(|()| Vec::new())?,
        };
    let taken = dump.taken.clone();
    let first: Vec<Entry> = dump.wanted().into_iter().cloned().collect();
    let known: HashMap<String, Identity> =
        dump.pre_data.iter().chain(&dump.post_data).map(|e| (classify::describe(e), e.identity.clone())).collect();
    let waiting = dump.deferred(tables, target.version());
    let mut pieces = pieces_of_entries(&first);
    let all = pieces.len() + waiting.len();
    let (mut alike, mut taken_names) = (0, Vec::new());
    if all <= TRIED_WHOLE {
        pieces.extend(pieces_of_objects(&waiting, &known));
    } else {
        let waiting = waiting.iter().map(|object| (object.object.clone(), object.sql.clone()));
        taken_names = taken::of(&target, waiting).await?;
        let others = alike::others(source, &target, &first).await?;
        alike = others.len();
        let places = pieces.into_iter().enumerate().filter(|(place, _)| !others.contains(place));
        pieces = places.map(|(_, piece)| piece).collect();
    }
    let mut attempt = Attempt { target: &target, age: create::age(source, &target), begun, refused: Vec::new() };
    batch(&target, &format!("BEGIN; {SETTINGS}; {LIMITS}"), "begin to try the schema").await?;
    let tried = attempt.all(&pieces).await?;
    batch(&target, "ROLLBACK", "roll back the trial of the schema").await?;
    let mut refused = blame(source, &pieces, attempt.refused).await?;
    leave_to_administrators(&mut refused);
    leave_out_what_is_there(&target, &mut refused).await?;
    let role = roles::current(&target).await?.name;
    let closed_schemas = closed_schemas(&target, &first).await?;
    explain(&target, &mut refused, (&missing_roles, &missing_extensions, &closed_schemas)).await?;
    let (tried, took) = ((tried, all), begun.elapsed());
    let pg_dump = pg_dump.path;
    Ok(Trial {
        pg_dump,
        tried,
        alike,
        taken,
        refused,
        missing_roles,
        missing_extensions,
        role,
        closed_schemas,
        taken_names,
        took,
    })
}

/// As in `run`, what only a superuser may create is left to an administrator, with
/// what belongs to it, unless something else needs it.
fn leave_to_administrators(refused: &mut [Refused]) {
    let is_own =
        |one: &Refused| one.is_superusers && db_error(&one.error).is_some_and(|e| create::is_administrators(e, true));
    let own: Vec<String> = refused.iter().filter(|one| is_own(one)).map(root).collect();
    let Some(first) = own.first().cloned() else { return };
    for one in refused.iter_mut() {
        let is_missing = state_of(&one.error).is_some_and(sqlstate::is_missing);
        if one.when == When::Administrator && is_missing {
            one.reason = Reason::Follows(first.clone());
        }
    }
    let needs = |one: &Refused| {
        let follows = matches!(&one.reason, Reason::Follows(root) if own.contains(root));
        follows && !is_own(one) && one.when != When::Administrator
    };
    if !refused.iter().any(needs) {
        refused.iter_mut().filter(|one| is_own(one)).for_each(|one| one.when = When::Administrator);
    }
}

/// What an administrator has given already counts as restored at the end.
async fn leave_out_what_is_there(target: &Session, refused: &mut Vec<Refused>) -> Result<(), DbError> {
    for one in std::mem::take(refused) {
        let is_theirs = one.when == When::Administrator && one.kind.is_none();
        if !(is_theirs && matches!(same::look(target, &one.sql).await?, There::Same { .. })) {
            refused.push(one);
        }
    }
    Ok(())
}

/// Those of the schemas of these entries that are there, and in which the role may not
/// create, or not use what it has created.
async fn closed_schemas(target: &Session, entries: &[Entry]) -> Result<Vec<String>, DbError> {
    let schemas: HashSet<&str> = entries.iter().map(|entry| entry.schema.as_str()).collect();
    let schemas: Vec<&str> = schemas.into_iter().collect();
    let sql = "SELECT nspname::text FROM pg_catalog.pg_namespace WHERE nspname = ANY ($1::text[]) \
         AND NOT (pg_catalog.has_schema_privilege(oid, 'CREATE') AND pg_catalog.has_schema_privilege(oid, 'USAGE')) ORDER BY 1";
    let rows = target.query(sql, &[&schemas]).await.during(target.side(), "look at the schemas")?;
    rows.iter().map(|row| row.take(0)).collect()
}

/// Says of what is refused what the target's catalog knows of the reason.
async fn explain(
    target: &Session,
    refused: &mut [Refused],
    (roles, extensions, schemas): (&[String], &[String], &[String]),
) -> Result<(), DbError> {
    // A table that is renamed keeps its indexes and sequences under their names.
    let is_in_question = |one: &Refused| match one.reason {
        Reason::Exists => true,
        Reason::Follows(_) => is_named(one.kind.as_ref()),
        _ => false,
    };
    let wanted = |one: &Refused| wanted_of(one).filter(|_| is_in_question(one));
    let frees = holders::frees(target, &refused.iter().filter_map(wanted).collect::<Vec<_>>()).await?;
    for one in refused.iter_mut() {
        let is_late = matches!(one.when, When::End | When::Administrator);
        let is_unknown = state_of(&one.error) == Some(sqlstate::UNDEFINED_OBJECT);
        one.frees = wanted(one).and_then(|wanted| frees.get(&wanted)).cloned();
        one.reason = match &one.reason {
            Reason::Follows(_) if one.frees.is_some() => Reason::Exists,
            _ if state_of(&one.error) == Some(sqlstate::READ_ONLY_SQL_TRANSACTION) => Reason::Missing,
            Reason::Right if schemas.contains(&one.schema) => Reason::Schema,
            Reason::Right | Reason::Other if is_late && !roles.is_empty() => Reason::Missing,
            Reason::Other if is_unknown && !roles.is_empty() && one.kind == Some(Kind::UserMapping) => Reason::Missing,
            Reason::Right | Reason::Other if one.kind == Some(Kind::Extension) && extensions.contains(&one.name) => {
                Reason::Missing
            }
            reason => reason.clone(),
        };
    }
    Ok(())
}

/// Whether it creates something under a name of its own: keys and indexes do (which have
/// no kind here, as they wait for the rows), and these.
fn is_named(kind: Option<&Kind>) -> bool {
    matches!(kind, None | Some(Kind::Table | Kind::Sequence | Kind::View | Kind::MaterializedView | Kind::Type))
}

/// The name that an object was to have.
fn wanted_of(refused: &Refused) -> Option<Wanted> {
    let name = refused.name.strip_prefix(&format!("{}.", refused.schema)).unwrap_or(&refused.name);
    let name = TableName::new(refused.schema.as_str(), name);
    match refused.kind {
        Some(Kind::Function | Kind::Procedure | Kind::Aggregate) => Some(Wanted::Routine(name)),
        None => same::name_taken_by(&refused.sql),
        Some(_) => Some(Wanted::Relation(name)),
    }
}

fn pieces_of_entries<'a>(entries: &'a [Entry]) -> Vec<Piece<'a>> {
    // Comments and the like are known by the entry that they belong to.
    let by_dump_id: HashMap<u32, ObjectId> =
        entries.iter().filter_map(|e| Some((e.identity.dump_id, object_of(&e.identity)?))).collect();
    let id = |identity: &Identity| match identity.told {
        Told::Nothing => identity.belongs_to.iter().find_map(|id| by_dump_id.get(id)).copied(),
        Told::RowSecurityOf(_) | Told::Object(_) => object_of(identity),
    };
    let piece = |entry: &'a Entry| Piece {
        kind: Some(entry.kind.clone()),
        name: entry_name(entry),
        schema: &entry.schema,
        sql: &entry.sql,
        entry: Some(entry),
        id: id(&entry.identity),
        when: When::First,
    };
    entries.iter().map(piece).collect()
}

fn object_of(identity: &Identity) -> Option<ObjectId> {
    match identity.told {
        Told::Object(id) => Some(id),
        Told::Nothing | Told::RowSecurityOf(_) => None,
    }
}

fn entry_name(entry: &Entry) -> String {
    if entry.schema.is_empty() { entry.name.clone() } else { format!("{}.{}", entry.schema, entry.name) }
}

/// What waits, in the order in which it comes in.
fn pieces_of_objects<'a>(objects: &'a [Deferred], known: &HashMap<String, Identity>) -> Vec<Piece<'a>> {
    let mut pieces = Vec::new();
    for object in order::in_order(objects) {
        let of = ["validation of ", "owner of "].iter().find_map(|words| object.object.strip_prefix(words));
        let identity = known.get(of.unwrap_or(&object.object));
        pieces.push(Piece {
            kind: None,
            name: object.object.clone(),
            schema: &object.table.schema,
            sql: &object.sql,
            entry: None,
            id: identity.and_then(object_of),
            when: match object.kind {
                DeferredKind::AfterRows => When::AfterRows,
                DeferredKind::Administrator => When::Administrator,
                _ => When::End,
            },
        });
    }
    pieces
}

/// The transaction under way.
struct Attempt<'a> {
    target: &'a Session,
    age: Age,
    begun: Instant,
    /// By the piece's place.
    refused: Vec<(usize, SchemaError)>,
}

impl Attempt<'_> {
    /// Tries one after the other; the number of those tried.
    async fn all(&mut self, pieces: &[Piece<'_>]) -> Result<usize, SchemaError> {
        let mut tried = 0;
        let needs_a_look = |piece: &Piece<'_>| piece.entry.is_some_and(create::needs_a_look);
        for run in pieces.chunk_by(|a, b| !needs_a_look(a) && !needs_a_look(b)) {
            for chunk in run.chunks(RUN) {
                if self.chunk(tried, chunk).await? == Further::No {
                    return Ok(tried);
                }
                tried += chunk.len();
            }
        }
        Ok(tried)
    }

    /// Sends a run, in the hope that all of it is taken; if not, a few at a time, and
    /// of these one by one.
    async fn chunk(&mut self, first: usize, pieces: &[Piece<'_>]) -> Result<Further, SchemaError> {
        if self.begun.elapsed() > DEADLINE {
            return Ok(Further::No);
        }
        self.batch("SAVEPOINT walferry_run").await?;
        if self.at_once(pieces).await {
            self.batch("RELEASE SAVEPOINT walferry_run").await?;
            return Ok(Further::Yes);
        }
        self.batch("ROLLBACK TO SAVEPOINT walferry_run; RELEASE SAVEPOINT walferry_run").await?;
        if pieces.len() <= PIPELINED {
            return self.one_by_one(first, pieces).await;
        }
        for (few, place) in pieces.chunks(PIPELINED).zip((first..).step_by(PIPELINED)) {
            if Box::pin(self.chunk(place, few)).await? == Further::No {
                return Ok(Further::No);
            }
        }
        Ok(Further::Yes)
    }

    async fn at_once(&self, pieces: &[Piece<'_>]) -> bool {
        let warned = self.target.privileges_refused();
        for few in pieces.chunks(PIPELINED) {
            let results = join_all(few.iter().map(|piece| self.one(piece))).await;
            if !results.iter().all(Result::is_ok) {
                return false;
            }
        }
        self.target.privileges_refused() == warned
    }

    async fn one_by_one(&mut self, first: usize, pieces: &[Piece<'_>]) -> Result<Further, SchemaError> {
        for (place, piece) in (first..).zip(pieces) {
            self.batch("SAVEPOINT walferry_one").await?;
            let warned = self.target.privileges_refused();
            let error = match self.one(piece).await {
                Err(error) => error,
                Ok(()) if self.target.privileges_refused() != warned => SchemaError::NotGiven,
                Ok(()) => {
                    self.batch("RELEASE SAVEPOINT walferry_one").await?;
                    continue;
                }
            };
            if self.target.is_closed() {
                return Err(error);
            }
            self.batch("ROLLBACK TO SAVEPOINT walferry_one; RELEASE SAVEPOINT walferry_one").await?;
            let is_full = state_of(&error) == Some(sqlstate::OUT_OF_MEMORY);
            self.refused.push((place, error));
            if is_full {
                return Ok(Further::No);
            }
        }
        Ok(Further::Yes)
    }

    async fn one(&self, piece: &Piece<'_>) -> Result<(), SchemaError> {
        match piece.entry {
            Some(entry) => create::execute(self.target, self.age, entry).await,
            None => Ok(batch(self.target, piece.sql, &format!("restore the {}", piece.name)).await?),
        }
    }

    async fn batch(&self, sql: &str) -> Result<(), DbError> {
        batch(self.target, sql, "try the schema").await
    }
}

fn state_of(error: &SchemaError) -> Option<&str> {
    db_error(error)?.sqlstate()
}

fn db_error(error: &SchemaError) -> Option<&DbError> {
    match error {
        SchemaError::Object { source, .. } | SchemaError::Db(source) => Some(source),
        _ => None,
    }
}

/// Tells what is refused for a reason of its own from what only follows.
async fn blame(
    source: &Session,
    pieces: &[Piece<'_>],
    refused: Vec<(usize, SchemaError)>,
) -> Result<Vec<Refused>, DbError> {
    let ids: Vec<Option<ObjectId>> =
        refused.iter().map(|(place, _)| pieces.get(*place).and_then(|piece| piece.id)).collect();
    let mut causes: HashMap<usize, usize> = HashMap::new();
    for (cause, dependent) in objects::dependents(source, &ids).await? {
        causes.entry(dependent).or_insert(cause);
    }
    let mut found: Vec<Refused> = Vec::new();
    for (place, (piece, error)) in refused.into_iter().map(|(at, error)| (pieces.get(at), error)).enumerate() {
        let Some(piece) = piece else { continue };
        // As at the end: such an entry is left to an administrator.
        let is_not_given = matches!(error, SchemaError::NotGiven);
        let own = match state_of(&error) {
            _ if is_not_given => Reason::Right,
            Some(sqlstate::INSUFFICIENT_PRIVILEGE) => Reason::Right,
            Some(sqlstate::OUT_OF_MEMORY) => Reason::Locks,
            Some(code) if sqlstate::is_already_there(code) => Reason::Exists,
            _ => Reason::Other,
        };
        let is_missing = state_of(&error).is_some_and(sqlstate::is_missing);
        let same = |earlier: &&Refused| ids.get(place).is_some_and(Option::is_some) && earlier.sql != piece.sql;
        let cause = causes.get(&place).and_then(|cause| found.get(*cause)).filter(same);
        let named = || found.iter().find(|earlier| is_missing && names_it(&error, &earlier.name));
        let reason = match cause.or_else(named) {
            Some(cause) if is_missing || cause.reason == own || is_part(cause, &own) => Reason::Follows(root(cause)),
            _ => own,
        };
        let (kind, name, schema) = (piece.kind.clone(), piece.name.clone(), piece.schema.to_owned());
        let (sql, when) = (piece.sql.to_owned(), if is_not_given { When::Administrator } else { piece.when });
        let is_superusers = piece.entry.is_some_and(classify::needs_superuser);
        found.push(Refused { kind, name, schema, sql, is_superusers, frees: None, error, when, reason });
    }
    Ok(found)
}

/// Whether an object that is there, too, is there because its table is.
fn is_part(cause: &Refused, own: &Reason) -> bool {
    matches!((&cause.reason, own), (Reason::Follows(_) | Reason::Exists, Reason::Exists | Reason::Other))
}

/// What an object that follows another follows in the end.
fn root(cause: &Refused) -> String {
    match &cause.reason {
        Reason::Follows(first) => first.clone(),
        _ => cause.what(),
    }
}

/// Whether the server's words name it: in quotes, or as a routine.
fn names_it(error: &SchemaError, name: &str) -> bool {
    let (words, last) = (error.to_string(), name.rsplit(' ').next().unwrap_or(name));
    words.contains(&format!("\"{last}\"")) || words.contains(&format!("function {last} "))
}
