//! pg_dump's plain text, taken apart into its entries.
//!
//! Invariant: an entry begins only at a full header comment outside of every
//! quoted string, dollar-quoted body and comment, so a function whose body
//! holds a pasted dump is not torn apart. Joined again in order, the entries
//! are the dump without its preamble. An entry knows which object of the
//! source's catalog it is, where pg_dump was asked to say so (`--verbose`).
//!
//! Source: `_printTocEntry` in `src/bin/pg_dump/pg_backup_archiver.c`.

use std::collections::HashMap;

use super::SchemaError;
use super::kind::Kind;
use crate::catalog::objects::{ObjectId, PG_CLASS};
use crate::sql::tokens::token_length;

/// One entry of the archive.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Entry {
    /// The name in the header: "items items_pkey".
    pub(super) name: String,
    /// What it is.
    pub(super) kind: Kind,
    /// The schema, empty where there is none.
    pub(super) schema: String,
    /// Its owner, empty where none is told.
    pub(super) owner: String,
    /// Its statements.
    pub(super) sql: String,
    /// Which object it is.
    pub(super) identity: Identity,
}

/// What pg_dump says of an entry's object in the source's catalog.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Told {
    /// Nothing (class 0, oid 0): comments, privileges and ownership of sequences
    /// are known by the entries that they belong to, attachments of partitions by
    /// their names.
    #[default]
    Nothing,
    /// The oid of the table whose row security it is (class 0).
    RowSecurityOf(u32),
    /// The object.
    Object(ObjectId),
}

/// Which object of the source an entry is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Identity {
    /// pg_dump's own number of the entry, of this run.
    pub(super) dump_id: u32,
    /// The object itself.
    pub(super) told: Told,
    /// The entries that it belongs to.
    pub(super) belongs_to: Vec<u32>,
    /// The object, or where none is told the one that it belongs to.
    pub(super) of: Option<ObjectId>,
}

/// What the header and the end of a dump look like.
const HEADERS: [&str; 2] = ["--\n-- Name: ", "--\n-- TOC entry "];
const COMPLETE: &str = "--\n-- PostgreSQL database dump complete\n";

/// Takes a dump apart. The preamble (settings that an older target may not
/// know, `\restrict`) is dropped: the caller has settings of its own.
///
/// # Errors
/// When a header has not the known form, or the dump has no end.
pub(super) fn split(dump: &str) -> Result<Vec<Entry>, SchemaError> {
    let mut entries: Vec<Entry> = Vec::new();
    let mut carried = String::new();
    let mut header: Option<(Entry, usize)> = None;
    let mut at = 0;
    while let Some(rest) = dump.get(at..) {
        if rest.is_empty() {
            break;
        }
        let line_start = at == 0 || dump.as_bytes().get(at - 1) == Some(&b'\n');
        let complete = line_start && rest.starts_with(COMPLETE);
        if complete || (line_start && HEADERS.iter().any(|header| rest.starts_with(header))) {
            if let Some((entry, body)) = header.take() {
                carried = finish(entry, &carried, dump.get(body..at).unwrap_or_default(), &mut entries);
            }
            if complete {
                say_whose(&mut entries);
                return Ok(entries);
            }
            let (entry, length) = parse_header(rest)?;
            at += length;
            header = Some((entry, at));
            continue;
        }
        at += token_length(rest, dump.get(..at).unwrap_or_default());
    }
    Err(SchemaError::Archive("it ends without \"PostgreSQL database dump complete\"".to_owned()))
}

/// Fills in of which object each entry is.
fn say_whose(entries: &mut [Entry]) {
    let told = |entry: &Entry| match entry.identity.told {
        Told::Nothing => None,
        Told::RowSecurityOf(table) => Some((PG_CLASS, table)),
        Told::Object(id) => Some(id),
    };
    let known: HashMap<u32, ObjectId> =
        entries.iter().filter_map(|entry| Some((entry.identity.dump_id, told(entry)?))).collect();
    for entry in entries {
        let owner = || entry.identity.belongs_to.iter().find_map(|id| known.get(id).copied());
        entry.identity.of = told(entry).or_else(owner);
    }
}

