//! Owners and privileges of large objects, given at the very end (`--owners`,
//! `--acl`), as those of everything else are.
//!
//! Invariant: until then the objects belong to the role that carries them, as it
//! has to write them. What cannot be given is named with its SQL and keeps
//! nothing else from being given. Source: `ExecGrant_Largeobject` and
//! `AlterObjectOwner_internal` (`src/backend/catalog/aclchk.c`,
//! `src/backend/commands/alter.c`).

use std::collections::{BTreeSet, HashMap};

use super::{BATCH_OBJECTS, NAMED_OBJECTS};
use crate::config::{Keep, Settings, Side};
use crate::session::{DbContext, DbError, Session};
use crate::sql::ident;
use crate::state::State;
use crate::sweep::SweepError;

/// What was given.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Given {
    /// Statements that went through.
    pub given: u64,
    /// The first that did not, each with the server's words.
    pub refused: Vec<String>,
    /// How many more did not.
    pub more_refused: u64,
}

/// Who may do what with an object: grantee as SQL, privilege, and whether it can
/// be passed on. The owner's own rights are left out.
type Rights = BTreeSet<(String, String, bool)>;

/// An object's owner and rights on one side.
#[derive(Debug, Default)]
struct Held {
    owner: String,
    rights: Rights,
}

/// Gives the migration's objects their owners and privileges of the source.
///
/// # Errors
/// When a server fails; a statement that is refused is no error but named.
pub async fn give(settings: &Settings, source: &Session, target: &Session, state: &State) -> Result<Given, SweepError> {
    let mut given = Given::default();
    if (settings.owners, settings.acl) == (Keep::No, Keep::No) {
        return Ok(given);
    }
    let (limit, mut above) = (BATCH_OBJECTS as i64, None);
    loop {
        let ours = state.own_large_objects(above, limit).await?;
        let Some(last) = ours.last() else { return Ok(given) };
        above = Some(*last);
        let (here, there) = futures_util::try_join!(held(source, &ours), held(target, &ours))?;
        let statements: Vec<String> = ours
            .iter()
            .filter_map(|oid| Some((oid, here.get(oid)?, there.get(oid)?)))
            .flat_map(|(oid, here, there)| statements(settings, *oid, here, there))
            .collect();
        execute(target, &statements, &mut given).await?;
    }
}

/// The owners of the source's large objects.
///
/// # Errors
/// When the catalog cannot be read.
pub async fn names(source: &Session) -> Result<Vec<String>, DbError> {
    let sql = "SELECT r.rolname::text FROM pg_roles r WHERE r.oid IN (SELECT lomowner FROM pg_largeobject_metadata)";
    let rows = source.query(sql, &[]).await.during(source.side(), "list the owners of large objects")?;
    rows.iter().map(|row| row.take(0)).collect()
}

/// Grants go first: the role may not be able to give any once the object is
/// another's, and with the owner they stay.
fn statements(settings: &Settings, oid: u32, here: &Held, there: &Held) -> Vec<String> {
    let mut statements = Vec::new();
    let object = format!("ON LARGE OBJECT {oid}");
    if settings.acl == Keep::Yes {
        for (grantee, privilege, _) in there.rights.difference(&here.rights) {
            statements.push(format!("REVOKE {privilege} {object} FROM {grantee}"));
        }
        for (grantee, privilege, can_grant) in here.rights.difference(&there.rights) {
            let option = if *can_grant { " WITH GRANT OPTION" } else { "" };
            statements.push(format!("GRANT {privilege} {object} TO {grantee}{option}"));
        }
    }
    if settings.owners == Keep::Yes && here.owner != there.owner {
        statements.push(format!("ALTER LARGE OBJECT {oid} OWNER TO {}", ident(&here.owner)));
    }
    statements
}

async fn held(session: &Session, oids: &[u32]) -> Result<HashMap<u32, Held>, DbError> {
    let sql = "SELECT m.oid, o.rolname::text, a.grantee, g.rolname::text, a.privilege_type, a.is_grantable \
               FROM pg_largeobject_metadata m JOIN pg_roles o ON o.oid = m.lomowner \
               LEFT JOIN LATERAL aclexplode(m.lomacl) a ON a.grantee <> m.lomowner \
               LEFT JOIN pg_roles g ON g.oid = a.grantee WHERE m.oid = ANY ($1::oid[])";
    let rows = session.query(sql, &[&oids]).await.during(session.side(), "read who owns the large objects")?;
    let mut held: HashMap<u32, Held> = HashMap::new();
    for row in &rows {
        let object = held.entry(row.take(0)?).or_default();
        object.owner = row.take(1)?;
        let grantee = match (row.take::<Option<u32>>(2)?, row.take::<Option<&str>>(3)?) {
            (Some(0), _) => "PUBLIC".to_owned(),
            (Some(_), Some(name)) => ident(name),
            // No right, or one of a role that is gone.
            _ => continue,
        };
        object.rights.insert((grantee, row.take(4)?, row.take(5)?));
    }
    Ok(held)
}

/// All at once; if the target refuses that, one by one.
async fn execute(target: &Session, statements: &[String], given: &mut Given) -> Result<(), DbError> {
    let action = "give large objects to their owners";
    if statements.is_empty() {
        return Ok(());
    }
    match target.batch_execute(&statements.join("; ")).await {
        Ok(()) => {
            given.given += statements.len() as u64;
            return Ok(());
        }
        Err(error) if error.as_db_error().is_none() => return Err(error).during(Side::Target, action),
        Err(_) => {}
    }
    for statement in statements {
        match target.batch_execute(statement).await {
            Ok(()) => given.given += 1,
            Err(error) => {
                let Some(said) = error.as_db_error() else { return Err(error).during(Side::Target, action) };
                if given.refused.len() >= NAMED_OBJECTS {
                    given.more_refused += 1;
                } else {
                    given.refused.push(format!("{statement}: {} (SQLSTATE {})", said.message(), said.code().code()));
                }
            }
        }
    }
    Ok(())
}