/// Adds an entry. Settings that pg_dump writes *before* a header belong to the
/// entry behind it: they are returned, to be carried over.
fn finish(mut entry: Entry, carried: &str, body: &str, entries: &mut Vec<Entry>) -> String {
    let mut body = without_timestamp(body.trim_end());
    let mut settings = String::new();
    while let Some((before, last)) = body.rsplit_once('\n') {
        let is_setting = last.starts_with("SET default_") && last.ends_with(';');
        if !is_setting {
            break;
        }
        settings.insert_str(0, &format!("{last}\n"));
        body = before.trim_end();
    }
    entry.sql = format!("{carried}{}", body.trim());
    entries.push(entry);
    settings
}

/// Of a verbose dump the last line says when it was completed.
fn without_timestamp(body: &str) -> &str {
    match body.rsplit_once('\n') {
        Some((before, last)) if last.starts_with("-- Completed on ") => before.trim_end(),
        _ => body,
    }
}

/// Reads the header at the start of `text`; returns its length in bytes.
fn parse_header(text: &str) -> Result<(Entry, usize), SchemaError> {
    let mut lines = text.split('\n');
    let (Some(open), Some(mut line)) = (lines.next(), lines.next()) else {
        return Err(SchemaError::Archive("a header is not closed".to_owned()));
    };
    let mut length = open.len() + 1;
    let wrong = |line: &str| SchemaError::Archive(format!("unknown form of header: {line}"));
    let mut identity = Identity::default();
    while !line.starts_with("-- Name: ") {
        take_identity(line, &mut identity).ok_or_else(|| wrong(line))?;
        length += line.len() + 1;
        line = lines.next().ok_or_else(|| wrong(line))?;
    }
    if lines.next() != Some("--") {
        return Err(SchemaError::Archive("a header is not closed".to_owned()));
    }
    let entry = parse_name(line).ok_or_else(|| wrong(line))?;
    Ok((Entry { identity, ..entry }, length + line.len() + "\n--\n".len()))
}

/// Reads "-- Name: a; Type: b; Schema: c; Owner: d" from the right, as the
/// name may hold anything.
fn parse_name(line: &str) -> Option<Entry> {
    let rest = line.strip_prefix("-- Name: ")?;
    let (rest, owner) = rest.rsplit_once("; Owner: ")?;
    let (rest, schema) = rest.rsplit_once("; Schema: ")?;
    let (name, kind) = rest.rsplit_once("; Type: ")?;
    let some = |text: &str| if text == "-" { String::new() } else { text.to_owned() };
    Some(Entry {
        name: name.to_owned(),
        kind: kind.into(),
        schema: some(schema),
        owner: some(owner),
        ..Entry::default()
    })
}

/// Reads "-- TOC entry 6 (class 2615 OID 16385)" and "-- Dependencies: 6 7".
fn take_identity(line: &str, identity: &mut Identity) -> Option<()> {
    if let Some(list) = line.strip_prefix("-- Dependencies:") {
        identity.belongs_to = list.split_whitespace().map(str::parse).collect::<Result<_, _>>().ok()?;
        return Some(());
    }
    let (dump_id, rest) = line.strip_prefix("-- TOC entry ")?.split_once(" (class ")?;
    let (class, oid) = rest.strip_suffix(')')?.split_once(" OID ")?;
    identity.dump_id = dump_id.parse().ok()?;
    identity.told = match (class.parse().ok()?, oid.parse().ok()?) {
        (0, 0) => Told::Nothing,
        (0, table) => Told::RowSecurityOf(table),
        id => Told::Object(id),
    };
    Some(())
}
